package rbd

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/seed-478a8fee/platter/backends"
)

// snapName is the snapshot that makes an image an object: Glance's name for it.
const snapName = "snap"

// imageName returns the name of the image at a key. '/' separates pool,
// namespace and image wherever a person or QEMU names an image, so it stands
// as '+', which no key has: the two are one to one.
func imageName(key string) (string, error) {
	if err := backends.CheckKey(key); err != nil {
		return "", err
	}
	return strings.ReplaceAll(key, "/", "+"), nil
}

// uri returns Glance's location of an object. It has no words for namespaces.
func uri(fsid string, cfg Config, key string) string {
	name, err := imageName(key)
	if err != nil || cfg.Namespace != "" || fsid == "" {
		return ""
	}
	return fmt.Sprintf("rbd://%s/%s/%s/%s", url.QueryEscape(fsid), url.QueryEscape(cfg.Pool), url.QueryEscape(name), snapName)
}
