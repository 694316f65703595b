package http

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Spools are the objects that were fetched whole. They share a bound. The lock
// of a spool is taken after that of all.
type spools struct {
	cfg   Config
	ctx   context.Context // ends with the Store
	stop  context.CancelFunc
	going sync.WaitGroup // fetches

	mu   sync.Mutex
	used int64             // bytes of all, as announced or as there are
	all  map[*spool]bool   // that count
	have map[string]*spool // by URL and version, those that can be shared
}

func newSpools(cfg Config) *spools {
	ctx, stop := context.WithCancel(context.Background())
	return &spools{cfg: cfg, ctx: ctx, stop: stop, all: make(map[*spool]bool), have: make(map[string]*spool)}
}

// close ends all fetches and frees what nobody reads.
func (s *spools) close() {
	s.stop()
	s.going.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evict(s.cfg.SpoolSize)
}

// A download is an answer that holds the whole object, or none yet.
type download struct {
	resp    *http.Response
	version version
	end     func()
}

// A spool is an object that is, or is being, fetched whole.
type spool struct {
	owner  *spools
	origin *url.URL
	name   string // among those that are shared, or ""
	file   *os.File

	mu     sync.Mutex
	size   int64         // -1 while nobody knows
	have   int64         // bytes that are there
	done   bool          // all
	err    error         // why there will be no more
	change chan struct{} // closed when one of these has changed

	// Under owner.mu.
	users   int
	taken   int64     // of owner.used
	idle    time.Time // since when there are no users
	dropped bool
}

// spool returns a reader of the object that d begins to fetch, or that was
// fetched before. It waits until the size is known.
func (s *Store) spool(ctx context.Context, u *url.URL, d download) (block.ReadCloser, error) {
	sp, err := s.spools.join(u, d)
	if err != nil {
		d.end()
		return nil, err
	}
	if sp == nil {
		if sp, err = s.spools.begin(u, d); err != nil {
			d.end()
			return nil, err
		}
		s.cfg.Logger.InfoContext(ctx, "http: the server gives no ranges: the object is fetched whole", "url", u.Redacted(), "bytes", sp.size)
		s.spools.going.Go(func() { s.fill(sp, d) })
	} else {
		d.end()
	}
	r := &spooled{sp: sp}
	if err := sp.wait(ctx, func() bool { return sp.size >= 0 }); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// join returns a spool of that version that is there already, or nil.
func (s *spools) join(u *url.URL, d download) (*spool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, fs.ErrClosed
	}
	sp := s.have[spoolName(u, d.version)]
	if sp == nil || sp.failed() != nil {
		return nil, nil
	}
	sp.users++
	return sp, nil
}

// spoolName is "" for an object that nobody could tell from another.
func spoolName(u *url.URL, v version) string {
	if !v.known() {
		return ""
	}
	return u.String() + "\n" + v.etag + "\n" + v.modified
}

// begin makes a spool with room for what is announced.
func (s *spools) begin(u *url.URL, d download) (*spool, error) {
	sp := &spool{owner: s, origin: u, size: -1, change: make(chan struct{}), users: 1, name: spoolName(u, d.version)}
	if d.resp != nil {
		sp.size = d.resp.ContentLength
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(sp, max(sp.size, 0)); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.cfg.SpoolDir, "platter-spool-*")
	if err == nil {
		err = os.Remove(f.Name()) // it goes with the last that has it open
	}
	if err != nil {
		s.used -= sp.taken
		return nil, fmt.Errorf("make a spool: %w", err)
	}
	sp.file = f
	s.all[sp] = true
	if sp.name != "" {
		s.have[sp.name] = sp
	}
	return sp, nil
}

// room takes n bytes for a spool, if need be from those that nobody uses.
// It is called under mu.
func (s *spools) room(sp *spool, n int64) error {
	if sp.dropped {
		return fs.ErrClosed
	}
	if n > s.cfg.SpoolSize-s.used {
		s.evict(n)
	}
	if n > s.cfg.SpoolSize-s.used {
		return fmt.Errorf("an object that must be fetched whole does not fit: all spools have %d bytes of %d: raise spool_size, or have the server give ranges: %w",
			s.used, s.cfg.SpoolSize, syscall.ENOSPC)
	}
	s.used, sp.taken = s.used+n, sp.taken+n
	return nil
}

// evict frees spools without users, the oldest first, until n bytes fit. It is
// called under mu.
func (s *spools) evict(n int64) {
	for n > s.cfg.SpoolSize-s.used || s.ctx.Err() != nil {
		var oldest *spool
		for sp := range s.all {
			if sp.users == 0 && (oldest == nil || sp.idle.Before(oldest.idle)) {
				oldest = sp
			}
		}
		if oldest == nil {
			return
		}
		s.drop(oldest)
	}
}

// drop frees a spool. It is called under mu.
func (s *spools) drop(sp *spool) {
	s.used -= sp.taken
	sp.taken, sp.dropped = 0, true
	delete(s.all, sp)
	if s.have[sp.name] == sp {
		delete(s.have, sp.name)
	}
	sp.fail(fs.ErrClosed)
	_ = sp.file.Close() // there is nothing in it that anybody still wants
}

// leave ends a use. What cannot be shared is freed at once.
func (s *spools) leave(sp *spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp.users--
	sp.idle = time.Now()
	if sp.users == 0 && s.all[sp] && (s.have[sp.name] != sp || sp.failed() != nil || s.ctx.Err() != nil) {
		s.drop(sp)
	}
}

