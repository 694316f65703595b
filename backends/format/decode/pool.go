package decode

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync"

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
// goroutine works too, so Each never waits for a helper to be free.
func (p *Pool) Each(n int, work func(i int) error) error {
	errs := make([]error, n)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	run := func() {
		for i := range next {
			errs[i] = work(i)
		}
	}
	var wg sync.WaitGroup
hire:
	for range n - 1 {
		select {
		case p.helpers <- struct{}{}:
			wg.Go(func() {
				defer func() { <-p.helpers }()
				run()
			})
		default:
			break hire
		}
	}
	run()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
