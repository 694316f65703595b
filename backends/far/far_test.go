package far_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/probe"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// remote is a store with hooks before what it does.
type remote struct {
	s      *mem.Store
	before func(ctx context.Context, op string) error
	wrap   func(r block.Reader) block.Reader
}

func (r *remote) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if err := r.hook(ctx, "open"); err != nil {
		return nil, err
	}
	o, err := r.s.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	hooked := probe.Around(o, func(ctx context.Context, c *probe.Call, do func() error) error {
		if err := r.hook(ctx, string(c.Op)); err != nil {
			return err
		}
		return do()
	})
	if r.wrap != nil {
		hooked = r.wrap(hooked)
	}
	return closer{hooked, o}, nil
}

type closer struct {
	block.Reader
	o block.ReadCloser
}

func (c closer) Close() error { return c.o.Close() }

func (r *remote) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if err := r.hook(ctx, "create"); err != nil {
		return nil, err
	}
	return r.s.Create(ctx, key, size)
}

func (r *remote) Delete(ctx context.Context, key string) error {
	if err := r.hook(ctx, "delete"); err != nil {
		return err
	}
	return r.s.Delete(ctx, key)
}

func (r *remote) hook(ctx context.Context, op string) error {
	if r.before == nil {
		return nil
	}
	return r.before(ctx, op)
}

func TestStore(t *testing.T) {
	storetest.Test(t, func(*testing.T) backends.Store { return far.New(mem.New(), far.Config{Parallel: 2}) })
}

func TestFullStore(t *testing.T) {
	s := far.New(mem.NewLimited(2<<20), far.Config{})
	storetest.TestFull(t, s, 2<<20)
	if h := s.Health(); !h.OK() || !h.Full.IsZero() {
		t.Errorf("health is %+v after a full store took an object again", h)
	}
}

// with stores data at "k" and opens it through a far store.
func with(t *testing.T, r *remote, cfg far.Config, data []byte) (*far.Store, block.ReadCloser) {
	t.Helper()
	before := r.before
	r.s, r.before = mem.New(), nil
	s := far.New(r, cfg)
	if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	r.before = before
	return s, o
}

func TestReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []far.Event
		fault := probe.Fault{Op: probe.Read, Nth: 1}
		again := probe.Fault{Op: probe.Read, Nth: 1, Err: syscall.ECONNRESET}
		r := &remote{wrap: func(r block.Reader) block.Reader { return probe.Faulty(r, fault, again) }}
		data := storetest.Bytes(1, 1000)
		s, o := with(t, r, far.Config{Observe: func(e far.Event) { events = append(events, e) }}, data)
		defer o.Close()
		events = nil
		p := make([]byte, 100)
		if err := o.ReadAt(t.Context(), p, 10); err != nil || !bytes.Equal(p, data[10:110]) {
			t.Fatalf("other bytes, or %v", err)
		}
		if len(events) != 3 || events[2].Try != 3 || events[2].Err != nil || events[1].Bytes != 100 ||
			!errors.Is(events[1].Err, syscall.ECONNRESET) {
			t.Errorf("events: %+v", events)
		}
		if h := s.Health(); !h.OK() || !errors.Is(h.Err, syscall.ECONNRESET) || h.Success.IsZero() {
			t.Errorf("health: %+v", h)
		}
	})
}

func TestErrorsThatStay(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		healthy bool
	}{
		"gone":        {fs.ErrNotExist, true},
		"another one": {syscall.ESTALE, true},
		"in use":      {syscall.EBUSY, true},
		"closed":      {fs.ErrClosed, true},
		"refused":     {fs.ErrPermission, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &remote{before: func(context.Context, string) error { return c.err }}
				s, o := with(t, r, far.Config{}, storetest.Bytes(1, 1000))
				defer o.Close()
				began := time.Now()
				for range 3 {
					if err := o.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, c.err) {
						t.Errorf("got %v, want %v", err, c.err)
					}
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("it took %v to hear what will not change", took)
				}
				if h := s.Health(); h.OK() != c.healthy {
					t.Errorf("health: %+v", h)
				}
			})
		})
	}
}

