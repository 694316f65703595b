package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/catalog"
)

// ErrNotShared is of a store whose objects are all ours, so that what no record
// names is freed there: nobody else's object can be waiting in it.
var ErrNotShared = errors.New("the store is not shared with others")

// adoptPiece is how much of an object is read at once.
const adoptPiece = 1 << 20

// Adopt makes an object that is in a store already, under the image's id, the
// data of the image, which must be queued and is active afterwards. All of it is
// read and held to the same rules as an upload; want is what it must be, as far
// as it says so, or the error is catalog.ErrMismatch. After an error object
// and image are as they were. From then on the object is ours: it goes with
// the image.
func (in *Ingest) Adopt(ctx context.Context, id, store string, want catalog.Facts) error {
	s := in.cfg.Stores[store]
	if s == nil {
		return fmt.Errorf("store %.64q: %w; name one of: %s", store, ErrStore, in.cfg.names())
	}
	if !in.cfg.Shared[store] {
		return fmt.Errorf("store %s: %w; set stores.%[1]s.shared = true", store, ErrNotShared)
	}
	img, err := in.cfg.Catalog.Image(ctx, id)
	if err != nil {
		return err
	}
	if img.Status != catalog.StatusQueued {
		return &catalog.StatusError{ID: id, From: img.Status, To: catalog.StatusActive}
	}
	if err := checkFormats(img); err != nil {
		return err
	}
	r, err := s.Open(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store %s has no object %s: %w", store, id, fs.ErrNotExist)
	}
	if err != nil {
		return storeError(store, err)
	}
	defer r.Close()
	facts, err := in.study(ctx, img, r, want)
	if err != nil {
		return err
	}
	loc := catalog.Location{Store: store, Key: id, Generation: uuid.NewString(), Size: facts.Size, Metadata: map[string]string{"store": store}}
	after, err := in.cfg.Catalog.UpdateImage(ctx, id, func(now *catalog.Image) error {
		if now.Status != catalog.StatusQueued || now.DiskFormat != img.DiskFormat || now.ContainerFormat != img.ContainerFormat {
			return &catalog.StatusError{ID: id, From: now.Status, To: catalog.StatusActive}
		}
		now.Status, now.Locations, now.Size, now.VirtualSize = catalog.StatusActive, []catalog.Location{loc}, &facts.Size, facts.VirtualSize
		now.Checksum, now.HashAlgo, now.HashValue = facts.Checksum, facts.HashAlgo, facts.HashValue
		return nil
	})
	if err == nil && in.cfg.Activated != nil {
		in.cfg.Activated(ctx, after)
	}
	return err
}

// study reads all of an object.
func (in *Ingest) study(ctx context.Context, img catalog.Image, r block.Reader, want catalog.Facts) (catalog.Facts, error) {
	facts := catalog.Facts{Size: r.Size(), HashAlgo: in.cfg.HashAlgo}
	if err := in.checkSize(facts.Size); err != nil {
		return facts, err
	}
	if facts.Size != want.Size {
		return facts, fmt.Errorf("%w: the object has %d bytes, and the image has %d", catalog.ErrMismatch, facts.Size, want.Size)
	}
	strong, err := newHash(in.cfg.HashAlgo)
	if err != nil {
		return facts, err
	}
	u := &upload{in: in, img: img}
	if err := u.watch(); err != nil {
		return facts, err
	}
	checksum, buf := newChecksum(), make([]byte, min(adoptPiece, max(facts.Size, 1)))
	for off := int64(0); off < facts.Size; {
		p := buf[:min(int64(len(buf)), facts.Size-off)]
		if err := r.ReadAt(ctx, p, off); err != nil {
			return facts, fmt.Errorf("read the object of image %s: %w", img.ID, err)
		}
		checksum.Write(p)
		strong.Write(p)
		if _, err := u.inspector.Write(p); err != nil {
			return facts, err
		}
		off += int64(len(p))
	}
	verdict, err := u.inspector.Finish()
	if facts.Size == 0 {
		verdict, err = format.Verdict{VirtualSize: -1}, nil
	}
	if err != nil {
		return facts, err
	}
	if verdict.VirtualSize >= 0 {
		facts.VirtualSize = &verdict.VirtualSize
	}
	facts.Checksum, facts.HashValue = hex.EncodeToString(checksum.Sum(nil)), hex.EncodeToString(strong.Sum(nil))
	if want.Checksum != "" && want.Checksum != facts.Checksum || want.HashAlgo == facts.HashAlgo && want.HashValue != "" && want.HashValue != facts.HashValue {
		return facts, fmt.Errorf("%w: the object's checksums are not those of the image", catalog.ErrMismatch)
	}
	if _, decoded := format.ByName(img.DiskFormat); decoded && img.ContainerFormat == "bare" && facts.Size > 0 {
		if err := format.Verify(ctx, img.DiskFormat, r); err != nil {
			return facts, fmt.Errorf("image %s: %w", img.ID, err)
		}
	}
	return facts, nil
}
