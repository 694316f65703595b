package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// A Config says how much memory images may use. The zero Config works.
type Config struct {
	// Clusters keeps decoded clusters, for as many images as share it. nil:
	// 32 MiB for each image.
	Clusters *decode.Cache

	// Name tells Clusters which file this is. Files of one name have the same
	// bytes. "": none has.
	Name string

	// TableBytes bounds the L2 tables kept of one file. 0: 8 MiB, which maps
	// 64 GiB of a file with clusters of 64 KiB.
	TableBytes int64

	// Ahead is how many bytes of the disk are inflated ahead of each who reads
	// compressed clusters in order, at most, and no more than an eighth of what
	// Clusters keeps. 0: none. An Image that has it must be closed.
	Ahead int64
}

const (
	defaultClusters = 32 << 20
	defaultTables   = 8 << 20
	pageBytes       = 64 << 10 // of the L1 table, read at once
)

// file is what the active disk and the snapshots of one file share.
type file struct {
	r        block.Reader
	size     int64
	h        *Header
	g        Geometry
	tables   tables
	clusters *decode.Cache
	owner    uint64
	l1pages  decode.Flight[int64, *[]uint64]
}

// An Image is the disk in a qcow2 file, or that of one of its snapshots. Any
// number of goroutines may use it at once. It never closes the file.
type Image struct {
	f       *file
	size    int64
	l1      int64 // where the L1 table begins
	entries int64 // how many of its entries the disk needs
	pages   []atomic.Pointer[[]uint64]
	ahead   *ahead // nil: none
}

// Probe reports whether a file that begins with head is qcow2.
func Probe(head []byte) bool {
	return len(head) >= 8 && be32(head) == Magic && be32(head[4:]) >= 2
}

// Open opens the disk in the file r with the memory of a zero Config. Nothing
// but the header is read. A file that lies is ErrCorrupt, at once or when the
// lie is touched; one that asks for what we do not serve is
// errors.ErrUnsupported.
func Open(ctx context.Context, r block.Reader) (*Image, error) {
	return Config{}.Open(ctx, r)
}

// Open opens the disk in the file r.
func (c Config) Open(ctx context.Context, r block.Reader) (*Image, error) {
	h, err := ReadHeader(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := h.Check(); err != nil {
		return nil, wrap("header", err)
	}
	f := &file{r: r, size: r.Size(), h: h, g: h.Geometry(), clusters: c.Clusters}
	if f.clusters == nil {
		f.clusters = decode.NewCache(defaultClusters)
	}
	if f.owner = f.clusters.Owner(); c.Name != "" {
		f.owner = decode.Named(c.Name)
	}
	if c.TableBytes <= 0 {
		c.TableBytes = defaultTables
	}
	f.tables.init(f.g, int64(h.Size), c.TableBytes)
	im, err := f.image(int64(h.Size), h.L1Offset, int64(h.L1Entries))
	if err == nil && c.Ahead > 0 {
		im.ahead = newAhead(im, c.Ahead)
	}
	return im, err
}

// Close ends what the Image does unasked, and waits for it. It does not close
// the file. It never fails.
func (im *Image) Close() error {
	if im.ahead != nil {
		im.ahead.close()
	}
	return nil
}

// image is the disk of size bytes behind the L1 table at l1, which has so
// many entries.
func (f *file) image(size int64, l1 uint64, entries int64) (*Image, error) {
	need := f.g.L1Need(size)
	if need > entries {
		return nil, decode.Corrupt("qcow2: L1 table of %d entries for a disk of %d bytes", entries, size)
	}
	if l1%uint64(f.g.ClusterSize) != 0 || need > 0 && (l1 == 0 || !f.inside(l1, need*8)) {
		return nil, decode.Corrupt("qcow2: L1 table at %d: not a place in a file of %d bytes", l1, f.size)
	}
	return &Image{
		f: f, l1: int64(l1), entries: need,
		size:  size &^ 511, // as QEMU does with a size that is no whole sector
		pages: make([]atomic.Pointer[[]uint64], (need*8+pageBytes-1)/pageBytes),
	}, nil
}

// inside reports whether n bytes at off lie in the file.
func (f *file) inside(off uint64, n int64) bool {
	return off <= uint64(f.size) && n <= f.size-int64(off)
}

// Size returns the size of the disk: what the header says, rounded down to
// whole sectors of 512 bytes.
func (im *Image) Size() int64 { return im.size }

// Backing returns the name that the file claims for a backing file, or "".
func (im *Image) Backing() string { return im.f.h.Backing }

// Header returns the decoded header. It must not be changed.
func (im *Image) Header() *Header { return im.f.h }

// Dirty reports whether the file's refcounts may be stale: it was not closed
// properly. Its disk is good all the same.
func (im *Image) Dirty() bool { return im.f.h.Incompatible&Dirty != 0 }

// Corrupt reports whether the file is marked as corrupt by who wrote it last.
func (im *Image) Corrupt() bool { return im.f.h.Incompatible&CorruptBit != 0 }

// l1entry returns entry i of the L1 table.
func (im *Image) l1entry(ctx context.Context, i int64) (uint64, error) {
	const per = pageBytes / 8
	page := im.pages[i/per].Load()
	if page == nil {
		var err error
		if page, err = im.loadL1(ctx, i/per); err != nil {
			return 0, err
		}
	}
	return (*page)[i%per], nil
}

func (im *Image) loadL1(ctx context.Context, page int64) (*[]uint64, error) {
	off := im.l1 + page*pageBytes
	return im.f.l1pages.Do(ctx, off, func(ctx context.Context) (*[]uint64, error) {
		if p := im.pages[page].Load(); p != nil {
			return p, nil
		}
		n := min(pageBytes, im.entries*8-page*pageBytes)
		e, err := im.f.readEntries(ctx, off, n)
		if err != nil {
			return nil, fmt.Errorf("qcow2: read L1 table at %d: %w", off, err)
		}
		im.pages[page].Store(&e)
		return &e, nil
	})
}

// readEntries reads n bytes of big-endian words.
func (f *file) readEntries(ctx context.Context, off, n int64) ([]uint64, error) {
	pool := f.clusters.Pool()
	b := pool.Get(int(n))
	defer pool.Put(b)
	if err := f.r.ReadAt(ctx, b, off); err != nil {
		return nil, err
	}
	e := make([]uint64, n/8)
	for i := range e {
		e[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return e, nil
}
