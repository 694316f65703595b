package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// sizes are objects that go out in one piece and in three parts.
var sizes = map[string]int{"put": 1000, "parts": 11 * mib}

// appears are the requests that make an object appear.
func appears(n int, f fault) fault {
	if n > 5*mib {
		return on("POST", "uploadId", f)
	}
	return on("PUT", "", f)
}

// TestWriteTrouble: what passes is survived, and the object is right.
func TestWriteTrouble(t *testing.T) {
	for name, bad := range map[string]fault{
		"500":      says(500, "InternalError"),
		"503":      says(503, "SlowDown"),
		"409":      says(409, "ConditionalRequestConflict"),
		"broken":   says(400, "BadDigest"),
		"too slow": says(400, "RequestTimeout"),
		"hang up":  hangUp,
		"not read": silent,
		"read, silent": func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			return silent(w, r)
		},
	} {
		for what, n := range sizes {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				patient, cfg := f.open(), f.config() // a machine that is busy is silent, too
				if strings.Contains(name, "read") {
					cfg.Timeout = briefly
				}
				s := f.openWith(cfg)
				f.set(func(f *fake) {
					f.before = either(times(2, parts(bad)), times(2, appears(n, bad)), times(1, on("POST", "uploads", bad)))
				})
				data := storetest.Bytes(1, n)
				if err := storetest.Put(t.Context(), s, "k", int64(n), data); err != nil {
					t.Fatal(err)
				}
				if err := storetest.Want(t.Context(), patient, "k", data); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func either(faults ...fault) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		for _, f := range faults {
			if f(w, r) {
				return true
			}
		}
		return false
	}
}

// TestWriteTroubleThatLasts ends with an error when Retry is over, and Abort
// cleans up as soon as the server lets it.
func TestWriteTroubleThatLasts(t *testing.T) {
	for what, n := range sizes {
		for name, bad := range map[string]fault{"500": says(500, "InternalError"), "hang up": hangUp, "denied": says(403, "AccessDenied")} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				f := newFake(t)
				cfg := f.config()
				cfg.Retry = 200 * time.Millisecond
				s := f.openWith(cfg)
				f.set(func(f *fake) { f.before = on("PUT", "", bad) })
				began := time.Now()
				err := storetest.Put(t.Context(), s, "k", int64(n), storetest.Bytes(1, n))
				if err == nil || errors.Is(err, fs.ErrClosed) || errors.Is(err, context.Canceled) || time.Since(began) > 30*time.Second {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				if len(f.names()) > 0 || f.unfinished() > 0 {
					t.Errorf("%q and %d uploads are left", f.names(), f.unfinished())
				}
			})
		}
	}
}

// TestLostAnswer: the server did it, and nobody heard so.
func TestLostAnswer(t *testing.T) {
	for what, n := range sizes {
		for _, ignores := range [][]string{nil, {"if-none-match on put", "if-none-match on complete"}} {
			f := newFake(t, ignores...)
			s := f.open()
			f.set(func(f *fake) { f.after = times(1, appears(n, hangUp)) })
			data := storetest.Bytes(1, n)
			if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
				t.Errorf("%s, ignoring %q: %v", what, ignores, err)
			}
			if err := storetest.Want(t.Context(), s, "k", data); err != nil {
				t.Error(err)
			}
			if f.unfinished() > 0 {
				t.Errorf("%d uploads are left", f.unfinished())
			}
		}
	}
}

// TestLostStart: an upload whose id nobody heard of is freed.
func TestLostStart(t *testing.T) {
	for _, commit := range []bool{true, false} {
		f := newFake(t)
		s := f.open()
		f.set(func(f *fake) { f.after = times(2, on("POST", "uploads", hangUp)) })
		w, err := s.Create(t.Context(), "k", -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 11*mib)); err != nil {
			t.Fatal(err)
		}
		if f.unfinished() != 3 {
			t.Fatalf("%d uploads, the test wants 3", f.unfinished())
		}
		if commit {
			err = w.Commit(t.Context())
		}
		w.Abort()
		if err != nil || f.unfinished() > 0 {
			t.Errorf("commit %v: %v, %d uploads are left", commit, err, f.unfinished())
		}
	}
}

// TestPromised: a server that says that it made the object before it has.
func TestPromised(t *testing.T) {
	f := newFake(t)
	s := f.open()
	hidden := func(f *fake) {
		f.objects["hidden"] = f.objects["k"]
		delete(f.objects, "k")
	}
	appears := func(f *fake) { f.objects["k"] = f.objects["hidden"] }
	late := func(http.ResponseWriter, *http.Request) bool {
		f.set(hidden)
		time.AfterFunc(300*time.Millisecond, func() { f.set(appears) })
		return false
	}
	f.set(func(f *fake) { f.after = on("POST", "uploadId", late) })
	if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, 11*mib)); err != nil {
		t.Errorf("late: %v", err)
	}
	cfg := f.config()
	cfg.Prefix, cfg.Retry = "impatient/", 500*time.Millisecond
	s, err := s3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	never := func(http.ResponseWriter, *http.Request) bool {
		f.set(func(f *fake) { delete(f.objects, "impatient/k") })
		return false
	}
	f.set(func(f *fake) { f.after = on("POST", "uploadId", never) })
	if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, 11*mib)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("never: %v", err)
	}
}

