package swift_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/swift"
)

// small makes segments of 64 KiB.
func small(c *swift.Config) { c.SegmentSize = 64 << 10 }

func static(c *swift.Config) { c.SegmentSize, c.Static = 64<<10, true }

// setUps are the kinds of server and layout.
func setUps() map[string]struct {
	deaf   bool
	change func(*swift.Config)
} {
	return map[string]struct {
		deaf   bool
		change func(*swift.Config)
	}{
		"one piece":               {false, nil},
		"dynamic":                 {false, small},
		"static":                  {false, static},
		"deaf server":             {true, nil},
		"dynamic, deaf server":    {true, small},
		"with a prefix and spool": {false, func(c *swift.Config) { c.Prefix, c.SegmentSize = "a/b-", 1<<20 }},
	}
}

func TestStore(t *testing.T) {
	for name, c := range setUps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Far(t, func(t *testing.T) backends.Store {
				f := newFake(t)
				f.deaf = c.deaf
				return f.open(t, c.change)
			})
		})
	}
}

// TestNothingIsLeft: a deleted object leaves nothing, a probe neither, nor an
// upload that was aborted.
func TestNothingIsLeft(t *testing.T) {
	for name, c := range setUps() {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.deaf = c.deaf
			s := f.open(t, c.change)
			if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 3<<20)); err != nil {
				t.Fatal(err)
			}
			if err := s.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			w, err := s.Create(t.Context(), "k", -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(storetest.Bytes(1, 3<<20)); err != nil {
				t.Fatal(err)
			}
			w.Abort()
			gone(t, f, s, "k")
		})
	}
}

