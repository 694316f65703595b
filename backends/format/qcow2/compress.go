package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// deflateWindow is the longest distance back that readers of the format must
// understand; QEMU refuses longer ones.
const deflateWindow = 4096

// EncodeCompressed writes a standalone qcow2 file of version 3 that has the
// bytes of src, compressed on several cores, to w, which must be empty. The
// header comes last: a file that was not finished is no qcow2. Clusters of
// zeros take no space, whatever src says, and those that do not compress are
// stored as they are.
func EncodeCompressed(ctx context.Context, w io.WriterAt, src block.Reader, opts EncodeOptions) error {
	bits, err := opts.bits()
	if err != nil {
		return err
	}
	if opts.Compression == "" {
		opts.Compression = "zlib"
	}
	if opts.Compression != "zlib" && opts.Compression != "zstd" {
		return fmt.Errorf("qcow2: encode: compression %q: %w: zlib or zstd", opts.Compression, fs.ErrInvalid)
	}
	p, err := newPlan(ctx, src, bits)
	if err != nil {
		return err
	}
	e := &packer{plan: p, w: w, src: src, opts: opts, zstd: opts.Compression == "zstd"}
	if err := e.run(ctx); err != nil {
		return fmt.Errorf("qcow2: encode: %w", err)
	}
	return nil
}

// A packer lays a file out as it goes: header, L1, and L2 tables where the
// extents say that they may be needed; then data, streams side by side; then
// what counts it all.
type packer struct {
	plan *plan
	w    io.WriterAt
	src  block.Reader
	opts EncodeOptions
	zstd bool

	end  int64    // of what is written
	refs []uint16 // refcount of each host cluster
	l1   []uint64
	l2   []uint64 // the table being filled
	slot int64    // its number among the tables; -1: none yet
	at   int64    // its place in the file
}

// A packed cluster on its way from a worker to the file.
type parcel struct {
	cluster int64
	raw     []byte // of the disk
	stream  []byte // compressed; nil: as it is
	zero    bool
	ready   chan struct{}
}

func (e *packer) run(ctx context.Context) error {
	p := e.plan
	workers := e.opts.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	e.end = (1 + p.l1 + p.l2) << p.g.ClusterBits
	e.l1, e.slot, e.at = make([]uint64, p.g.L1Need(p.size)), -1, p.l1<<p.g.ClusterBits
	e.count(0, e.end)

	g, ctx := errgroup.WithContext(ctx)
	todo, ordered := make(chan *parcel), make(chan *parcel, 4*workers)
	g.Go(func() error {
		defer close(todo)
		defer close(ordered)
		return e.read(ctx, todo, ordered)
	})
	for range workers {
		g.Go(func() error { return e.compress(todo) })
	}
	g.Go(func() error { return e.store(ctx, ordered) })
	if err := g.Wait(); err != nil {
		return err
	}
	return e.finish()
}

