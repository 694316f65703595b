package ingest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

const (
	chunkSize    = 256 << 10 // large enough that handing over a chunk costs nothing beside hashing it
	bufferChunks = 32        // 8 MiB in flight: a lane may lag that far behind the others
	sureChunks   = 4         // of these every stream may have so many
	spareChunks  = 384       // 96 MiB that all streams share for the rest: many at a time lag less
)

// chunks is where streams have their chunks from. What is sure for each of
// them is always given; what they would like besides while there is any left.
type chunks struct {
	pool  sync.Pool    // of *chunk with chunkSize bytes
	spare atomic.Int64 // in use by all streams
}

// more asks for one chunk besides those that are sure.
func (c *chunks) more() bool {
	if c.spare.Add(1) <= spareChunks {
		return true
	}
	c.spare.Add(-1)
	return false
}

// get returns a chunk of size bytes.
func (c *chunks) get(size int) *chunk {
	if size == chunkSize {
		if k, ok := c.pool.Get().(*chunk); ok {
			return k
		}
	}
	return &chunk{buf: make([]byte, size)}
}

// put takes chunks back that nobody uses any more.
func (c *chunks) put(k *chunk) {
	if cap(k.buf) == chunkSize {
		k.buf = k.buf[:chunkSize]
		c.pool.Put(k)
	}
}

// A chunk is a piece of the stream, shared by all lanes and free again when
// the last one is done with it.
type chunk struct {
	buf   []byte
	users atomic.Int32
}

// A lane writes the stream to one sink on a goroutine of its own. After an
// error it only lets chunks pass, so that nobody waits for it.
type lane struct {
	name string
	sink io.Writer
	in   chan *chunk
	err  error // set before failed
}

// A stream copies one body to several lanes.
type stream struct {
	from   *chunks
	lanes  []*lane
	free   chan *chunk
	made   int // chunks
	size   int // of a chunk
	failed atomic.Pointer[lane]
}

// newStream makes a stream for a body of size bytes, or -1.
func newStream(from *chunks, size int64, lanes ...*lane) *stream {
	s := &stream{from: from, lanes: lanes, free: make(chan *chunk, bufferChunks), size: chunkSize}
	if size >= 0 && size < chunkSize {
		s.size = int(size) + 1 // one more, to notice a body that is longer
	}
	for _, l := range lanes {
		l.in = make(chan *chunk, bufferChunks)
	}
	return s
}

// copy reads body to its end, shows each piece to check before any lane sees
// it, and returns the number of bytes once every lane has done its part. The
// first error ends it: of body (as ErrBody), check, a lane, or ctx.
func (s *stream) copy(ctx context.Context, body io.Reader, check func([]byte) error) (int64, error) {
	var wg sync.WaitGroup
	for _, l := range s.lanes {
		wg.Go(func() { s.run(l) })
	}
	n, err := s.feed(ctx, body, check)
	for _, l := range s.lanes {
		close(l.in)
	}
	wg.Wait()
	s.giveBack()
	if l := s.failed.Load(); l != nil && err == nil {
		err = fmt.Errorf("%s: %w", l.name, l.err)
	}
	return n, err
}

func (s *stream) feed(ctx context.Context, body io.Reader, check func([]byte) error) (int64, error) {
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		if s.failed.Load() != nil {
			return total, nil // copy names the lane
		}
		c := s.take()
		n, err := fill(body, c.buf[:s.size])
		total += int64(n)
		if n > 0 {
			c.buf = c.buf[:n]
			if err := check(c.buf); err != nil {
				return total, err
			}
			s.send(c)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("%w: it broke off after %d bytes: %w", ErrBody, total, err)
		}
	}
}

// fill reads until p is full or r ends. Unlike io.ReadFull it does not turn
// an end in the middle into io.ErrUnexpectedEOF, which is what the body of a
// client that hung up returns.
func fill(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var k int
		k, err = r.Read(p[n:])
		n += k
		if k > 0 {
			empty = 0
		} else if empty++; empty == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// take returns a chunk to fill. It waits once bufferChunks are in flight, or
// fewer where other streams have the rest.
func (s *stream) take() *chunk {
	select {
	case c := <-s.free:
		return c
	default:
	}
	if s.made < sureChunks || s.made < bufferChunks && s.from.more() {
		s.made++
		return s.from.get(s.size)
	}
	return <-s.free
}

// giveBack lets others have the chunks, once the lanes have ended.
func (s *stream) giveBack() {
	for {
		select {
		case c := <-s.free:
			s.from.put(c)
			continue
		default:
		}
		break
	}
	s.from.spare.Add(-int64(max(s.made-sureChunks, 0)))
	s.made = 0
}

// send hands c to every lane. A lane's queue holds as many chunks as exist,
// so this never waits.
func (s *stream) send(c *chunk) {
	c.users.Store(int32(len(s.lanes)))
	for _, l := range s.lanes {
		l.in <- c
	}
}

func (s *stream) run(l *lane) {
	for c := range l.in {
		if l.err == nil {
			if _, l.err = l.sink.Write(c.buf); l.err != nil {
				s.failed.CompareAndSwap(nil, l)
			}
		}
		if c.users.Add(-1) == 0 {
			s.free <- c
		}
	}
}
