package catalog

import (
	"context"
	"fmt"
)

// Trace returns what PutTrace kept with an image, or fs.ErrNotExist.
func (c *Catalog) Trace(ctx context.Context, image string) ([]byte, error) {
	p, err := c.kv.Get(ctx, preTrace+image)
	var r dataRecord
	if err == nil {
		r, err = decodeData(p)
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: trace of image %s: %w", image, err)
	}
	return r.Data, nil
}

// PutTrace keeps data, at most MaxData bytes, with an image: what its first
// readers read. It replaces what was kept before, and goes with the image.
func (c *Catalog) PutTrace(ctx context.Context, image string, data []byte) error {
	key := preTrace + image
	op, err := putData(key, dataRecord{recordVersion, data, c.now()}, data)
	if err == nil {
		_, err = change(ctx, c, imageKind(), image, func(img Image) (Txn, error) {
			if !img.Status.HasData() {
				return Txn{}, fmt.Errorf("image %s is %s: %w", image, img.Status, ErrNoData)
			}
			return Txn{Then: []Op{op}}, nil
		})
	}
	if err != nil {
		return fmt.Errorf("catalog: keep the trace of image %s: %w", image, err)
	}
	return nil
}

// DeleteTrace forgets what PutTrace kept. Nothing kept is fs.ErrNotExist.
func (c *Catalog) DeleteTrace(ctx context.Context, image string) error {
	p, err := c.kv.Get(ctx, preTrace+image)
	if err == nil {
		_, err = c.commit(ctx, Txn{If: []Cond{{Key: p.Key, Revision: p.Revision}}, Then: []Op{{Key: p.Key, Delete: true}}})
	}
	if err != nil {
		return fmt.Errorf("catalog: forget the trace of image %s: %w", image, err)
	}
	return nil
}