// read gives each used cluster to a worker and, in order, to the writer.
func (e *packer) read(ctx context.Context, todo, ordered chan<- *parcel) error {
	p := e.plan
	for c := p.used.next(0, p.disk); c < p.disk; c = p.used.next(c+1, p.disk) {
		q := &parcel{cluster: c, raw: make([]byte, p.g.ClusterSize), ready: make(chan struct{})}
		have := min(p.g.ClusterSize, e.src.Size()-c<<p.g.ClusterBits)
		if err := e.src.ReadAt(ctx, q.raw[:have], c<<p.g.ClusterBits); err != nil {
			return err
		}
		for _, to := range []chan<- *parcel{ordered, todo} {
			select {
			case to <- q:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (e *packer) compress(todo <-chan *parcel) error {
	squeeze, err := e.compressor()
	if err != nil {
		return err
	}
	for q := range todo {
		if q.zero = isZero(q.raw); !q.zero {
			stream, err := squeeze(q.raw)
			if err != nil {
				return err
			}
			if len(stream) < len(q.raw) {
				q.stream = bytes.Clone(stream)
			}
		}
		close(q.ready)
	}
	return nil
}

// compressor returns a function for one worker, whose result is good until
// the next call.
func (e *packer) compressor() (func([]byte) ([]byte, error), error) {
	if e.zstd {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
		if err != nil {
			return nil, err
		}
		var out []byte
		return func(p []byte) ([]byte, error) {
			out = enc.EncodeAll(p, out[:0])
			return out, nil
		}, nil
	}
	var out bytes.Buffer
	enc, err := flate.NewWriterWindow(&out, deflateWindow)
	if err != nil {
		return nil, err
	}
	return func(p []byte) ([]byte, error) {
		out.Reset()
		enc.Reset(&out)
		if _, err := enc.Write(p); err != nil {
			return nil, err
		}
		err := enc.Close()
		return out.Bytes(), err
	}, nil
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	return true
}

func (e *packer) store(ctx context.Context, ordered <-chan *parcel) error {
	total, done := e.plan.data<<e.plan.g.ClusterBits, int64(0)
	for q := range ordered {
		select {
		case <-q.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !q.zero {
			if err := e.put(q); err != nil {
				return err
			}
		}
		done += int64(len(q.raw))
		if e.opts.Progress != nil {
			e.opts.Progress(done, total)
		}
	}
	return nil
}

// put appends one cluster and enters it into its table.
func (e *packer) put(q *parcel) error {
	p := e.plan
	if i := q.cluster >> p.g.L2Bits; e.l2 == nil || i != e.slot {
		if err := e.flushTable(); err != nil {
			return err
		}
		e.slot, e.at, e.l2 = i, e.at+p.g.ClusterSize, make([]uint64, p.g.L2Entries)
		e.l1[i] = uint64(e.at) | Copied
	}
	data, off := q.stream, e.end
	entry := p.g.CompressedEntry(off, int64(len(data)))
	if data == nil {
		data, off = q.raw, (e.end+p.g.ClusterSize-1)&^(p.g.ClusterSize-1)
		entry = uint64(off) | Copied
	}
	if _, err := e.w.WriteAt(data, off); err != nil {
		return err
	}
	e.end = off + int64(len(data))
	e.count(off, e.end)
	e.l2[q.cluster&(p.g.L2Entries-1)] = entry
	return nil
}

func (e *packer) flushTable() error {
	if e.l2 == nil {
		return nil
	}
	return e.writeWords(e.l2, e.at)
}

func (e *packer) writeWords(words []uint64, off int64) error {
	b := make([]byte, 0, len(words)*8)
	for _, w := range words {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	_, err := e.w.WriteAt(b, off)
	return err
}

// count adds one reference to each host cluster in [off, end).
func (e *packer) count(off, end int64) {
	bits := e.plan.g.ClusterBits
	last := (end - 1) >> bits
	for int64(len(e.refs)) <= last {
		e.refs = append(e.refs, 0)
	}
	for c := off >> bits; c <= last; c++ {
		e.refs[c]++
	}
}

// finish writes what is only known now: L1, refcounts and, last, the header.
func (e *packer) finish() error {
	p := e.plan
	if err := e.flushTable(); err != nil {
		return err
	}
	if err := e.writeWords(e.l1, 1<<p.g.ClusterBits); err != nil {
		return err
	}
	// Tables reserved for clusters that turned out to be zeros are free.
	for at := e.at + p.g.ClusterSize; at < (1+p.l1+p.l2)<<p.g.ClusterBits; at += p.g.ClusterSize {
		e.refs[at>>p.g.ClusterBits] = 0
	}
	used := int64(len(e.refs))
	table, blocks := refcountClusters(p.g, used)
	for range table + blocks {
		e.refs = append(e.refs, 1)
	}
	words := make([]uint64, blocks)
	for i := range words {
		words[i] = uint64(used+table+int64(i)) << p.g.ClusterBits
	}
	if err := e.writeWords(words, used<<p.g.ClusterBits); err != nil {
		return err
	}
	b := make([]byte, blocks<<p.g.ClusterBits)
	for i, n := range e.refs {
		binary.BigEndian.PutUint16(b[2*i:], n)
	}
	if _, err := e.w.WriteAt(b, (used+table)<<p.g.ClusterBits); err != nil {
		return err
	}
	h := p.header()
	h.RefTableOffset, h.RefTableClusters = uint64(used)<<p.g.ClusterBits, uint32(table)
	if h.L1Entries > 0 {
		h.L1Offset = 1 << p.g.ClusterBits
	}
	if e.zstd {
		h.Incompatible, h.CompressionType = CompressType, Zstd
	}
	head, err := h.Encode()
	if err == nil {
		_, err = e.w.WriteAt(head, 0)
	}
	return err
}