// gone wants nothing to be left of an upload that has ended. A segment that was
// on its way may come after all has been cleared up; it goes with its key.
func gone(t *testing.T, f *fake, s *swift.Store, key string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(f.names()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left: %v", f.names())
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLayout(t *testing.T) {
	f := newFake(t)
	s := f.open(t, small)
	data := storetest.Bytes(1, 150_000)
	if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	want := []string{"images/k", "images/k-00001", "images/k-00002", "images/k-00003"}
	if got := f.names(); !slices.Equal(got, want) {
		t.Errorf("names are %v, want %v", got, want)
	}
	if got := f.objects["images/k"].header.Get("X-Object-Manifest"); got != "images/k-" {
		t.Errorf("the manifest is of %q", got)
	}
	asked := len(f.requests)
	if err := storetest.Want(t.Context(), s, "k", data); err != nil {
		t.Fatal(err)
	}
	// One look at the manifest; the segments are read themselves.
	if n := f.seen("GET /v1/AUTH_a/images/k "); n != 0 {
		t.Errorf("%d reads through the manifest", n)
	}
	if n := f.seen("format=json"); n != 0 {
		t.Errorf("%d listings to read an object of ours", n)
	}
	if f.requests[asked] != "HEAD /v1/AUTH_a/images/k " || !strings.HasPrefix(f.requests[asked+1], "GET /v1/AUTH_a/images/k-0000") {
		t.Errorf("asked for %v", f.requests[asked:])
	}
}

// TestForeign reads and deletes manifests that others wrote.
func TestForeign(t *testing.T) {
	data := storetest.Bytes(1, 1000)
	segment := func(p []byte) *thing { return &thing{data: p, header: http.Header{}} }
	slo := func(parts ...string) *thing {
		return &thing{data: []byte("[" + strings.Join(parts, ",") + "]"), header: http.Header{"X-Static-Large-Object": {"True"}}}
	}
	dlo := func(prefix string) *thing { return &thing{header: http.Header{"X-Object-Manifest": {prefix}}} }
	part := func(name string, p []byte) string {
		return fmt.Sprintf(`{"path":"/%s","etag":"%s","size_bytes":%d}`, name, sumOf(p), len(p))
	}
	for name, c := range map[string]struct {
		deaf    bool
		objects map[string]*thing
		left    []string
		through bool // the manifest
	}{
		"Glance's": {objects: map[string]*thing{
			"images/k": dlo("images/k-"), "images/k-00001": segment(data[:400]), "images/k-00002": segment(data[400:]), "images/l": segment(data)},
			left: []string{"images/l"}},
		"many pages": {objects: map[string]*thing{
			"images/k": dlo("images/k-"), "images/k-1": segment(data[:1]), "images/k-2": segment(data[1:2]), "images/k-3": segment(data[2:400]),
			"images/k-4": segment(data[400:401]), "images/k-5": segment(nil), "images/k-6": segment(data[401:402]), "images/k-7": segment(data[402:])}},
		"in another container": {objects: map[string]*thing{"parts/": {}, "parts/other": segment(data),
			"images/k": dlo("parts/k/1/%30"), "parts/k/1/00": segment(data[:400]), "parts/k/1/01": segment(data[400:])},
			left: []string{"parts/other"}},
		"with the names of others": {objects: map[string]*thing{
			"images/k": dlo("images/other"), "images/other1": segment(data[:400]), "images/other2": segment(data[400:])},
			left: []string{"images/other1", "images/other2"}},
		"static": {objects: map[string]*thing{"parts/": {},
			"images/k": slo(part("parts/a", data[:400]), part("parts/b", data[400:])), "parts/a": segment(data[:400]), "parts/b": segment(data[400:])}},
		"static, unusual": {through: true, objects: map[string]*thing{"parts/": {},
			"images/k": slo(part("parts/a", data[:400]), part("parts/b", data[400:]), part("parts/c", nil)),
			"parts/a":  segment(data[:400]), "parts/b": segment(data[400:]), "parts/c": segment(nil)}},
		"static, not told": {deaf: true, through: true, objects: map[string]*thing{"parts/": {},
			"images/k": slo(part("parts/a", data[:400]), part("parts/b", data[400:])), "parts/a": segment(data[:400]), "parts/b": segment(data[400:])},
			left: []string{"parts/a", "parts/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.deaf = c.deaf
			for name, o := range c.objects {
				f.objects[name] = o
			}
			s := f.open(t, nil)
			r, err := s.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := blocktest.Equal(t.Context(), r, data); err != nil {
				t.Error(err)
			}
			for _, cut := range [][2]int{{0, 1}, {399, 401}, {400, 1000}, {999, 1000}} {
				p := make([]byte, cut[1]-cut[0])
				if err := r.ReadAt(t.Context(), p, int64(cut[0])); err != nil || !bytes.Equal(p, data[cut[0]:cut[1]]) {
					t.Errorf("bytes %v: others, or %v", cut, err)
				}
			}
			if through := f.seen("GET /v1/AUTH_a/images/k bytes") > 0; through != c.through {
				t.Errorf("read through the manifest is %v, want %v", through, c.through)
			}
			if err := s.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			if got := f.names(); !slices.Equal(got, c.left) {
				t.Errorf("left: %v, want %v", got, c.left)
			}
		})
	}
}

// TestCrashed: Delete finds the segments of an upload that never got its
// manifest, and nothing else.
func TestCrashed(t *testing.T) {
	f := newFake(t)
	s := f.open(t, small)
	w, err := s.Create(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(storetest.Bytes(1, 200_000)); err != nil {
		t.Fatal(err)
	}
	for len(f.names()) < 3 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Delete(t.Context(), "k"); err != nil || len(f.names()) < 3 {
		t.Errorf("Delete while it is written: %v, left %v", err, f.names())
	}
	for _, key := range []string{"k-00009", "k-1", "k-00001x"} { // objects, not segments
		if err := storetest.Put(t.Context(), s, key, -1, storetest.Bytes(1, 10)); err != nil {
			t.Fatal(err)
		}
	}
	later := f.open(t, small)
	time.Sleep(10 * time.Millisecond)
	if err := storetest.Put(t.Context(), later, "k", -1, storetest.Bytes(1, 200_000)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an upload over the segments of another one = %v", err)
	}
	// A segment of the upload that was refused may come after its end, and goes
	// with the key.
	soon := func(ok func() error) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if err := later.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			err := ok()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	want := []string{"images/k-00001x", "images/k-00009", "images/k-1"}
	soon(func() error {
		if got := f.names(); !slices.Equal(got, want) {
			return fmt.Errorf("left: %v, want %v", got, want)
		}
		return nil
	})
	w.Abort()
	soon(func() error { return storetest.Put(t.Context(), later, "k", -1, storetest.Bytes(1, 200_000)) })
}

// drop ends the connection without a word.
func drop(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// TestLostAnswers: what a PUT without an answer has done is found out.
func TestLostAnswers(t *testing.T) {
	for name, c := range setUps() {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.deaf = c.deaf
			s := f.open(t, c.change)
			var lost sync.Map
			f.meet = func(w http.ResponseWriter, r *http.Request) bool {
				if _, known := lost.LoadOrStore(r.Method+r.URL.Path, true); known || r.Method != http.MethodPut {
					return false
				}
				f.Config.Handler.ServeHTTP(&deafWriter{header: http.Header{}}, r)
				panic(http.ErrAbortHandler)
			}
			data := storetest.Bytes(1, 2<<20)
			if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
				t.Fatal(err)
			}
			if err := storetest.Want(t.Context(), s, "k", data); err != nil {
				t.Error(err)
			}
			if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(3, 100)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("another object = %v", err)
			}
		})
	}
}

