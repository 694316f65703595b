package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/catalog"
)

// specs turns a record into what the builder of disks needs: one Spec for
// each place where the bytes are, in order of preference. This is the whole
// contact between the catalog and the bytes.
func (e *Exports) specs(img catalog.Image) ([]disk.Spec, error) {
	name, err := decoder(img)
	if err != nil {
		return nil, err
	}
	var specs, last []disk.Spec
	for _, l := range img.Locations {
		if e.cfg.Stores[l.Store] == nil {
			continue
		}
		s := e.spec(l, name)
		if s.Far != nil && e.cfg.Traces {
			s.Far.Trace = img.ID
		}
		if e.cfg.Fails != nil && e.cfg.Fails(l.Store) {
			last = append(last, s)
			continue
		}
		specs = append(specs, s)
	}
	specs = append(specs, last...)
	if len(specs) == 0 {
		return nil, fmt.Errorf("no store of this gateway has the bytes of image %s; its configuration may lack one", img.ID)
	}
	return specs, nil
}

// spec says how to read one copy of an image in a format, "" being its bytes
// as stored. Copies in far stores are read through the cache.
func (e *Exports) spec(l catalog.Location, format string) disk.Spec {
	s := disk.Spec{Key: l.Store + "/" + l.Key + "#" + l.Generation, Store: e.cfg.Stores[l.Store], Object: l.Key, Format: format}
	if e.cfg.Far[l.Store] {
		s.Far = &disk.Far{Generation: l.Generation, Size: l.Size, Store: l.Store}
	}
	return s
}

// opened tells that an image was opened.
func (e *Exports) opened(img catalog.Image) {
	if e.cfg.Used != nil {
		e.cfg.Used(img)
	}
}

// OpenNative opens one copy of the bytes of an image as they are stored. What
// is read of them says nothing of how a machine boots.
func (e *Exports) OpenNative(ctx context.Context, img catalog.Image, l catalog.Location) (block.ReadCloser, error) {
	if e.cfg.Stores[l.Store] == nil {
		return nil, fmt.Errorf("store %s is not in this gateway's configuration", l.Store)
	}
	s := e.spec(l, "")
	s.Key += "#native"
	r, err := e.cfg.Opener.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	e.opened(img)
	return r, nil
}

// Pin brings the tables of an image that has just become active near, so that
// attaching it asks its store for little. That it fails only costs time later.
func (e *Exports) Pin(ctx context.Context, img catalog.Image) {
	specs, err := e.specs(img)
	if err != nil {
		return // it cannot be decoded, so there are no tables
	}
	if err := e.cfg.Opener.Pin(ctx, specs[0]); err != nil {
		e.log.WarnContext(ctx, "the tables of an image could not be brought into the cache", "image", img.ID, "err", err)
	}
}

// decoder returns the format that makes disk bytes of native bytes, "" if
// they are the same.
func decoder(img catalog.Image) (string, error) {
	switch img.ContainerFormat {
	case "ova", "docker", "compressed":
		return "", fmt.Errorf("image %s: container_format %s cannot be unpacked yet; %s/native has the bytes as uploaded: %w",
			img.ID, img.ContainerFormat, img.ID, errors.ErrUnsupported)
	}
	switch img.DiskFormat {
	case "", "raw", "iso", "ami", "ari", "aki":
		return "", nil
	}
	if _, ok := format.ByName(img.DiskFormat); !ok {
		return "", fmt.Errorf("image %s: disk_format %s cannot be decoded yet; %s/native has the bytes as uploaded: %w",
			img.ID, img.DiskFormat, img.ID, errors.ErrUnsupported)
	}
	return img.DiskFormat, nil
}

// OpenDisk opens the disk bytes of an image, from the first place that has
// them.
func (e *Exports) OpenDisk(ctx context.Context, img catalog.Image) (block.ReadCloser, error) {
	specs, err := e.specs(img)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, spec := range specs {
		v, err := e.cfg.Opener.Open(ctx, spec)
		if err == nil {
			e.opened(img)
			return v, nil
		}
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := e.active(ctx, img.ID); errors.Is(gone, fs.ErrNotExist) {
			return nil, gone // deleted since the record was read
		}
		// The record promises bytes: that a store lacks them must not look
		// as if there were no such image.
		return nil, fmt.Errorf("open the disk of image %s: its bytes are missing: %v", img.ID, err)
	}
	return nil, fmt.Errorf("open the disk of image %s: %w", img.ID, err)
}

// active returns the record of an image whose bytes may be read.
func (e *Exports) active(ctx context.Context, id string) (catalog.Image, error) {
	img, err := e.cfg.Catalog.Image(ctx, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return img, fmt.Errorf("there is no image %s: %w", id, fs.ErrNotExist)
	case err != nil:
		return img, err
	case img.Status == catalog.StatusDeactivated:
		return img, fmt.Errorf("image %s is deactivated; reactivate it to read it: %w", id, fs.ErrPermission)
	case img.Status != catalog.StatusActive:
		return img, fmt.Errorf("image %s is %s and has no data yet: %w", id, img.Status, fs.ErrNotExist)
	}
	return img, nil
}

// imageName is how people call an image.
func imageName(img catalog.Image) string {
	if img.Name != nil && *img.Name != "" {
		return *img.Name
	}
	return img.ID
}
