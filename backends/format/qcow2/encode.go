package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// EncodeOptions say how a file is written. The zero EncodeOptions work.
type EncodeOptions struct {
	// ClusterBits is log2 of the cluster size, 9 to 21. 0: 16.
	ClusterBits int

	// Compression is "zlib" or "zstd", for EncodeCompressed only. "": zlib.
	Compression string

	// Workers is how many cores compress. 0: GOMAXPROCS.
	Workers int

	// Progress, if not nil, is told now and then, from one goroutine, how
	// many bytes of how many are done.
	Progress func(done, total int64)
}

func (o EncodeOptions) bits() (uint, error) {
	if o.ClusterBits == 0 {
		return 16, nil
	}
	if o.ClusterBits < MinClusterBits || o.ClusterBits > MaxClusterBits {
		return 0, fmt.Errorf("qcow2: encode with clusters of 2^%d bytes: %w: 9 to 21", o.ClusterBits, fs.ErrInvalid)
	}
	return uint(o.ClusterBits), nil
}

const (
	refOrder   = 4       // of the files that we write: refcounts of 16 bits
	encodeBuf  = 1 << 20 // of data copied at once
	maxDiskL1s = MaxL1Bytes / 8
)

// A plan is where everything goes in a file that is written in one go:
// header, refcount table, refcount blocks, L1 table, L2 tables, data. Each
// part is some whole clusters, and the data is in the order of the disk.
type plan struct {
	g      Geometry
	size   int64   // of the disk, whole sectors
	used   *bitmap // clusters of the disk that have data
	tables *bitmap // L2 tables that are needed
	// Numbers of clusters.
	disk, data, l2, l1, refBlocks, refTable int64
}

// newPlan looks at the extents of src, which it reads once.
func newPlan(ctx context.Context, src block.Reader, bits uint) (*plan, error) {
	h := Header{ClusterBits: uint32(bits)}
	p := &plan{g: h.Geometry(), size: (src.Size() + 511) &^ 511}
	if p.g.L1Need(p.size) > maxDiskL1s {
		return nil, fmt.Errorf("qcow2: encode %d bytes with clusters of %d: %w: larger clusters are needed", p.size, p.g.ClusterSize, fs.ErrInvalid)
	}
	p.disk = (p.size + p.g.ClusterSize - 1) >> bits
	p.used, p.tables = newBitmap(p.disk), newBitmap(p.g.L1Need(p.size))
	for e, err := range block.Extents(ctx, src, 0, src.Size()) {
		if err != nil {
			return nil, fmt.Errorf("qcow2: encode: extents: %w", err)
		}
		if e.Kind != block.Data {
			continue
		}
		for c := e.Off >> bits; c <= (e.End()-1)>>bits; c++ {
			if !p.used.set(c) {
				p.data++
			}
			if !p.tables.set(c >> p.g.L2Bits) {
				p.l2++
			}
		}
	}
	p.l1 = p.clustersOf(p.g.L1Need(p.size) * 8)
	p.refTable, p.refBlocks = refcountClusters(p.g, 1+p.l1+p.l2+p.data)
	return p, nil
}

func (p *plan) clustersOf(n int64) int64 { return (n + p.g.ClusterSize - 1) >> p.g.ClusterBits }

// refcountClusters returns how many clusters of table and of blocks count n
// others and themselves.
func refcountClusters(g Geometry, n int64) (table, blocks int64) {
	for {
		all := n + table + blocks
		b := (all + g.RefcountsPerBlock(refOrder) - 1) / g.RefcountsPerBlock(refOrder)
		t := (b*8 + g.ClusterSize - 1) >> g.ClusterBits
		if b == blocks && t == table {
			return table, blocks
		}
		table, blocks = t, b
	}
}

func (p *plan) total() int64 { return 1 + p.refTable + p.refBlocks + p.l1 + p.l2 + p.data }

// EncodedSize returns how many bytes Encode will write.
func EncodedSize(ctx context.Context, src block.Reader, opts EncodeOptions) (int64, error) {
	bits, err := opts.bits()
	if err != nil {
		return 0, err
	}
	p, err := newPlan(ctx, src, bits)
	if err != nil {
		return 0, err
	}
	return p.total() << bits, nil
}

// Encode writes a standalone qcow2 file of version 3 that has the bytes of
// src to w, from the first byte to the last, without scratch space: what is
// Data in src takes space, the rest reads as zeros. src must not change
// meanwhile. A size that is no whole sector is rounded up with zeros.
func Encode(ctx context.Context, w io.Writer, src block.Reader, opts EncodeOptions) error {
	bits, err := opts.bits()
	if err != nil {
		return err
	}
	p, err := newPlan(ctx, src, bits)
	if err != nil {
		return err
	}
	if err := p.writeMetadata(w); err != nil {
		return fmt.Errorf("qcow2: encode: %w", err)
	}
	if err := p.writeData(ctx, w, src, opts.Progress); err != nil {
		return fmt.Errorf("qcow2: encode: %w", err)
	}
	return nil
}

