package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// A fault answers a request instead of the fake, if it returns true.
type fault = func(w http.ResponseWriter, r *http.Request) bool

// times lets a fault happen n times.
func times(n int64, f fault) fault {
	var done atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) bool {
		if done.Add(1) <= n && f(w, r) {
			return true
		}
		done.Add(-1)
		return false
	}
}

// on lets a fault happen to requests with a method and, unless "", a query.
func on(method, query string, f fault) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == method && (query == "" || r.URL.Query().Has(query)) && f(w, r)
	}
}

// parts lets a fault happen to parts.
func parts(f fault) fault { return on("PUT", "partNumber", f) }

func says(status int, code string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		refuse(w, status, code)
		return true
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) bool {
	cut(w)
	return true
}

// untilClosed holds requests until a channel is closed.
func untilClosed(c <-chan struct{}) fault {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-c:
		case <-r.Context().Done():
		}
		return false
	}
}

// briefly is how long a server that is silent is waited for, by those who
// should meet one.
const briefly = 700 * time.Millisecond

// silent says nothing for longer than briefly. That somebody has gone shows
// only where nothing of a request is left to read, so it hangs up in the end.
func silent(w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-r.Context().Done():
	case <-time.After(4 * briefly):
		cut(w)
	}
	return true
}

// instead answers a range with the right header, changed by change, and then
// with as many bytes as it says of the right ones.
func (f *fake) instead(change func(h http.Header), bytes int, then func(w http.ResponseWriter, r *http.Request)) fault {
	return on("GET", "", func(w http.ResponseWriter, r *http.Request) bool {
		var first, last int
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n != 2 {
			return false
		}
		f.mu.Lock()
		o := f.objects[strings.TrimPrefix(r.URL.Path, "/"+fakeBucket+"/")]
		f.mu.Unlock()
		h := w.Header()
		h.Set("ETag", o.etag)
		h.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		h.Set("Content-Length", fmt.Sprint(last-first+1))
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(o.data)))
		if change != nil {
			change(h)
		}
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(o.data[first:min(first+bytes, len(o.data))])
		_ = http.NewResponseController(w).Flush()
		if then != nil {
			then(w, r)
		}
		return true
	})
}

// stored returns a store with an object k, open.
func stored(t *testing.T, data []byte, change func(cfg *s3.Config)) (*fake, *s3.Store, block.ReadCloser) {
	t.Helper()
	f := newFake(t)
	cfg := f.config()
	if change != nil {
		change(&cfg)
	}
	s := f.openWith(cfg)
	if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	f.requests()
	return f, s, r
}

