package objectlog

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	maxObjects = 128     // segments that are kept open
	maxRun     = 1 << 20 // bytes of one read of the store
	maxFetches = 16      // at a time
)

// A source reads segments of one overlay. Each part of a payload is checked
// against the segment's own digest; the last ones read are kept in memory. A
// part is fetched once, however many wait for it.
type source struct {
	store  backends.Store
	prefix string
	id     digest // of the overlay's ID

	life  context.Context // of fetches, which belong to all who wait for them
	stop  context.CancelFunc
	wg    sync.WaitGroup
	slots chan struct{}

	mu      sync.Mutex
	closed  bool
	objects map[int64]*object
	order   list.List // of *object, the one used last in front
	parts   map[partKey]*part
	lru     list.List // of *part that are there, the one used last in front
	bytes   int64
	limit   int64
}

type partKey struct{ seq, index int64 }

// A part is 64 KiB of a segment: there, or on its way until done.
type part struct {
	key  partKey
	done chan struct{}
	data []byte
	err  error
	elem *list.Element
}

// An object is an open segment.
type object struct {
	ref   ref
	users int
	elem  *list.Element

	gone bool // not in the list any more: closed when nobody uses it

	opened chan struct{} // r and err are there
	r      block.ReadCloser
	err    error
	known  chan struct{} // sums and bad are there
	sums   []byte        // of the parts
	bad    error
}

func newSource(store backends.Store, prefix, id string, limit int64) *source {
	s := &source{
		store: store, prefix: prefix, id: sha256.Sum256([]byte(id)), limit: limit,
		slots: make(chan struct{}, maxFetches), objects: make(map[int64]*object), parts: make(map[partKey]*part),
	}
	s.life, s.stop = context.WithCancel(context.Background())
	return s
}

func (s *source) close() {
	s.stop()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
	for _, o := range s.objects {
		if o.r != nil {
			o.r.Close() // it was only read
		}
	}
}