// deafWriter takes an answer that nobody gets.
type deafWriter struct{ header http.Header }

func (d *deafWriter) Header() http.Header         { return d.header }
func (d *deafWriter) Write(p []byte) (int, error) { return len(p), nil }
func (d *deafWriter) WriteHeader(int)             {}

// TestReadTroubles: answers that are not what was asked for give no bytes.
func TestReadTroubles(t *testing.T) {
	data := storetest.Bytes(1, 100_000)
	other := storetest.Bytes(3, 100_000)
	text := func(status int, header map[string]string, body []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	etag := `"` + sumOf(data) + `"`
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		once   bool // then all is well
		want   error
	}{
		"dropped":         {drop, true, nil},
		"500":             {text(500, nil, nil), true, nil},
		"503":             {text(503, nil, nil), true, nil},
		"rate limit":      {text(498, nil, nil), true, nil},
		"cut":             {text(206, map[string]string{"Content-Range": "bytes 10-99/100000", "Content-Length": "90", "Etag": etag}, data[10:50]), true, nil},
		"the whole":       {text(200, map[string]string{"Etag": etag}, data), false, errAny},
		"another range":   {text(206, map[string]string{"Content-Range": "bytes 11-100/100000", "Etag": etag}, data[11:101]), false, errAny},
		"a shorter range": {text(206, map[string]string{"Content-Range": "bytes 10-98/100000", "Etag": etag}, data[10:99]), false, errAny},
		"too much":        {text(206, map[string]string{"Content-Range": "bytes 10-99/100000", "Content-Length": "91", "Etag": etag}, data[10:101]), false, errAny},
		"no range":        {text(206, map[string]string{"Etag": etag}, data[10:100]), false, errAny},
		"another object":  {text(206, map[string]string{"Content-Range": "bytes 10-99/100000", "Etag": sumOf(other)}, other[10:100]), false, syscall.ESTALE},
		"another length":  {text(206, map[string]string{"Content-Range": "bytes 10-99/100001", "Etag": etag}, data[10:100]), false, syscall.ESTALE},
		"refused":         {text(412, nil, nil), false, syscall.ESTALE},
		"too short now":   {text(416, nil, nil), false, syscall.ESTALE},
		"gone":            {text(404, nil, nil), false, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.open(t, nil)
			if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
				t.Fatal(err)
			}
			r, err := s.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var met atomic.Int64
			f.meet = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || c.once && met.Add(1) > 1 {
					return false
				}
				c.answer(w, r)
				return true
			}
			p := make([]byte, 90)
			err = r.ReadAt(t.Context(), p, 10)
			switch {
			case c.want == nil && (err != nil || !bytes.Equal(p, data[10:100])):
				t.Errorf("other bytes, or %v", err)
			case c.want != nil && err == nil, c.want != nil && c.want != errAny && !errors.Is(err, c.want):
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

var errAny = errors.New("any error")

// TestDigest: an object that is read in one piece has the digest that it was
// stored with.
func TestDigest(t *testing.T) {
	f := newFake(t)
	s := f.open(t, nil)
	if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 1000)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sum := sumOf(f.objects["images/k"].data)
	f.meet = func(w http.ResponseWriter, r *http.Request) bool {
		rotten := bytes.Clone(f.objects["images/k"].data)
		rotten[500] ^= 1
		w.Header().Set("Etag", sum)
		w.Header().Set("Content-Range", "bytes 0-999/1000")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(rotten)
		return true
	}
	if err := r.ReadAt(t.Context(), make([]byte, 1000), 0); err == nil || !strings.Contains(err.Error(), "MD5") {
		t.Errorf("rotten bytes = %v", err)
	}
}

// TestSilence: a server that says nothing is not waited for for ever.
func TestSilence(t *testing.T) {
	f := newFake(t)
	s := f.open(t, nil)
	if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 1000)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.Impatient(50*time.Millisecond, 200*time.Millisecond)
	end := make(chan struct{})
	defer close(end)
	f.meet = func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-end:
		case <-r.Context().Done():
		}
		return true
	}
	for what, do := range map[string]func() error{
		"read":  func() error { return r.ReadAt(t.Context(), make([]byte, 10), 0) },
		"open":  func() error { _, err := s.Open(t.Context(), "k"); return err },
		"write": func() error { return storetest.Put(t.Context(), s, "l", 10, storetest.Bytes(1, 10)) },
	} {
		began := time.Now()
		if err := do(); err == nil || !strings.Contains(err.Error(), "silent") {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
}

func TestTokenExpires(t *testing.T) {
	f := newFake(t)
	s := f.open(t, small)
	data := storetest.Bytes(1, 300_000)
	f.expire()
	if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	f.expire()
	before := f.signIns
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := storetest.Want(t.Context(), s, "k", data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.signIns - before; n != 1 {
		t.Errorf("signed in %d times, want once for all", n)
	}
}

func TestFull(t *testing.T) {
	for _, status := range []int{http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage} {
		f := newFake(t)
		s := f.open(t, small)
		f.meet = func(w http.ResponseWriter, r *http.Request) bool {
			if full := strings.HasSuffix(r.URL.Path, "-00002"); !full || r.Method != http.MethodPut {
				return false
			}
			w.WriteHeader(status)
			return true
		}
		if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 300_000)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("status %d = %v", status, err)
		}
		gone(t, f, s, "k")
	}
}