// TestReadTrouble: what passes is survived, what lasts is an error, soon, and
// never are other bytes taken for the object's.
func TestReadTrouble(t *testing.T) {
	data := storetest.Bytes(1, 600_000)
	wait := func(w http.ResponseWriter, r *http.Request) { silent(w, r) }
	for name, c := range map[string]struct {
		fault   func(f *fake) fault
		lasting bool // not tried again
		silent  bool
	}{
		"500":       {fault: func(*fake) fault { return says(500, "InternalError") }},
		"503":       {fault: func(*fake) fault { return says(503, "SlowDown") }},
		"hang up":   {fault: func(*fake) fault { return hangUp }},
		"no header": {fault: func(*fake) fault { return silent }, silent: true},
		"short body": {fault: func(f *fake) fault {
			return f.instead(nil, 1000, func(w http.ResponseWriter, _ *http.Request) { cut(w) })
		}},
		"body stops":          {fault: func(f *fake) fault { return f.instead(nil, 1000, wait) }, silent: true},
		"other range":         {fault: func(f *fake) fault { return f.instead(header("Content-Range", "bytes 0-9/600000"), 10, nil) }, lasting: true},
		"no range":            {fault: func(f *fake) fault { return f.instead(header("Content-Range", ""), 300_000, nil) }, lasting: true},
		"other size":          {fault: func(f *fake) fault { return f.instead(header("Content-Range", "bytes 7-300006/600001"), 300_000, nil) }, lasting: true},
		"shorter length":      {fault: func(f *fake) fault { return f.instead(header("Content-Length", "1000"), 1000, nil) }, lasting: true},
		"longer length":       {fault: func(f *fake) fault { return f.instead(header("Content-Length", "400000"), 400_000, nil) }, lasting: true},
		"too much, no length": {fault: func(f *fake) fault { return f.instead(header("Content-Length", ""), 300_001, nil) }, lasting: true},
		"200": {fault: func(*fake) fault {
			return on("GET", "", func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
		}, lasting: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, _, r := stored(t, data, func(cfg *s3.Config) {
				if c.silent {
					cfg.Timeout = briefly
				}
			})
			read := func() error {
				p := make([]byte, 300_000)
				err := r.ReadAt(t.Context(), p, 7)
				if err == nil && string(p) != string(data[7:300_007]) {
					t.Error("other bytes")
				}
				return err
			}
			if f.set(func(f *fake) { f.before = times(2, c.fault(f)) }); !c.lasting {
				if err := read(); err != nil {
					t.Errorf("what passes: %v", err)
				}
			}
			f.requests()
			f.set(func(f *fake) { f.before = c.fault(f) })
			began := time.Now()
			err := read()
			// net/http by itself repeats what broke on a connection that was
			// used before.
			if n := len(f.requests()); err == nil || time.Since(began) > 30*time.Second || c.lasting && n != 1 || n > 8 {
				t.Errorf("what lasts: %v after %v and %d requests", err, time.Since(began), n)
			}
			f.set(func(f *fake) { f.before = nil })
			if err := read(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func header(name, value string) func(h http.Header) {
	return func(h http.Header) {
		if h.Del(name); value != "" {
			h.Set(name, value)
		}
	}
}

// TestReadGoesOn: what arrived before a body broke off is not asked for again.
func TestReadGoesOn(t *testing.T) {
	data := storetest.Bytes(1, 600_000)
	f, _, r := stored(t, data, nil)
	var asked []string
	break2 := times(2, f.instead(nil, 100_000, func(w http.ResponseWriter, _ *http.Request) { cut(w) }))
	f.set(func(f *fake) {
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			asked = append(asked, r.Header.Get("Range"))
			return break2(w, r)
		}
	})
	p := make([]byte, 500_000)
	if err := r.ReadAt(t.Context(), p, 1000); err != nil || string(p) != string(data[1000:501_000]) {
		t.Fatalf("%v, or other bytes", err)
	}
	if want := []string{"bytes=1000-500999", "bytes=101000-500999", "bytes=201000-500999"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// TestSlowIsNotSilent: a body may take longer than Timeout as long as it comes.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	data := storetest.Bytes(1, 1000)
	f, _, r := stored(t, data, func(cfg *s3.Config) { cfg.Timeout = 4 * time.Second })
	f.set(func(f *fake) {
		f.before = f.instead(nil, 1, func(w http.ResponseWriter, _ *http.Request) {
			for i := 1; i < 1000; i += 111 {
				time.Sleep(600 * time.Millisecond)
				_, _ = w.Write(data[i:min(i+111, 1000)])
				_ = http.NewResponseController(w).Flush()
			}
		})
	})
	if err := blocktest.Equal(t.Context(), r, data); err != nil {
		t.Error(err)
	}
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestLargeRead: what is larger than a span comes in several ranges.
func TestLargeRead(t *testing.T) {
	data := storetest.Bytes(1, 40*mib+17)
	f, _, r := stored(t, data, nil)
	if err := blocktest.Equal(t.Context(), r, data); err != nil {
		t.Error(err)
	}
	if n := len(f.requests()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	f.set(func(f *fake) { f.before = on("GET", "", says(403, "AccessDenied")) })
	if err := r.ReadAt(t.Context(), make([]byte, 20*mib), 0); err == nil || !strings.Contains(err.Error(), "does not allow") {
		t.Errorf("a read that is not allowed = %v", err)
	}
}

// TestReadCancelled ends at once, whatever the server does.
func TestReadCancelled(t *testing.T) {
	f, _, r := stored(t, storetest.Bytes(1, 1000), nil)
	wait := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	header := func(w http.ResponseWriter, r *http.Request) bool { wait(w, r); return true }
	for name, fault := range map[string]fault{"header": header, "body": f.instead(nil, 5, wait)} {
		f.set(func(f *fake) { f.before = fault })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		err := r.ReadAt(ctx, make([]byte, 10), 0)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > f.config().Timeout/2 {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
}

// TestObjectChanges: a reader never mixes two objects.
func TestObjectChanges(t *testing.T) {
	for _, ignores := range [][]string{nil, {"if-match on get"}} {
		f := newFake(t, ignores...)
		s := f.open()
		for name, c := range map[string]struct {
			change func(f *fake)
			want   error
		}{
			"replaced":          {func(f *fake) { f.objects["k"] = newThing(storetest.Bytes(3, 1000), nil) }, syscall.ESTALE},
			"replaced, shorter": {func(f *fake) { f.objects["k"] = newThing(storetest.Bytes(3, 10), nil) }, syscall.ESTALE},
			"gone since":        {func(f *fake) { delete(f.objects, "k") }, fs.ErrNotExist},
		} {
			if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 1000)); err != nil {
				t.Fatal(err)
			}
			r, err := s.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			f.set(c.change)
			f.requests()
			err = r.ReadAt(t.Context(), make([]byte, 100), 500)
			said, _, _ := strings.Cut(name, ",")
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), said) || len(f.requests()) != 1 {
				t.Errorf("%s, ignoring %q: %v", name, ignores, err)
			}
			if err := s.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestBucketGone is not taken for an object that is gone.
func TestBucketGone(t *testing.T) {
	f, s, r := stored(t, storetest.Bytes(1, 1000), nil)
	f.set(func(f *fake) {
		f.before = func(w http.ResponseWriter, r *http.Request) bool { return says(404, "NoSuchBucket")(w, r) }
	})
	_, err := s.Open(t.Context(), "k")
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no bucket") {
		t.Errorf("Open = %v", err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 10), 0); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadAt = %v", err)
	}
	if err := s.Delete(t.Context(), "k"); err == nil {
		t.Error("Delete worked")
	}
}

// TestNoSpace: each way of saying full is ENOSPC, at once, and leaves nothing.
func TestNoSpace(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
	}{{507, "XMinioStorageFull"}, {403, "QuotaExceeded"}, {400, "XMinioAdminBucketQuotaExceeded"}, {507, "Whatever"}} {
		for where, full := range map[string]fault{"put": on("PUT", "", says(c.status, c.code)), "part": parts(says(c.status, c.code)), "complete": on("POST", "uploadId", says(c.status, c.code))} {
			f := newFake(t)
			s := f.open()
			f.set(func(f *fake) { f.before = full })
			n := 11 * mib
			if where == "put" {
				n = 100
			}
			if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, n)); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%d %s of a %s = %v", c.status, c.code, where, err)
			}
			if len(f.names()) > 0 || f.unfinished() > 0 {
				t.Errorf("after %s: %q and %d uploads are left", where, f.names(), f.unfinished())
			}
		}
	}
}