// read fills p with bytes of the payload of r from off on.
func (s *source) read(ctx context.Context, r ref, p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > r.payload {
		return corrupt("segment %d: %d bytes at %d of %d", r.seq, len(p), off, r.payload)
	}
	var few [20]*part
	wanted := s.want(few[:0], r, off, int64(len(p)))
	for _, w := range wanted {
		select {
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if w.err != nil {
			return fmt.Errorf("read segment %s: %w", r.key(s.prefix), w.err)
		}
		n := copy(p, w.data[off-w.key.index*partSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// want appends the parts of r that cover [off, off+n) to out, and begins to
// fetch those that are not there.
func (s *source) want(out []*part, r ref, off, n int64) []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var run []*part
	for i := off / partSize; i*partSize < off+n; i++ {
		key := partKey{r.seq, i}
		w := s.parts[key]
		switch {
		case w == nil:
			w = &part{key: key, done: make(chan struct{})}
			if s.closed {
				w.err = fs.ErrClosed
				close(w.done)
				break
			}
			s.parts[key] = w
			if run = append(run, w); len(run)*partSize == maxRun {
				run = s.begin(r, run)
			}
		case w.elem != nil:
			s.lru.MoveToFront(w.elem)
			run = s.begin(r, run)
		default:
			run = s.begin(r, run)
		}
		out = append(out, w)
	}
	s.begin(r, run)
	return out
}

// begin fetches run, neighbours in r. With mu held.
func (s *source) begin(r ref, run []*part) []*part {
	if len(run) > 0 {
		s.wg.Go(func() { s.fetch(r, run) })
	}
	return nil
}

// fetch fetches run and tells who waits for it.
func (s *source) fetch(r ref, run []*part) {
	s.slots <- struct{}{}
	data, err := s.load(r, run[0].key.index, len(run))
	<-s.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range run {
		if w.err = err; err != nil {
			delete(s.parts, w.key) // who comes next tries again
		} else {
			w.data = data[i]
			w.elem = s.lru.PushFront(w)
			s.bytes += int64(len(w.data))
		}
		close(w.done)
	}
	for s.bytes > s.limit && s.lru.Len() > len(run) {
		w := s.lru.Remove(s.lru.Back()).(*part)
		delete(s.parts, w.key)
		s.bytes -= int64(len(w.data))
	}
}

// load reads n parts of r from index on and checks them.
func (s *source) load(r ref, index int64, n int) ([][]byte, error) {
	o, err := s.object(r)
	if err != nil {
		return nil, err
	}
	defer s.release(o)
	off := index * partSize
	buf := make([]byte, min(int64(n)*partSize, r.payload-off))
	if err := o.r.ReadAt(s.life, buf, r.meta+off); err != nil {
		return nil, err
	}
	<-o.known
	if o.bad != nil {
		return nil, o.bad
	}
	out := make([][]byte, n)
	for i := range out {
		p := buf[i*partSize : min((i+1)*partSize, len(buf))]
		if sum := sha256.Sum256(p); string(sum[:]) != string(o.sums[(int(index)+i)*len(sum):][:len(sum)]) {
			return nil, corrupt("part %d is not what was written", int(index)+i)
		}
		if n > 1 {
			p = append([]byte(nil), p...) // each is forgotten alone
		}
		out[i] = p
	}
	return out, nil
}

// object returns the open segment r, until release.
func (s *source) object(r ref) (*object, error) {
	s.mu.Lock()
	o := s.objects[r.seq]
	if o == nil {
		o = &object{ref: r, opened: make(chan struct{}), known: make(chan struct{})}
		o.elem = s.order.PushFront(o)
		s.objects[r.seq] = o
		s.wg.Go(func() { s.open(o) })
		s.forget()
	} else {
		s.order.MoveToFront(o.elem)
	}
	o.users++
	s.mu.Unlock()
	<-o.opened
	if o.err != nil {
		s.release(o)
		return nil, o.err
	}
	return o, nil
}

func (s *source) release(o *object) {
	s.mu.Lock()
	o.users--
	done := o.gone && o.users == 0 && o.r != nil
	s.mu.Unlock()
	if done {
		o.r.Close() // it was only read
	}
}

// forget closes segments that were not used for long. With mu held.
func (s *source) forget() {
	for e := s.order.Back(); e != nil && len(s.objects) > maxObjects; {
		o := e.Value.(*object)
		e = e.Prev()
		select {
		case <-o.known:
		default:
			continue // on its way
		}
		if o.users == 0 {
			s.drop(o)
			o.r.Close() // it was only read
		}
	}
}

// drop forgets o. With mu held.
func (s *source) drop(o *object) {
	delete(s.objects, o.ref.seq)
	s.order.Remove(o.elem)
	o.gone = true
}

// open opens the segment and reads what stands before the payload, while who
// wants bytes of the payload already asks for these. It is a user as well.
func (s *source) open(o *object) {
	s.mu.Lock()
	o.users++
	s.mu.Unlock()
	defer s.release(o)
	r, err := s.openRef(s.life, o.ref)
	o.r, o.err, o.bad = r, err, err
	close(o.opened)
	if err == nil {
		var m *meta
		if m, o.bad = s.readMeta(s.life, r, o.ref); o.bad == nil {
			o.sums = append([]byte(nil), m.sums...)
		}
	}
	if o.bad != nil {
		s.mu.Lock()
		s.drop(o) // who comes next tries again
		s.mu.Unlock()
	}
	close(o.known)
}

// openRef opens the object of r, which must have its length.
func (s *source) openRef(ctx context.Context, r ref) (block.ReadCloser, error) {
	o, err := s.store.Open(ctx, r.key(s.prefix))
	if err != nil {
		return nil, err
	}
	if o.Size() != r.meta+r.payload {
		o.Close() // it is of no use
		return nil, corrupt("segment %d: %d bytes, want %d", r.seq, o.Size(), r.meta+r.payload)
	}
	return o, nil
}

// readMeta reads what stands before the payload of r, which is o.
func (s *source) readMeta(ctx context.Context, o block.Reader, r ref) (*meta, error) {
	p := make([]byte, r.meta)
	if err := o.ReadAt(ctx, p, 0); err != nil {
		return nil, err
	}
	m, err := decodeMeta(p, r)
	if err == nil && m.id != s.id {
		err = corrupt("segment %d is of another overlay", r.seq)
	}
	return m, err
}

// metas reads the tables of refs, a few at a time.
func (s *source) metas(ctx context.Context, refs []ref) ([]*meta, error) {
	out := make([]*meta, len(refs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxFetches)
	for i, r := range refs {
		g.Go(func() error {
			o, err := s.openRef(ctx, r)
			if err == nil {
				out[i], err = s.readMeta(ctx, o, r)
				o.Close() // it was only read
			}
			if err != nil {
				return fmt.Errorf("read segment %s: %w", r.key(s.prefix), err)
			}
			return nil
		})
	}
	return out, g.Wait()
}