func TestUsage(t *testing.T) {
	f := newFake(t)
	s := f.open(t, nil)
	if u, err := backends.UsageOf(t.Context(), s); err != nil || u != (backends.Usage{}) {
		t.Errorf("without a quota: %+v, %v", u, err)
	}
	f.objects["images/"].header = http.Header{"X-Container-Meta-Quota-Bytes": {"1000"}, "X-Container-Bytes-Used": {"400"}}
	if u, err := backends.UsageOf(t.Context(), s); err != nil || u != (backends.Usage{Total: 1000, Free: 600}) {
		t.Errorf("with a quota: %+v, %v", u, err)
	}
}

func TestCopy(t *testing.T) {
	for name, change := range map[string]func(*swift.Config){"one piece": nil, "dynamic": small, "static": static} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.objects["other/"] = &thing{}
			s := f.open(t, change)
			to := f.open(t, func(c *swift.Config) {
				if change != nil {
					change(c)
				}
				c.Container, c.Prefix = "other", "x/"
			})
			data := storetest.Bytes(1, 300_000)
			if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
				t.Fatal(err)
			}
			if err := backends.CopyInside(t.Context(), to, "l", s, "k"); err != nil {
				t.Fatal(err)
			}
			if f.seen("GET /v1/AUTH_a/images/k") != 0 {
				t.Error("the bytes went through here")
			}
			if err := s.Delete(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
			if err := storetest.Want(t.Context(), to, "l", data); err != nil {
				t.Error(err)
			}
			if err := backends.CopyInside(t.Context(), to, "l", to, "l"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a copy to a taken key = %v", err)
			}
			if err := backends.CopyInside(t.Context(), to, "m", to, "nothing"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a copy of nothing = %v", err)
			}
			if err := backends.CopyInside(t.Context(), to, "m", newFake(t).open(t, nil), "k"); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("a copy from another account = %v", err)
			}
			if err := backends.CopyInside(t.Context(), to, "m", mem.New(), "k"); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("a copy from another kind of store = %v", err)
			}
			if err := to.Delete(t.Context(), "l"); err != nil || len(f.names()) != 0 {
				t.Errorf("Delete = %v, left %v", err, f.names())
			}
		})
	}
}

