package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow bounds what a zstd frame may make us keep. Clusters have at
// most 2 MiB, and frames need no larger windows than their content.
const maxZstdWindow = 8 << 20

// A Pool has buffers and decompressors that are used again and again, and a
// bound on how many cores help one another.
type Pool struct {
	bufs    [32]sync.Pool // of *[]byte with capacity 1<<i
	flate   sync.Pool     // of *Inflater
	zstd    sync.Pool     // of *zstdStream
	helpers chan struct{}
	early   chan struct{} // who works before anybody asked
	wanted  atomic.Int64  // clusters that are asked for and not yet decompressed
}

// NewPool returns an empty Pool.
func NewPool() *Pool {
	cores := runtime.GOMAXPROCS(0)
	return &Pool{helpers: make(chan struct{}, cores), early: make(chan struct{}, max(1, cores-1))}
}

// Get returns a buffer of n bytes with anything in it.
func (p *Pool) Get(n int) []byte {
	class := bits.Len(uint(max(n, 512) - 1))
	if class >= len(p.bufs) {
		return make([]byte, n)
	}
	if b, ok := p.bufs[class].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, 1<<class)
}

// Put gives a buffer from Get back. Nobody may use it any more.
func (p *Pool) Put(b []byte) {
	class := bits.Len(uint(cap(b))) - 1
	if class < len(p.bufs) && cap(b) == 1<<class {
		p.bufs[class].Put(&b)
	}
}

// Inflate decompresses the raw deflate stream at the start of src until dst
// is full. What follows in src does not matter.
func (p *Pool) Inflate(dst, src []byte) error {
	f, ok := p.flate.Get().(*Inflater)
	if !ok {
		f = new(Inflater)
	}
	err := f.Inflate(dst, src)
	p.flate.Put(f)
	return err
}

// A zstdStream decodes one cluster at a time. It has two decoders, the second
// made when first needed: one that has stopped within a stream keeps what the
// other way of using it would wait for.
type zstdStream struct {
	all, part *zstd.Decoder
	src       bytes.Reader
	out       []byte
}

// zstdSlack is how much room behind the content the decoder wants to be fast.
const zstdSlack = 64

func newZstd() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
}

// Zstd decompresses the zstd frames at the start of src until dst is full.
// What follows in src does not matter.
func (p *Pool) Zstd(dst, src []byte) error {
	z, ok := p.zstd.Get().(*zstdStream)
	if !ok {
		dec, err := newZstd()
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		z = &zstdStream{all: dec}
	}
	defer p.zstd.Put(z)
	if z.frame(dst, src) {
		return nil
	}
	if err := z.stream(dst, src); err != nil {
		return Corrupt("zstd stream: %w", err)
	}
	return nil
}

// frame is the fast way, for a single frame that says that it fills dst: what
// writers make. It reports whether dst is filled.
func (z *zstdStream) frame(dst, src []byte) bool {
	n := zstdFrame(src, len(dst))
	if n == 0 {
		return false
	}
	if cap(z.out) < len(dst)+zstdSlack {
		z.out = make([]byte, 0, len(dst)+zstdSlack)
	}
	out, err := z.all.DecodeAll(src[:n], z.out[:0])
	return err == nil && copy(dst, out) == len(dst)
}

// stream decompresses whatever there is. A decoder that takes the whole of src
// would stumble over the padding, so this one streams and stops.
func (z *zstdStream) stream(dst, src []byte) error {
	if z.part == nil {
		dec, err := newZstd()
		if err != nil {
			return err
		}
		z.part = dec
	}
	z.src.Reset(src)
	defer z.src.Reset(nil) // do not keep src
	if err := z.part.Reset(&z.src); err != nil {
		return err
	}
	_, err := io.ReadFull(z.part, dst)
	return err
}

// zstdFrame returns the length of the frame at the start of src, if it is whole
// and its header says that it holds size bytes, else 0.
func zstdFrame(src []byte, size int) int {
	if len(src) < 16 || binary.LittleEndian.Uint32(src) != 0xfd2fb528 {
		return 0
	}
	flags := src[4]
	single := int(flags >> 5 & 1)
	at := 5 + (1 - single) + [4]int{0, 1, 2, 4}[flags&3]
	var content uint64
	switch flags >> 6 {
	case 0:
		if single == 0 {
			return 0 // it does not say
		}
		content = uint64(src[at])
		at++
	case 1:
		content = uint64(binary.LittleEndian.Uint16(src[at:])) + 256
		at += 2
	case 2:
		content = uint64(binary.LittleEndian.Uint32(src[at:]))
		at += 4
	default: // too large for a cluster
		return 0
	}
	if content != uint64(size) {
		return 0
	}
	for last := false; !last; {
		if at+3 > len(src) {
			return 0
		}
		head := int(src[at]) | int(src[at+1])<<8 | int(src[at+2])<<16
		last = head&1 == 1
		if at += 3; head>>1&3 == 1 { // one byte that is repeated
			at++
		} else {
			at += head >> 3
		}
	}
	if at += int(flags>>2&1) * 4; at > len(src) { // the checksum
		return 0
	}
	return at
}

// Cores returns how many may decompress at a time.
func (p *Pool) Cores() int { return cap(p.helpers) }

// Want says that n clusters more have been asked for and are to be decompressed,
// or, if n is below 0, that so many have been.
func (p *Pool) Want(n int) { p.wanted.Add(int64(n)) }

// Spare reports whether what is asked for leaves a core free.
func (p *Pool) Spare() bool { return p.wanted.Load() < int64(cap(p.helpers)) }

// Engage reports whether one more may work before anybody asked. All cores but
// one may: that one is for those who ask. Who was engaged calls Dismiss.
func (p *Pool) Engage() bool {
	if !p.Spare() {
		return false
	}
	select {
	case p.early <- struct{}{}:
		return true
	default:
		return false
	}
}

// Dismiss ends what a true Engage began.
func (p *Pool) Dismiss() { <-p.early }

// Each calls work(0) to work(n-1), on several cores as far as they are free,
// and returns when all are done, with the first error by number. The caller's
// goroutine works too, so Each never waits for a helper to be free. If work
// panics, so does Each: in the caller's goroutine, where somebody expects it.
func (p *Pool) Each(n int, work func(i int) error) error {
	c := crowd{n: int64(n), work: work}
hire:
	for range n - 1 {
		select {
		case p.helpers <- struct{}{}:
			c.all.Go(func() {
				defer func() { <-p.helpers }()
				c.run()
			})
		default:
			break hire
		}
	}
	c.run()
	c.all.Wait()
	if c.panicked != nil {
		panic(c.panicked)
	}
	return c.err
}

// A crowd is those who work at one Each.
type crowd struct {
	n    int64
	work func(i int) error
	next atomic.Int64
	all  sync.WaitGroup

	mu       sync.Mutex
	first    int64 // number of err
	err      error
	panicked any
}

func (c *crowd) run() {
	defer func() {
		if p := recover(); p != nil {
			c.mu.Lock()
			c.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			c.mu.Unlock()
		}
	}()
	for i := c.next.Add(1) - 1; i < c.n; i = c.next.Add(1) - 1 {
		if err := c.work(int(i)); err != nil {
			c.fail(i, err)
		}
	}
}

func (c *crowd) fail(i int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || i < c.first {
		c.first, c.err = i, err
	}
}
