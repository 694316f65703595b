package decode

import (
	"bytes"
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
}

// NewPool returns an empty Pool.
func NewPool() *Pool {
	return &Pool{helpers: make(chan struct{}, runtime.GOMAXPROCS(0))}
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

type zstdStream struct {
	src bytes.Reader
	dec *zstd.Decoder
}

// Zstd decompresses the zstd frames at the start of src until dst is full.
// What follows in src does not matter: a decoder that takes the whole of src
// would stumble over the padding, so this one streams and stops.
func (p *Pool) Zstd(dst, src []byte) error {
	z, ok := p.zstd.Get().(*zstdStream)
	if !ok {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		z = &zstdStream{dec: dec}
	}
	defer p.zstd.Put(z)
	z.src.Reset(src)
	err := z.dec.Reset(&z.src)
	if err == nil {
		_, err = io.ReadFull(z.dec, dst)
	}
	z.src.Reset(nil) // do not keep src
	if err != nil {
		return Corrupt("zstd stream: %w", err)
	}
	return nil
}

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
