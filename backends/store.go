// Package backends defines Store, the place where image bytes live.
//
// A backend is anything that bytes come from: a store, or a layer that stands
// on one. The folders beneath hold the stores (mem, file), the layers
// (overlay, format, disk) and the shape that they share (block). None of them
// has heard of the catalog; the daemon turns a catalog record into a
// disk.Spec, and that is the whole contact.
package backends

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Store keeps objects under keys. An object appears whole and never
// changes. Any number of goroutines may use a Store at once.
//
// A key is one or more elements of letters, digits, '.', '_' and '-' joined
// by '/', no element being "." or "..", 255 bytes in all; any other key is
// fs.ErrInvalid.
type Store interface {
	// Open opens an object. If there is none the error is fs.ErrNotExist.
	Open(ctx context.Context, key string) (block.ReadCloser, error)

	// Create starts an object of size bytes, or -1 if nobody knows. Until
	// Commit nobody can open it. A taken key is fs.ErrExist, now or at
	// Commit. A full store is syscall.ENOSPC, now or while writing. ctx
	// covers the writes as well.
	Create(ctx context.Context, key string, size int64) (Writer, error)

	// Delete removes an object. To remove nothing is not an error. Readers
	// that are open go on reading or, of a far store that cannot keep what is
	// deleted, get fs.ErrNotExist or syscall.ESTALE, and never other bytes.
	Delete(ctx context.Context, key string) error
}

// A Writer takes the bytes of one new object, in order. It ends with Commit
// or with Abort. After Commit, Abort does nothing, so "defer w.Abort()" is
// always right.
type Writer interface {
	io.Writer

	// Commit makes the object durable and visible. A size announced at
	// Create that is not the number of bytes written is io.ErrUnexpectedEOF,
	// and nothing becomes visible.
	Commit(ctx context.Context) error

	// Abort throws away what was written.
	Abort()
}

// A Lister is a Store that can list its objects. Only the sweeper needs it.
type Lister interface {
	// List yields every object, and with it every unfinished one that a
	// crash left behind, in any order.
	List(ctx context.Context) iter.Seq2[Entry, error]
}

// An Entry is one object of a listing.
type Entry struct {
	Key      string    // if Partial, a name that only Delete knows, and that begins with the key
	Size     int64     // bytes
	Modified time.Time // when it was written
	Partial  bool      // never committed: nobody can open it, Delete frees it
}

// Usage says how full a Store is, in bytes. Zero in both means unknown.
type Usage struct {
	Total, Free int64
}

// A Meter is a Store that can tell how full it is.
type Meter interface {
	// Usage returns the store's size and what is left of it.
	Usage(ctx context.Context) (Usage, error)
}

// List yields the objects of s. A Store that is no Lister has none to show.
func List(ctx context.Context, s Store) iter.Seq2[Entry, error] {
	if l, ok := s.(Lister); ok {
		return l.List(ctx)
	}
	return func(func(Entry, error) bool) {}
}

// UsageOf tells how full s is. A Store that is no Meter is unknown.
func UsageOf(ctx context.Context, s Store) (Usage, error) {
	if m, ok := s.(Meter); ok {
		return m.Usage(ctx)
	}
	return Usage{}, nil
}