func (p *plan) header() *Header {
	cb := p.g.ClusterBits
	h := &Header{
		Version: 3, ClusterBits: uint32(cb), Size: uint64(p.size), RefcountOrder: refOrder,
		L1Entries: uint32(p.g.L1Need(p.size)), L1Offset: uint64(1+p.refTable+p.refBlocks) << cb,
		RefTableOffset: 1 << cb, RefTableClusters: uint32(p.refTable),
	}
	if h.L1Entries == 0 {
		h.L1Offset = 0 // a disk of size 0
	}
	return h
}

// A wordWriter writes words and pads to whole clusters.
type wordWriter struct {
	w    io.Writer
	buf  []byte
	size int64 // of a cluster
	n    int64 // written or in buf
	err  error
}

func (w *wordWriter) bytes(b []byte) {
	w.buf = append(w.buf, b...)
	w.n += int64(len(b))
	if len(w.buf) >= encodeBuf {
		w.flush()
	}
}

func (w *wordWriter) word(v uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	w.bytes(b[:])
}

func (w *wordWriter) pad() {
	w.bytes(make([]byte, -w.n&(w.size-1)))
}

func (w *wordWriter) flush() {
	if w.err == nil {
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

func (p *plan) writeMetadata(out io.Writer) error {
	head, err := p.header().Encode()
	if err != nil {
		return err
	}
	w := &wordWriter{w: out, size: p.g.ClusterSize}
	w.bytes(head)
	w.pad()
	at := 1 + p.refTable
	for i := range p.refBlocks {
		w.word(uint64(at+i) << p.g.ClusterBits)
	}
	w.pad()
	for range p.total() {
		w.bytes([]byte{0, 1})
	}
	w.pad()
	p.writeTables(w)
	w.flush()
	return w.err
}

// writeTables writes L1 and L2. Data lies behind them in the order of the
// disk, so that its place is a count.
func (p *plan) writeTables(w *wordWriter) {
	first := 1 + p.refTable + p.refBlocks + p.l1
	next := first
	for i := range p.g.L1Need(p.size) {
		if !p.tables.get(i) {
			w.word(0)
			continue
		}
		w.word(uint64(next)<<p.g.ClusterBits | Copied)
		next++
	}
	w.pad()
	next = first + p.l2
	tables := p.g.L1Need(p.size)
	for i := p.tables.next(0, tables); i < tables && w.err == nil; i = p.tables.next(i+1, tables) {
		for c := i << p.g.L2Bits; c < (i+1)<<p.g.L2Bits; c++ {
			if c >= p.disk || !p.used.get(c) {
				w.word(0)
				continue
			}
			w.word(uint64(next)<<p.g.ClusterBits | Copied)
			next++
		}
	}
}

// writeData copies the used clusters. One goroutine reads while the other
// writes, and two buffers go back and forth.
func (p *plan) writeData(ctx context.Context, w io.Writer, src block.Reader, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	g, ctx := errgroup.WithContext(ctx)
	full, empty := make(chan []byte, 2), make(chan []byte, 2)
	for range 2 {
		empty <- make([]byte, max(encodeBuf, p.g.ClusterSize))
	}
	g.Go(func() error {
		defer close(full)
		return p.readData(ctx, src, full, empty)
	})
	g.Go(func() error {
		total, done := p.data<<p.g.ClusterBits, int64(0)
		progress(0, total)
		for b := range full {
			if _, err := w.Write(b); err != nil {
				return err
			}
			done += int64(len(b))
			progress(done, total)
			empty <- b[:cap(b)] // never waits: there are but two
		}
		return nil
	})
	return g.Wait()
}

func (p *plan) readData(ctx context.Context, src block.Reader, full chan<- []byte, empty <-chan []byte) error {
	cb := p.g.ClusterBits
	for c := p.used.next(0, p.disk); c < p.disk; {
		var b []byte
		select {
		case b = <-empty:
		case <-ctx.Done():
			return ctx.Err()
		}
		n := int64(1)
		for (n+1)<<cb <= int64(len(b)) && c+n < p.disk && p.used.get(c+n) {
			n++
		}
		b = b[:n<<cb]
		have := min(int64(len(b)), src.Size()-c<<cb)
		clear(b[have:])
		if err := src.ReadAt(ctx, b[:have], c<<cb); err != nil {
			return err
		}
		full <- b // never waits: there are but two
		c = p.used.next(c+n, p.disk)
	}
	return ctx.Err()
}