// TestLostAnswerOfTheLoser: of two writers, the one whose answer was lost does
// not take the other's object for its own.
func TestLostAnswerOfTheLoser(t *testing.T) {
	for what, n := range sizes {
		for _, ignores := range [][]string{nil, {"if-none-match on complete"}} {
			f := newFake(t, ignores...)
			s := f.open()
			w, err := s.Create(t.Context(), "k", -1)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			if _, err := w.Write(storetest.Bytes(1, n)); err != nil {
				t.Fatal(err)
			}
			// Their object comes while our request is on its way, and has the
			// same bytes.
			f.set(func(f *fake) {
				f.before = times(1, appears(n, func(w http.ResponseWriter, _ *http.Request) bool {
					f.set(func(f *fake) { f.objects["k"] = newThing(storetest.Bytes(1, n), nil) })
					cut(w)
					return true
				}))
				f.ignores["if-none-match on complete"] = false
			})
			if err := w.Commit(t.Context()); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s, ignoring %q: %v", what, ignores, err)
			}
			w.Abort()
			if got := f.names(); len(got) != 1 || f.unfinished() > 0 {
				t.Errorf("%q and %d uploads are left, want theirs", got, f.unfinished())
			}
		}
	}
}

// TestCommitCancelled: what appeared after all goes with Abort.
func TestCommitCancelled(t *testing.T) {
	for what, n := range sizes {
		f := newFake(t)
		s := f.open()
		w, err := s.Create(t.Context(), "k", -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(storetest.Bytes(1, n)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f.set(func(f *fake) {
			f.after = appears(n, func(http.ResponseWriter, *http.Request) bool {
				cancel()
				time.Sleep(20 * time.Millisecond)
				return false
			})
		})
		if err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		if len(f.names()) != 1 {
			t.Fatalf("%s: the test's own object is not there", what)
		}
		w.Abort()
		if len(f.names()) > 0 || f.unfinished() > 0 {
			t.Errorf("%s: %q and %d uploads are left", what, f.names(), f.unfinished())
		}
	}
}

// TestMangled: a server that assembles something else is found out.
func TestMangled(t *testing.T) {
	f := newFake(t)
	s := f.open()
	f.set(func(f *fake) {
		f.after = on("POST", "uploadId", func(http.ResponseWriter, *http.Request) bool {
			f.set(func(f *fake) {
				o := f.objects["k"]
				o.data = o.data[:len(o.data)-1]
				f.objects["k"] = o
			})
			return false
		})
	})
	if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, 11*mib)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a byte is missing: %v", err)
	}
	if len(f.names()) > 0 {
		t.Error("it is still there")
	}
}

// TestNothingIsLeftRunning counts goroutines after all kinds of endings.
func TestNothingIsLeftRunning(t *testing.T) {
	f := newFake(t)
	before := runtime.NumGoroutine()
	s := f.openWith(f.config())
	for i := range 3 {
		w, err := s.Create(t.Context(), "k", -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 21*mib)); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			err = w.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Abort()
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 20*mib), 5); err != nil {
		t.Fatal(err)
	}
	r.Close()
	s.Close()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestCopy(t *testing.T) {
	data := storetest.Bytes(2, 12*mib)
	f := newFake(t)
	from, to := f.open(), f.openWith(prefixed(f))
	if err := storetest.Put(t.Context(), from, "a", -1, data); err != nil {
		t.Fatal(err)
	}
	copied := func(key string) {
		t.Helper()
		f.requests()
		if err := backends.Copy(t.Context(), to, key, from, "a", nil); err != nil {
			t.Fatal(err)
		}
		for _, r := range f.requests() {
			if strings.HasPrefix(r, "GET") {
				t.Errorf("%s was read here: %s", key, r)
			}
		}
		if err := storetest.Want(t.Context(), to, key, data); err != nil {
			t.Error(err)
		}
	}
	copied("whole")
	to.CopyBy(5*mib, 5*mib)
	copied("parts")
	f.set(func(f *fake) { f.after = times(1, on("PUT", "", hangUp)) })
	copied("lost-part")
	f.set(func(f *fake) { f.after = times(1, on("POST", "uploadId", hangUp)) })
	copied("lost-answer")

	if err := to.CopyFrom(t.Context(), "whole", from, "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("to a taken key: %v", err)
	}
	if err := to.CopyFrom(t.Context(), "new", from, "b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	f.set(func(f *fake) { f.before = on("PUT", "", says(507, "XMinioStorageFull")) })
	if err := to.CopyFrom(t.Context(), "new", from, "a"); err == nil || f.unfinished() > 0 {
		t.Errorf("into a full bucket: %v, %d uploads are left", err, f.unfinished())
	}
}

func TestCopyIsUnsupported(t *testing.T) {
	f, cannot := newFake(t), newFake(t, "copy")
	a, b := f.open(), cannot.open()
	for _, s := range []backends.Store{a, b} {
		if err := storetest.Put(t.Context(), s, "a", -1, []byte("bytes")); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{
		"other server": a.CopyFrom(t.Context(), "b", b, "a"),
		"cannot":       b.CopyFrom(t.Context(), "b", b, "a"),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := backends.Copy(t.Context(), a, "b", b, "a", nil); err != nil || !bytes.Equal(f.objects["b"].data, []byte("bytes")) {
		t.Errorf("through here: %v", err)
	}
}
