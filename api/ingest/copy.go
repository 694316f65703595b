package ingest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// Fill is Put for one of several stores that an image, which is importing, is
// to have its bytes in, or that an active one is to have them in as well. Its
// status stays what it is. The first one to end says what the image's size
// and hashes are; if another one brings other bytes it is
// catalog.ErrMismatch. To fill a store that has the image is fs.ErrExist.
func (in *Ingest) Fill(ctx context.Context, id string, body io.Reader, size int64, store string) error {
	return in.bring(ctx, id, body, size, store, true)
}

// CopyTo brings a copy of an image's bytes from a store that has them to
// another one. moved is told of the bytes that have come by; it may be nil.
func (in *Ingest) CopyTo(ctx context.Context, id, store string, moved func(n int64)) error {
	img, err := in.cfg.Catalog.Image(ctx, id)
	if err != nil {
		return err
	}
	if img.Size == nil || len(img.Locations) == 0 {
		return fmt.Errorf("image %s has no data to copy: %w", id, fs.ErrNotExist)
	}
	r, err := in.Open(ctx, img)
	if err != nil {
		return err
	}
	defer r.Close()
	body := io.Reader(io.NewSectionReader(block.ReaderAt(ctx, r), 0, r.Size()))
	if moved != nil {
		body = &counted{body, moved}
	}
	return in.Fill(ctx, id, body, r.Size(), store)
}

// A counted Reader tells how much of it was read.
type counted struct {
	r     io.Reader
	moved func(n int64)
}

// Read reads.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.moved(int64(n))
	return n, err
}

// Activate makes an image active that is importing and has its bytes. f may
// change more of it.
func (in *Ingest) Activate(ctx context.Context, id string, f func(*catalog.Image)) error {
	for try := 1; ; try++ {
		img, err := in.cfg.Catalog.UpdateImage(ctx, id, func(img *catalog.Image) error {
			img.Status = catalog.StatusActive
			f(img)
			return nil
		})
		if err == nil {
			if in.cfg.Activated != nil {
				in.cfg.Activated(ctx, img)
			}
			return nil
		}
		if try == finishTries || isGone(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(in.cfg.RetryPause):
		}
	}
}