func TestSpool(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	s := f.open(t, func(c *swift.Config) { c.SegmentSize, c.SpoolDir = 20<<20, dir })
	data := storetest.Bytes(1, 30<<20)
	if err := storetest.Put(t.Context(), s, "k", int64(len(data)), data); err != nil {
		t.Fatal(err)
	}
	if err := storetest.Want(t.Context(), s, "k", data); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	full := f.open(t, func(c *swift.Config) { c.SegmentSize, c.SpoolDir, c.Guard = 20<<20, dir, noSpace{} })
	if err := storetest.Put(t.Context(), full, "l", -1, data); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
}

type noSpace struct{}

func (noSpace) Take(int64) error { return syscall.ENOSPC }

func TestURI(t *testing.T) {
	f := newFake(t)
	s := f.open(t, nil)
	if got, want := backends.URI(s, "k"), "swift+"+f.URL+"/auth/v1.0/images/k"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
	s = f.open(t, func(c *swift.Config) { c.Reference, c.Prefix = "ref1", "p/" })
	if got, want := backends.URI(s, "k"), "swift+config://ref1/images/p/k"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
}

// TestOpenErrors: what is wrong is said in words that help, without the key.
func TestOpenErrors(t *testing.T) {
	f := newFake(t)
	gone := newFake(t)
	gone.Close()
	for name, c := range map[string]struct {
		change func(*swift.Config)
		want   string
	}{
		"no URL":         {func(c *swift.Config) { c.AuthURL = "keystone" }, "auth_url is not"},
		"no user":        {func(c *swift.Config) { c.User = "" }, "user or key is missing"},
		"no container":   {func(c *swift.Config) { c.Container = "a/b" }, "no name of a container"},
		"bad prefix":     {func(c *swift.Config) { c.Prefix = "../" }, "prefix"},
		"bad version":    {func(c *swift.Config) { c.AuthVersion = 4 }, "auth_version 4"},
		"long segments":  {func(c *swift.Config) { c.SegmentSize = 6 << 30 }, "segments of"},
		"CA not there":   {func(c *swift.Config) { c.CAFile = "/nothing" }, "certificates to trust"},
		"wrong key":      {func(c *swift.Config) { c.Key = "wr0ng" }, "does not take user a:u: correct user, key"},
		"nobody there":   {func(c *swift.Config) { c.AuthURL = gone.URL + "/auth/v1.0" }, "nothing listens"},
		"wrong path":     {func(c *swift.Config) { c.AuthURL, c.AuthVersion = f.URL+"/v1/AUTH_a/x", 1 }, "correct user, key"},
		"unknown bucket": {func(c *swift.Config) { c.Container = "others" }, "create it, correct container, or set create_container"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := f.config()
			cfg.Retry = 100 * time.Millisecond
			c.change(&cfg)
			_, err := swift.Open(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "wr0ng") || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the key: %v", err)
			}
		})
	}
	made := f.open(t, func(c *swift.Config) { c.Container, c.CreateContainer = "new", true })
	if err := storetest.Put(t.Context(), made, "k", -1, nil); err != nil {
		t.Error(err)
	}
	delete(f.objects, "new/")
	if _, err := made.Open(t.Context(), "k"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no container") {
		t.Errorf("in a container that is gone: %v", err)
	}
}

// TestRefusedPut: a server that refuses a body and drops the connection, as
// Swift does, spoils no later request.
func TestRefusedPut(t *testing.T) {
	f := newFake(t)
	var log bytes.Buffer
	s := f.open(t, func(c *swift.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	data := storetest.Bytes(1, 2<<20)
	for i := range 20 {
		if err := storetest.Put(t.Context(), s, fmt.Sprintf("k%d", i), -1, data); err != nil {
			t.Fatal(err)
		}
		if err := storetest.Put(t.Context(), s, fmt.Sprintf("k%d", i), int64(len(data)), data); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("a taken key = %v\n%s", err, &log)
		}
	}
}
