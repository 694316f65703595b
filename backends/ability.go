package backends

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Capability is something that a store's server may or may not do, and that
// was tried when the store was opened. Nothing relies on one that is not OK.
type Capability struct {
	Name   string // such as "if-none-match on put"
	OK     bool
	Detail string // what the server did, for people; "" if there is nothing to say
}

// A Prober is a Store that tried what its server can do when it was opened.
type Prober interface {
	// Capabilities returns what was found out, in a fixed order.
	Capabilities() []Capability
}

// Capabilities tells what the server behind s was found to do. A Store that is
// no Prober has nothing to tell.
func Capabilities(s Store) []Capability {
	if p, ok := s.(Prober); ok {
		return p.Capabilities()
	}
	return nil
}

// A Locator is a Store that can say where an object is, in the words of
// Glance's own drivers: "rbd://FSID/POOL/IMAGE/SNAP", "s3://...", "swift://...".
type Locator interface {
	// URI returns the location of an object, without any secret.
	URI(key string) string
}

// URI says where an object is, or "" if the Store has no words for it.
func URI(s Store, key string) string {
	if l, ok := s.(Locator); ok {
		return l.URI(key)
	}
	return ""
}

// A Keeper is a Store in which others may stand on an object, such as clones,
// that nobody but the store knows of. While they do it cannot be deleted.
type Keeper interface {
	// Free returns syscall.EBUSY, wrapped, while a Delete of key would, too. An
	// object that is not there is free.
	Free(ctx context.Context, key string) error
}

// Free tells whether an object could be deleted now, as far as the Store knows:
// it is syscall.EBUSY, wrapped, while others need it.
func Free(ctx context.Context, s Store, key string) error {
	if k, ok := s.(Keeper); ok {
		return k.Free(ctx, key)
	}
	return nil
}

// A Copier is a Store that can take an object of another one without the bytes
// passing through here.
type Copier interface {
	// CopyFrom makes an object from one of store from, which may be s itself.
	// Where the two cannot reach each other it is errors.ErrUnsupported, and
	// nothing has happened. Otherwise it keeps the promises of Create and
	// Commit.
	CopyFrom(ctx context.Context, key string, from Store, fromKey string) error
}

// CopyInside makes the object key of s from an object of another store, or of
// s itself, if the bytes need not pass through here. Otherwise it is
// errors.ErrUnsupported.
func CopyInside(ctx context.Context, s Store, key string, from Store, fromKey string) error {
	if c, ok := s.(Copier); ok {
		return c.CopyFrom(ctx, key, from, fromKey)
	}
	return fmt.Errorf("copy %s inside the stores: %w", fromKey, errors.ErrUnsupported)
}

// Copy makes the object key of s from an object of another store, or of s
// itself: inside the stores where they can, through here where not. Progress,
// which may be nil, hears how many bytes are done.
func Copy(ctx context.Context, s Store, key string, from Store, fromKey string, progress func(done int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	if err := CopyInside(ctx, s, key, from, fromKey); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	r, err := from.Open(ctx, fromKey)
	if err != nil {
		return fmt.Errorf("copy %s: %w", fromKey, err)
	}
	defer r.Close()
	w, err := s.Create(ctx, key, r.Size())
	if err != nil {
		return fmt.Errorf("copy %s: %w", fromKey, err)
	}
	defer w.Abort()
	if err := pour(ctx, w, r, progress); err != nil {
		return fmt.Errorf("copy %s: %w", fromKey, err)
	}
	return w.Commit(ctx)
}

// copyUnit is how much of an object is in memory while it is copied.
const copyUnit = 4 << 20

// pour writes all of r to w. Holes are not read.
func pour(ctx context.Context, w io.Writer, r block.Reader, progress func(int64)) error {
	buf := make([]byte, min(copyUnit, max(r.Size(), 1)))
	for off := int64(0); off < r.Size(); {
		n := min(int64(len(buf)), r.Size()-off)
		e, err := block.ExtentAt(ctx, r, off, n)
		if err != nil {
			return err
		}
		n = min(n, e.Len)
		if e.Kind == block.Data {
			err = r.ReadAt(ctx, buf[:n], off)
		} else {
			clear(buf[:n])
		}
		if err == nil {
			_, err = w.Write(buf[:n])
		}
		if err != nil {
			return err
		}
		off += n
		progress(off)
	}
	return nil
}
