package qcow2

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

// ReadAt fills p with the bytes of the disk that start at off. What the file
// leaves to a backing file reads as zeros.
func (im *Image) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), im.size); err != nil {
		return err
	}
	packedAt, n := int64(-1), int64(0)
	for len(p) > 0 {
		r, err := im.find(ctx, off, int64(len(p)))
		if err != nil {
			return err
		}
		switch r.kind {
		case plain:
			err = im.f.readPlain(ctx, p[:r.n], r.host)
		case packed:
			if packedAt < 0 {
				packedAt, n = off, int64(len(p))
			}
			r.n, err = im.readPacked(ctx, p, off, r)
		default:
			clear(p[:r.n])
		}
		if err != nil {
			return err
		}
		p, off = p[r.n:], off+r.n
	}
	// Only now: a long read has used all cores itself.
	if im.ahead != nil && packedAt >= 0 {
		im.ahead.note(packedAt, n)
	}
	return nil
}

// readPlain reads from clusters that are stored as they are. The file may
// end within the last of them; the rest of that is zeros.
func (f *file) readPlain(ctx context.Context, p []byte, host int64) error {
	if rest := f.size - host; rest < int64(len(p)) {
		rest = max(rest, 0)
		clear(p[rest:])
		p = p[:rest]
	}
	if len(p) == 0 {
		return nil
	}
	if err := f.r.ReadAt(ctx, p, host); err != nil {
		return fmt.Errorf("qcow2: read %d bytes at %d: %w", len(p), host, err)
	}
	return nil
}

// How many compressed clusters are decoded in one go, and how much of the
// file is read for them at once.
const (
	maxBatch = 64
	maxFetch = 2 << 20
)

// readPacked reads what p wants of the compressed clusters that start with
// the one that r describes, and returns how much that was. Long requests are
// decoded to where they are wanted, short ones by way of the cache, since the
// rest of the cluster is wanted next.
func (im *Image) readPacked(ctx context.Context, p []byte, off int64, r run) (int64, error) {
	cs := im.f.g.ClusterSize
	if r.n < cs {
		return r.n, im.readPart(ctx, p[:r.n], off, r.word)
	}
	if int64(len(p)) < 2*cs { // small requests come again, long ones seldom do
		return cs, im.readPart(ctx, p[:cs], off, r.word)
	}
	return im.readRun(ctx, p, off, r)
}

// A want is a whole compressed cluster that somebody wants.
type want struct {
	word uint64 // its descriptor
	dst  []byte // where to
}

// readRun reads as many whole compressed clusters as follow one another.
func (im *Image) readRun(ctx context.Context, p []byte, off int64, r run) (int64, error) {
	cs := im.f.g.ClusterSize
	most := min(maxBatch, int64(len(p))/cs)
	missing := make([]want, 0, most)
	n := int64(0)
	for n < most {
		w := want{r.word, p[n*cs : (n+1)*cs]}
		if !im.f.clusters.Get(im.f.key(w.word), w.dst, 0) {
			missing = append(missing, w)
		}
		if n++; n == most {
			break
		}
		var err error
		if r, err = im.find(ctx, off+n*cs, cs); err != nil || r.kind != packed {
			break // an error is told when its cluster is asked for
		}
	}
	return n * cs, im.f.readBatch(ctx, missing)
}

func (f *file) key(word uint64) decode.Key {
	off, n := f.g.CompressedRange(word)
	return decode.Key{Owner: f.owner, Off: off, Extra: uint64(n)}
}

// readPart reads a part of a compressed cluster, or all of it.
func (im *Image) readPart(ctx context.Context, p []byte, off int64, word uint64) error {
	f := im.f
	key, within := f.key(word), int(off&(f.g.ClusterSize-1))
	if f.clusters.Get(key, p, within) {
		return nil
	}
	return f.clusters.Fill(ctx, key, int(f.g.ClusterSize), p, within, func(ctx context.Context, b []byte) error {
		if im.ahead != nil {
			im.ahead.missed(off >> f.g.ClusterBits)
		}
		f.clusters.Pool().Want(1)
		defer f.clusters.Pool().Want(-1)
		return f.decodeAt(ctx, b, word)
	})
}

func (f *file) readWhole(ctx context.Context, w want) error {
	if there, err := f.clusters.Join(ctx, f.key(w.word), w.dst, 0); there || err != nil {
		return err
	}
	return f.decodeAt(ctx, w.dst, w.word)
}

