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
	for len(p) > 0 {
		r, err := im.find(ctx, off, int64(len(p)))
		if err != nil {
			return err
		}
		switch r.kind {
		case plain:
			err = im.f.readPlain(ctx, p[:r.n], r.host)
		case packed:
			r.n, err = im.readPacked(ctx, p, off, r)
		default:
			clear(p[:r.n])
		}
		if err != nil {
			return err
		}
		p, off = p[r.n:], off+r.n
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
//
// A read-ahead of runs that are read in order would start here: on the second
// miss in a row, fill the cache with the clusters that follow.
func (im *Image) readPacked(ctx context.Context, p []byte, off int64, r run) (int64, error) {
	cs := im.f.g.ClusterSize
	if r.n < cs {
		return r.n, im.f.readPart(ctx, p[:r.n], off&(cs-1), r.word)
	}
	if int64(len(p)) < 2*cs { // small requests come again, long ones seldom do
		return cs, im.f.readPart(ctx, p[:cs], 0, r.word)
	}
	return im.readRun(ctx, p, off, r)
}

// readRun reads as many whole compressed clusters as follow one another.
func (im *Image) readRun(ctx context.Context, p []byte, off int64, r run) (int64, error) {
	cs := im.f.g.ClusterSize
	batch := make([]uint64, 1, min(maxBatch, int64(len(p))/cs))
	batch[0] = r.word
	for len(batch) < cap(batch) {
		next, err := im.find(ctx, off+int64(len(batch))*cs, cs)
		if err != nil || next.kind != packed {
			break // an error is told when its cluster is asked for
		}
		batch = append(batch, next.word)
	}
	n := int64(len(batch)) * cs
	return n, im.f.readBatch(ctx, p[:n], batch)
}

func (f *file) key(word uint64) decode.Key {
	off, n := f.g.CompressedRange(word)
	return decode.Key{Owner: f.owner, Off: off, Extra: uint64(n)}
}

func (f *file) readPart(ctx context.Context, p []byte, within int64, word uint64) error {
	if f.clusters.Get(f.key(word), p, int(within)) {
		return nil
	}
	return f.clusters.Fill(ctx, f.key(word), int(f.g.ClusterSize), p, int(within), func(ctx context.Context, b []byte) error {
		return f.decodeAt(ctx, b, word)
	})
}

func (f *file) readWhole(ctx context.Context, p []byte, word uint64) error {
	if f.clusters.Get(f.key(word), p, 0) {
		return nil
	}
	return f.decodeAt(ctx, p, word)
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

// readBatch reads whole clusters, each with its descriptor, on as many cores
// as are free. Streams that lie side by side, as writers leave them, are read
// from the file at once.
func (f *file) readBatch(ctx context.Context, p []byte, words []uint64) error {
	cs := f.g.ClusterSize
	for len(words) > 0 {
		first, end, n, err := f.sideBySide(words)
		if err != nil {
			return err
		}
		if n == 1 {
			err = f.readWhole(ctx, p[:cs], words[0])
		} else {
			err = f.readSpan(ctx, p[:int64(n)*cs], words[:n], first, end)
		}
		if err != nil {
			return err
		}
		p, words = p[int64(n)*cs:], words[n:]
	}
	return nil
}

// sideBySide says how many of words have their streams one after the other,
// and from where to where.
func (f *file) sideBySide(words []uint64) (first, end int64, n int, err error) {
	first, size, err := f.stream(words[0])
	if err != nil {
		return 0, 0, 0, err
	}
	end = first + size
	last := first
	for n = 1; n < len(words); n++ {
		off, size, err := f.stream(words[n])
		// A descriptor counts whole sectors, so neighbours overlap; a metadata
		// cluster in between is cheaper to read than to leave out.
		if err != nil || off < last || off > end+f.g.ClusterSize || max(end, off+size)-first > maxFetch {
			break
		}
		end, last = max(end, off+size), off
	}
	return first, end, n, nil
}

func (f *file) readSpan(ctx context.Context, p []byte, words []uint64, first, end int64) error {
	pool := f.clusters.Pool()
	src := pool.Get(int(end - first))
	defer pool.Put(src)
	if err := f.r.ReadAt(ctx, src, first); err != nil {
		return fmt.Errorf("qcow2: read compressed clusters at %d: %w", first, err)
	}
	cs := f.g.ClusterSize
	return pool.Each(len(words), func(i int) error {
		dst := p[int64(i)*cs : int64(i+1)*cs]
		if f.clusters.Get(f.key(words[i]), dst, 0) {
			return nil
		}
		off, n, err := f.stream(words[i])
		if err != nil {
			return err
		}
		return f.decode(dst, src[off-first:off-first+n], off)
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
