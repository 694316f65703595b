package config

import (
	"net/url"
	"slices"
	"strings"
)

// storeTypes are the types of store, each with the keys that it needs.
func storeTypes() map[string][]string {
	return map[string][]string{
		"file":  {"dir"},
		"rbd":   {"pool"},
		"s3":    {"endpoint", "bucket"},
		"swift": {"auth_url", "user", "key", "container"},
		"http":  {},
	}
}

// validateStore notes the mistakes of one store.
func (l *loader) validateStore(path string, s Store) {
	types := storeTypes()
	known := strings.Join(sortedKeys(types), ", ")
	needs, ok := types[s.Type]
	if s.Type == "" {
		l.wrong(path+".type", "a store needs a type: %s", known)
	} else if !ok {
		l.wrong(path+".type", "%q is none of %s", s.Type, known)
	}
	given := map[string]string{
		"dir": s.Dir, "pool": s.Pool, "endpoint": s.Endpoint, "bucket": s.Bucket,
		"auth_url": s.AuthURL, "user": s.User, "key": s.Key, "container": s.Container,
	}
	for _, key := range needs {
		if given[key] == "" {
			l.wrong(path+"."+key, "a store of type %s needs %s", s.Type, key)
		}
	}
	for key, text := range map[string]string{"endpoint": s.Endpoint, "auth_url": s.AuthURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			l.wrong(path+"."+key, "%q is no http or https URL", text)
		}
	}
	if (s.AccessKey == "") != (s.SecretKey == "") {
		l.wrong(path+".access_key", "access_key and secret_key belong together: give both, or neither for a bucket that anybody can use")
	}
	if s.Layout == "chunked" {
		l.wrong(path+".layout", "layout chunked is not built yet: this release has plain")
	} else if s.Layout != "" && s.Layout != "plain" {
		l.oneOf(path+".layout", s.Layout, "plain", "chunked")
	}
	if s.Type == "swift" && (s.AuthVersion < 1 || s.AuthVersion > 3) {
		l.wrong(path+".auth_version", "%d is none of 1, 2, 3", s.AuthVersion)
	}
	if s.Shared && s.Type != "file" {
		l.wrong(path+".shared", "it is for stores of type file; others are always shared")
	}
	l.validateOverlays(path, s)
}

// validateOverlays notes what does not fit between a store and how overlays
// are kept there.
func (l *loader) validateOverlays(path string, s Store) {
	engines := map[string][]string{"file": {"file"}, "http": {"file"}, "rbd": {"rbd", "file"}, "s3": {"object-log", "file"}, "swift": {"object-log", "file"}}
	if s.Overlay != "" && !slices.Contains([]string{"file", "rbd", "object-log"}, s.Overlay) {
		l.oneOf(path+".overlay", s.Overlay, "file", "rbd", "object-log")
	} else if can := engines[s.Type]; len(can) > 0 && !slices.Contains(can, s.Engine()) {
		l.wrong(path+".overlay", "a store of type %s cannot keep overlays by %s: use %s", s.Type, s.Overlay, strings.Join(can, " or "))
	}
	switch {
	case s.Durability == "":
	case s.Engine() != "object-log":
		l.wrong(path+".durability", "durability applies to the engine object-log; here overlays are kept by %s: remove it", s.Engine())
	default:
		l.oneOf(path+".durability", s.Durability, "gateway", "store")
	}
}