// fill fetches all bytes, from the answer that is there and, if that breaks
// off, from others: what they repeat must be the same.
func (s *Store) fill(sp *spool, d download) {
	ctx := s.spools.ctx
	defer d.end()
	defer context.AfterFunc(ctx, d.end)()
	err := s.again(ctx, "fetch "+sp.origin.Redacted(), func() error {
		if d.resp == nil {
			resp, _, err := s.get(ctx, sp.origin, nil)
			if err != nil {
				return err
			}
			d.resp = resp
			if resp.StatusCode != http.StatusOK || versionOf(resp.Header) != d.version {
				resp.Body.Close()
				return fmt.Errorf("the object was replaced while it was fetched: %w", syscall.ESTALE)
			}
		}
		in := d.resp.Body
		announced := d.resp.ContentLength
		d.resp = nil
		defer in.Close()
		return sp.pour(in, announced)
	})
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "http: an object could not be fetched", "url", sp.origin.Redacted(), "error", err)
	}
	sp.finish(err)
}

// pour takes the object from its beginning.
func (sp *spool) pour(in io.Reader, announced int64) error {
	if announced >= 0 {
		if err := sp.announce(announced); err != nil {
			return err
		}
	}
	buf, old := make([]byte, 256<<10), make([]byte, 256<<10)
	for off := int64(0); ; {
		n, err := in.Read(buf)
		repeated := int(min(int64(n), max(0, sp.have-off)))
		if _, e := sp.file.ReadAt(old[:repeated], off); e != nil {
			return e
		}
		if !bytes.Equal(old[:repeated], buf[:repeated]) {
			return fmt.Errorf("the object has changed while it was fetched: %w", syscall.ESTALE)
		}
		if e := sp.put(buf[repeated:n]); e != nil {
			return e
		}
		off += int64(n)
		switch {
		case err == io.EOF && (announced < 0 || off == announced):
			return sp.announce(off)
		case err == io.EOF:
			return fmt.Errorf("after %d of %d bytes: %w", off, announced, io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", off, err)
		}
	}
}

// announce notes the size, once it is known.
func (sp *spool) announce(size int64) error {
	sp.owner.mu.Lock()
	defer sp.owner.mu.Unlock()
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.size >= 0 && size != sp.size || size < sp.have {
		return fmt.Errorf("the object has %d bytes and had %d: %w", size, max(sp.size, sp.have), syscall.ESTALE)
	}
	if err := sp.owner.room(sp, size-sp.taken); err != nil {
		return err
	}
	sp.size = size
	sp.changed()
	return nil
}

// put appends bytes.
func (sp *spool) put(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n := int64(len(p))
	sp.owner.mu.Lock()
	var err error
	if more := sp.have + n - sp.taken; more > 0 {
		err = sp.owner.room(sp, more)
	}
	sp.owner.mu.Unlock()
	if g := sp.owner.cfg.Guard; err == nil && g != nil {
		err = g.Take(n)
	}
	if err == nil {
		_, err = sp.file.WriteAt(p, sp.have)
	}
	if err != nil {
		return fmt.Errorf("keep what is fetched: %w", err)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.have += n
	sp.changed()
	return nil
}

// changed wakes those who wait. It is called under mu.
func (sp *spool) changed() {
	close(sp.change)
	sp.change = make(chan struct{})
}

// finish notes the end of the fetch.
func (sp *spool) finish(err error) {
	if err != nil {
		sp.fail(err)
		return
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.done = true
	sp.changed()
}

func (sp *spool) fail(err error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !sp.done && sp.err == nil {
		sp.err = err
		sp.changed()
	}
}

func (sp *spool) failed() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.err
}

// wait waits until enough, which is called under mu, or until that will never
// be.
func (sp *spool) wait(ctx context.Context, enough func() bool) error {
	for {
		sp.mu.Lock()
		ok, err, change, have, size := enough(), sp.err, sp.change, sp.have, sp.size
		sp.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("the object is being fetched whole, %d of %d bytes are there: %w", have, size, ctx.Err())
		}
	}
}

// A spooled is an open object of a server that gives no ranges.
type spooled struct {
	sp     *spool
	closed atomic.Bool
}

// Size returns the length in bytes.
func (r *spooled) Size() int64 {
	r.sp.mu.Lock()
	defer r.sp.mu.Unlock()
	return r.sp.size
}

// ReadAt fills p with the bytes at off, when they are there.
func (r *spooled) ReadAt(ctx context.Context, p []byte, off int64) error {
	end := off + int64(len(p))
	err := block.CheckRange(off, int64(len(p)), r.Size())
	if err == nil && r.closed.Load() {
		err = fs.ErrClosed
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = r.sp.wait(ctx, func() bool { return r.sp.have >= end })
	}
	if err == nil && len(p) > 0 {
		_, err = r.sp.file.ReadAt(p, off)
	}
	if err != nil {
		return fmt.Errorf("http: read %d bytes of %s at %d: %w", len(p), r.sp.origin.Redacted(), off, err)
	}
	return nil
}

// Close ends the use of the object.
func (r *spooled) Close() error {
	if !r.closed.Swap(true) {
		r.sp.owner.leave(r.sp)
	}
	return nil
}