func TestDeadline(t *testing.T) {
	hang := func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	fail := func(context.Context, string) error { return syscall.ECONNREFUSED }
	for name, c := range map[string]struct {
		before func(context.Context, string) error
		cause  error
		bytes  int
		limit  time.Duration
	}{
		"refused":                {fail, syscall.ECONNREFUSED, 10, 9 * time.Second},
		"hanging":                {hang, context.DeadlineExceeded, 10, 9 * time.Second},
		"hanging in a long read": {hang, context.DeadlineExceeded, 4 << 20, 13 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, o := with(t, &remote{before: c.before}, far.Config{Name: "attic", Deadline: 9 * time.Second}, make([]byte, 5<<20))
				defer o.Close()
				began := time.Now()
				err := o.ReadAt(t.Context(), make([]byte, c.bytes), 0)
				took := time.Since(began)
				if !errors.Is(err, c.cause) || !strings.Contains(err.Error(), "attic: gave up after") {
					t.Errorf("got %v", err)
				}
				if took > c.limit || took < c.limit-3*time.Second {
					t.Errorf("gave up after %v, want about %v", took, c.limit)
				}
				if h := s.Health(); h.OK() || !errors.Is(h.Err, c.cause) {
					t.Errorf("health: %+v", h)
				}
				if _, err := s.Open(t.Context(), "k"); !errors.Is(err, c.cause) {
					t.Errorf("Open = %v", err)
				}
			})
		})
	}
}

// TestRecovery: those who wait go on as soon as one of them gets through.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		var log bytes.Buffer
		r := &remote{before: func(context.Context, string) error {
			if down.Load() {
				return syscall.ECONNREFUSED
			}
			return nil
		}}
		s, o := with(t, r, far.Config{Parallel: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))}, storetest.Bytes(1, 1000))
		defer o.Close()
		var wg sync.WaitGroup
		began := time.Now()
		for range 50 {
			wg.Go(func() {
				if err := o.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Second)
		if h := s.Health(); h.OK() || time.Since(h.Failing) != 20*time.Second {
			t.Errorf("health while the store is away: %+v", h)
		}
		down.Store(false)
		wg.Wait()
		if took := time.Since(began) - 20*time.Second; took > time.Second {
			t.Errorf("the last reader had its bytes %v after the store was back", took)
		}
		if h := s.Health(); !h.OK() || h.Reads != 0 || h.Waiting != 0 {
			t.Errorf("health: %+v", h)
		}
		if out := log.String(); strings.Count(out, "the store fails") != 1 || strings.Count(out, "the store is back") != 1 {
			t.Errorf("log:\n%s", out)
		}
	})
}

func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		r := &remote{before: func(_ context.Context, op string) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(9 * time.Second) // a try may take ten
			now.Add(-1)
			return nil
		}}
		s, o := with(t, r, far.Config{Parallel: 3}, storetest.Bytes(1, 1000))
		defer o.Close()
		began := time.Now()
		var wg sync.WaitGroup
		for range 24 { // the last one waits for longer than the deadline: slow is no failure
			wg.Go(func() {
				if err := o.ReadAt(t.Context(), make([]byte, 10), 0); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		if h := s.Health(); h.Reads != 3 || h.Waiting != 21 {
			t.Errorf("%d under way, %d waiting", h.Reads, h.Waiting)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := o.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that waited for a slot and left: %v", err)
		}
		if err := s.Delete(t.Context(), "other"); err != nil { // writes have their own slots
			t.Error(err)
		}
		wg.Wait()
		if took := time.Since(began); took != 72*time.Second || most.Load() != 4 {
			t.Errorf("24 reads took %v, %d calls at once", took, most.Load())
		}
	})
}

