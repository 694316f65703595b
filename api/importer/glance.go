package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"github.com/seed-478a8fee/platter/catalog"
)

// maxRecord bounds the record of another service's image.
const maxRecord = 1 << 20

// A Source is an image of another image service.
type Source struct {
	Image     string // its id
	Region    string
	Interface string // public, internal or admin
	Token     string // of who asks; never written down
}

// A Remote reads images of other image services, which the identity service
// knows.
type Remote struct {
	// Endpoint returns the URL of the image service of a region.
	Endpoint func(ctx context.Context, region, iface string) (string, error)

	// Fetch reads a URL with a token, as Fetcher does without one.
	Fetch func(ctx context.Context, uri, token string) (body io.ReadCloser, size int64, err error)

	// Properties begin the names of the properties that come along.
	// nil: Glance's.
	Properties []string
}

func (r *Remote) properties() []string {
	if r.Properties == nil {
		return []string{"hw_", "trait:", "os_distro", "os_secure_boot", "os_type"}
	}
	return r.Properties
}

// A record is what is taken from the record of another service's image.
type record struct {
	size       int64
	disk, box  string
	properties map[string]string
}

func (r *Remote) url(ctx context.Context, from Source) (string, error) {
	base, err := r.Endpoint(ctx, from.Region, from.Interface)
	if err != nil {
		return "", fmt.Errorf("the image service of region %.80q: %w", from.Region, err)
	}
	base = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/v2"), "/")
	return base + "/v2/images/" + url.PathEscape(from.Image), nil
}

// record reads the record of an image, which must be active.
func (r *Remote) record(ctx context.Context, from Source) (record, error) {
	var out record
	uri, err := r.url(ctx, from)
	if err != nil {
		return out, err
	}
	body, _, err := r.Fetch(ctx, uri, from.Token)
	if err != nil {
		return out, err
	}
	defer body.Close()
	var fields map[string]any
	if err := json.NewDecoder(io.LimitReader(body, maxRecord)).Decode(&fields); err != nil {
		return out, fmt.Errorf("the record of image %s cannot be read: %w", from.Image, err)
	}
	if status, _ := fields["status"].(string); status != string(catalog.StatusActive) {
		return out, fmt.Errorf("image %s is %.40q there, and must be active", from.Image, status)
	}
	size, ok := fields["size"].(float64)
	if !ok || size < 0 || size != float64(int64(size)) {
		return out, fmt.Errorf("image %s does not say its size there", from.Image)
	}
	out.size = int64(size)
	out.disk, _ = fields["disk_format"].(string)
	out.box, _ = fields["container_format"].(string)
	out.properties = map[string]string{}
	for key, value := range fields {
		text, ok := value.(string)
		for _, prefix := range r.properties() {
			if ok && strings.HasPrefix(key, prefix) && !strings.HasPrefix(key, "os_glance") {
				out.properties[key] = text
			}
		}
	}
	return out, nil
}

// open begins to read the bytes of an image.
func (r *Remote) open(ctx context.Context, from Source, want int64) (io.ReadCloser, error) {
	uri, err := r.url(ctx, from)
	if err != nil {
		return nil, err
	}
	body, size, err := r.Fetch(ctx, uri+"/file", from.Token)
	if err != nil {
		return nil, err
	}
	if size >= 0 && size != want {
		body.Close()
		return nil, fmt.Errorf("image %s has %d bytes there, and %d came: it is not whole", from.Image, want, size)
	}
	return body, nil
}

// copyRecord takes over what the record of the other image says of its bytes,
// and remembers what was there before.
func (m *Importer) copyRecord(ctx context.Context, j *job) error {
	if m.cfg.Remote == nil || j.from.Token == "" {
		return fmt.Errorf("the gateway was stopped meanwhile and keeps no tokens; import it again: %w", errors.ErrUnsupported)
	}
	rec, err := m.cfg.Remote.record(ctx, j.from)
	if err != nil {
		return err
	}
	j.size = rec.size
	_, err = m.cfg.Catalog.UpdateImage(ctx, j.image, func(img *catalog.Image) error {
		if img.Properties[lockKey] != j.task {
			return errLost
		}
		before := img.Clone()
		j.restore = func(img *catalog.Image) {
			img.DiskFormat, img.ContainerFormat = before.DiskFormat, before.ContainerFormat
			for key := range rec.properties {
				if old, ok := before.Properties[key]; ok {
					img.Properties[key] = old
				} else {
					delete(img.Properties, key)
				}
			}
		}
		img.DiskFormat, img.ContainerFormat = rec.disk, rec.box
		for key, value := range rec.properties {
			set(img, key, value)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("image %s was deleted: %w", j.image, catalog.ErrGone)
	}
	return err
}