// stream says where the stream of a compressed cluster is, as far as the file
// goes.
func (f *file) stream(word uint64) (off, n int64, err error) {
	off, n = f.g.CompressedRange(word)
	if off >= f.size {
		return 0, 0, decode.Corrupt("qcow2: compressed cluster at %d of a file of %d bytes", off, f.size)
	}
	return off, min(n, f.size-off), nil
}

func (f *file) decodeAt(ctx context.Context, p []byte, word uint64) error {
	off, n, err := f.stream(word)
	if err != nil {
		return err
	}
	pool := f.clusters.Pool()
	src := pool.Get(int(n))
	defer pool.Put(src)
	if err := f.r.ReadAt(ctx, src, off); err != nil {
		return fmt.Errorf("qcow2: read compressed cluster at %d: %w", off, err)
	}
	return f.decode(p, src, off)
}

func (f *file) decode(p, src []byte, off int64) error {
	pool := f.clusters.Pool()
	decompress := pool.Inflate
	if f.h.CompressionType == Zstd {
		decompress = pool.Zstd
	}
	if err := decompress(p, src); err != nil {
		return fmt.Errorf("qcow2: compressed cluster at %d: %w", off, err)
	}
	return nil
}

// readBatch reads whole clusters on as many cores as are free. Streams that
// lie side by side, as writers leave them, are read from the file at once.
func (f *file) readBatch(ctx context.Context, wants []want) error {
	f.clusters.Pool().Want(len(wants))
	defer f.clusters.Pool().Want(-len(wants))
	for len(wants) > 0 {
		span, n, err := f.sideBySide(wants)
		if err != nil {
			return err
		}
		if n == 1 {
			err = f.readWhole(ctx, wants[0])
		} else {
			err = f.readSpan(ctx, wants[:n], span)
		}
		if err != nil {
			return err
		}
		wants = wants[n:]
	}
	return nil
}

// A span is a part of the file.
type span struct{ from, to int64 }

// sideBySide says how many of wants have their streams one after the other,
// and where.
func (f *file) sideBySide(wants []want) (s span, n int, err error) {
	first, size, err := f.stream(wants[0].word)
	if err != nil {
		return span{}, 0, err
	}
	s = span{first, first + size}
	last := first
	for n = 1; n < len(wants); n++ {
		off, size, err := f.stream(wants[n].word)
		// A descriptor counts whole sectors, so neighbours overlap; a metadata
		// cluster in between is cheaper to read than to leave out.
		if err != nil || off < last || off > s.to+f.g.ClusterSize || max(s.to, off+size)-first > maxFetch {
			break
		}
		s.to, last = max(s.to, off+size), off
	}
	return s, n, nil
}

// fetch reads a span. Its bytes go back to the pool.
func (f *file) fetch(ctx context.Context, s span) ([]byte, error) {
	src := f.clusters.Pool().Get(int(s.to - s.from))
	if err := f.r.ReadAt(ctx, src, s.from); err != nil {
		f.clusters.Pool().Put(src)
		return nil, fmt.Errorf("qcow2: read compressed clusters at %d: %w", s.from, err)
	}
	return src, nil
}

// decodeIn decodes a cluster whose stream lies in src, the bytes of s.
func (f *file) decodeIn(p []byte, word uint64, src []byte, s span) error {
	off, n, err := f.stream(word)
	if err != nil {
		return err
	}
	return f.decode(p, src[off-s.from:off-s.from+n], off)
}

func (f *file) readSpan(ctx context.Context, wants []want, s span) error {
	src, err := f.fetch(ctx, s)
	if err != nil {
		return err
	}
	pool := f.clusters.Pool()
	defer pool.Put(src)
	return pool.Each(len(wants), func(i int) error {
		w := wants[i]
		if there, err := f.clusters.Join(ctx, f.key(w.word), w.dst, 0); there || err != nil {
			return err
		}
		return f.decodeIn(w.dst, w.word, src, s)
	})
}

// Prefetch brings what a read of [off, off+n) would read from the file nearer.
func (im *Image) Prefetch(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, im.size); err != nil {
		return err
	}
	for n > 0 {
		r, err := im.find(ctx, off, n)
		if err != nil {
			return err
		}
		host, size := r.host, min(r.n, im.f.size-r.host)
		if r.kind == packed {
			if host, size, err = im.f.stream(r.word); err != nil {
				return err
			}
		}
		if size > 0 && (r.kind == packed || r.kind == plain) {
			if err := block.Prefetch(ctx, im.f.r, host, size); err != nil {
				return err
			}
		}
		off, n = off+r.n, n-r.n
	}
	return nil
}
