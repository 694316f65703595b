package exports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/fusefs"
)

// listPage is how many images are asked for at once.
const listPage = 512

// visible is the query for all images that doors without an identity show.
func (e *Exports) visible() catalog.Query {
	q := catalog.Query{
		Viewer: catalog.Viewer{Admin: true}, Visibility: catalog.VisibilityAll, Hidden: catalog.HiddenAny,
		Status: []catalog.Status{catalog.StatusActive},
	}
	if e.cfg.Project != "" {
		q.Viewer = catalog.Viewer{Project: e.cfg.Project}
	}
	return q
}

// images yields the active images whose id is greater than after, in order
// of id.
func (e *Exports) images(ctx context.Context, after string) iter.Seq2[catalog.Image, error] {
	return func(yield func(catalog.Image, error) bool) {
		for {
			list, err := e.nextImages(ctx, after)
			if err != nil {
				yield(catalog.Image{}, err)
				return
			}
			for _, img := range list {
				if !yield(img, nil) {
					return
				}
				after = img.ID
			}
			if len(list) == 0 || ctx.Err() != nil {
				return
			}
		}
	}
}

// nextImages returns the next page after an id.
func (e *Exports) nextImages(ctx context.Context, after string) ([]catalog.Image, error) {
	q := e.visible()
	q.Sort, q.OneDir = []catalog.SortKey{{Column: catalog.ColumnID}}, true
	q.Marker, q.Limit = after, listPage
	list, err := e.cfg.Catalog.Images(ctx, q)
	if !errors.Is(err, catalog.ErrMarker) {
		return list, err
	}
	// The image that was seen last is gone. This is rare, and then the ids
	// are gone through from the start.
	q.Marker = ""
	for {
		list, err := e.cfg.Catalog.Images(ctx, q)
		if err != nil || len(list) == 0 {
			return nil, err
		}
		for i, img := range list {
			if img.ID > after {
				return list[i:], nil
			}
		}
		q.Marker = list[len(list)-1].ID
	}
}

// A Library is the images of an Exports, as the file tree wants them.
type Library struct{ e *Exports }

// Library returns the images for the file tree.
func (e *Exports) Library() *Library { return &Library{e} }

// Image returns an image that the tree shows.
func (l *Library) Image(ctx context.Context, id string) (fusefs.Image, error) {
	img, err := l.e.shown(ctx, id)
	if err != nil {
		return fusefs.Image{}, err
	}
	return file(img), nil
}

// shown returns the record of an image that the file tree shows.
func (e *Exports) shown(ctx context.Context, id string) (catalog.Image, error) {
	img, err := e.cfg.Catalog.Image(ctx, id)
	if err != nil {
		return img, err
	}
	if img.Status != catalog.StatusActive || !e.cfg.Catalog.CanSee(e.visible().Viewer, img) {
		return img, fmt.Errorf("image %s is not shown: %w", id, fs.ErrNotExist)
	}
	return img, nil
}

// Named returns the images of a name.
func (l *Library) Named(ctx context.Context, name string) ([]fusefs.Image, error) {
	q := l.e.visible()
	q.Name = []string{name}
	q.Sort, q.OneDir = []catalog.SortKey{{Column: catalog.ColumnID}}, true
	list, err := l.e.cfg.Catalog.Images(ctx, q)
	out := make([]fusefs.Image, 0, len(list))
	for _, img := range list {
		out = append(out, file(img))
	}
	return out, err
}

// Images yields the images after an id.
func (l *Library) Images(ctx context.Context, after string) iter.Seq2[fusefs.Image, error] {
	return func(yield func(fusefs.Image, error) bool) {
		for img, err := range l.e.images(ctx, after) {
			if !yield(file(img), err) || err != nil {
				return
			}
		}
	}
}

// file is what the tree needs to know of an image.
func file(img catalog.Image) fusefs.Image {
	out := fusefs.Image{
		ID: img.ID, DiskSize: -1, NativeSize: -1, Created: img.CreatedAt, Updated: img.UpdatedAt,
		Status: string(img.Status), Visibility: string(img.Visibility), Owner: img.Owner,
		DiskFormat: img.DiskFormat, ContainerFormat: img.ContainerFormat,
		Checksum: img.Checksum, HashAlgo: img.HashAlgo, HashValue: img.HashValue,
	}
	if img.Name != nil {
		out.Name = *img.Name
	}
	if img.Size != nil {
		out.NativeSize = *img.Size
	}
	// The size in a header was a claim; only that of bytes that need no
	// decoding is known without opening them.
	if name, err := decoder(img); err == nil && name == "" {
		out.DiskSize = out.NativeSize
	}
	return out
}

// Open opens one file of an image.
func (l *Library) Open(ctx context.Context, id string, file fusefs.File) (block.ReadCloser, error) {
	img, err := l.e.shown(ctx, id)
	if err != nil {
		return nil, err
	}
	switch file {
	case fusefs.Disk:
		return l.e.OpenDisk(ctx, img)
	case fusefs.Native:
		return l.e.cfg.Ingest.Open(ctx, img)
	}
	text, err := l.e.record(ctx, img)
	if err != nil {
		return nil, err
	}
	return &memory{text}, nil
}

// record returns image.json.
func (e *Exports) record(ctx context.Context, img catalog.Image) ([]byte, error) {
	if e.cfg.Record != nil {
		return e.cfg.Record(ctx, img)
	}
	img.Locations = nil // where bytes are is nobody's business
	text, err := json.MarshalIndent(img, "", "  ")
	return append(text, '\n'), err
}

// memory is a Reader of bytes in memory.
type memory struct{ b []byte }

// Size returns the number of bytes.
func (m *memory) Size() int64 { return int64(len(m.b)) }

// ReadAt reads them.
func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), m.Size()); err != nil {
		return err
	}
	copy(p, m.b[off:])
	return nil
}

// Close does nothing.
func (m *memory) Close() error { return nil }