// TestCrowd: while every request hangs, nobody waits for ever in the queue.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{before: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		_, o := with(t, r, far.Config{Parallel: 2}, storetest.Bytes(1, 1000))
		defer o.Close()
		began := time.Now()
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				if err := o.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 90*time.Second {
			t.Errorf("it took %v until all had their error", took)
		}
	})
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := storetest.Bytes(1, 10<<20)
		began := time.Now()
		_, o := with(t, &remote{}, far.Config{Bandwidth: 1 << 20}, data)
		defer o.Close()
		if took := time.Since(began).Round(time.Second); took != 10*time.Second {
			t.Errorf("10 MiB were written in %v", took)
		}
		began = time.Now()
		p := make([]byte, len(data))
		if err := o.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Errorf("other bytes, or %v", err)
		}
		if took := time.Since(began).Round(time.Second); took != 10*time.Second {
			t.Errorf("10 MiB were read in %v", took)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := o.ReadAt(short, p, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read that cannot be in time = %v", err)
		}
	})
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{before: func(context.Context, string) error { return syscall.ECONNREFUSED }}
		s, o := with(t, r, far.Config{}, storetest.Bytes(1, 1000))
		defer o.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := o.ReadAt(ctx, make([]byte, 10), 0)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want the caller's error and the cause", err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if s.Health().OK() {
			t.Error("the store counts as well")
		}
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var asked atomic.Int64
		r := &remote{s: mem.New(), before: func(context.Context, string) error {
			asked.Add(1)
			if down.Load() {
				return syscall.ECONNREFUSED
			}
			return nil
		}}
		s := far.New(r, far.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Watch(ctx, 10*time.Second) })
		time.Sleep(time.Minute + time.Second)
		if h := s.Health(); !h.OK() || asked.Load() != 6 {
			t.Errorf("asked %d times, health: %+v", asked.Load(), h)
		}
		down.Store(true)
		time.Sleep(time.Minute)
		if s.Health().OK() {
			t.Error("nobody noticed that the store went away")
		}
		down.Store(false)
		time.Sleep(11 * time.Second)
		if h := s.Health(); !h.OK() {
			t.Errorf("nobody noticed that the store is back: %+v", h)
		}
		cancel()
		wg.Wait()
	})
}

// TestWritesAreNotRepeated: only the store's own writer knows what may be.
func TestWritesAreNotRepeated(t *testing.T) {
	asked := 0
	r := &remote{s: mem.New(), before: func(context.Context, string) error {
		asked++
		return syscall.ECONNRESET
	}}
	s := far.New(r, far.Config{})
	if _, err := s.Create(t.Context(), "k", -1); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Create = %v", err)
	}
	if err := s.Delete(t.Context(), "k"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Delete = %v", err)
	}
	if asked != 2 {
		t.Errorf("%d calls, want 2", asked)
	}
}

// able is a store with every ability.
type able struct {
	*mem.Store
	from backends.Store
}

func (a *able) Capabilities() []backends.Capability { return []backends.Capability{{Name: "x"}} }
func (a *able) URI(key string) string               { return "able://" + key }
func (a *able) Free(context.Context, string) error  { return syscall.EBUSY }
func (a *able) CopyFrom(_ context.Context, _ string, from backends.Store, _ string) error {
	a.from = from
	return nil
}

func TestAbilities(t *testing.T) {
	a, b := &able{Store: mem.NewLimited(1 << 20)}, &able{Store: mem.New()}
	s := far.New(a, far.Config{})
	if got := backends.URI(s, "k"); got != "able://k" {
		t.Errorf("URI = %q", got)
	}
	if got := backends.Capabilities(s); len(got) != 1 {
		t.Errorf("Capabilities = %v", got)
	}
	if u, err := backends.UsageOf(t.Context(), s); err != nil || u.Total != 1<<20 {
		t.Errorf("Usage = %v, %v", u, err)
	}
	if err := backends.Copy(t.Context(), s, "k", far.New(b, far.Config{}), "k", nil); err != nil || a.from != b {
		t.Errorf("Copy from %v, %v: want the store itself", a.from, err)
	}
	if err := backends.Free(t.Context(), s, "k"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Free = %v", err)
	}
	plain := far.New(mem.New(), far.Config{})
	if err := backends.Free(t.Context(), plain, "k"); err != nil {
		t.Errorf("Free of a store that does not know = %v", err)
	}
	if err := storetest.Put(t.Context(), plain, "k", -1, []byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := backends.Copy(t.Context(), plain, "c", plain, "k", nil); err != nil {
		t.Error(err)
	}
	if err := storetest.Want(t.Context(), plain, "c", []byte("text")); err != nil {
		t.Error(err)
	}
	if backends.URI(plain, "k") != "" || backends.Capabilities(plain) != nil {
		t.Error("abilities out of nothing")
	}
}
