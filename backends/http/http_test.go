package http_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	web "github.com/seed-478a8fee/platter/backends/http"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// serve starts a server.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// file serves data with ranges, under an ETag.
func file(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// flat serves data without ranges.
func flat(data []byte, etag string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if etag != "" {
			w.Header().Set("Etag", etag)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}
}

// open opens a store whose base is a local server.
func open(t *testing.T, base string, change func(*web.Config)) *web.Store {
	t.Helper()
	cfg := web.Config{Base: base, AllowPrivate: true, SpoolDir: t.TempDir(), Timeout: time.Minute}
	if change != nil {
		change(&cfg)
	}
	s, err := web.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if left, err := os.ReadDir(cfg.SpoolDir); err != nil || len(left) != 0 {
			t.Errorf("the spool folder has %v, %v", left, err)
		}
	})
	return s
}

func TestReader(t *testing.T) {
	for _, n := range []int{0, 1, 200_001, 20 << 20} {
		data := storetest.Bytes(1, n)
		for name, h := range map[string]http.HandlerFunc{
			"ranges":    file(data),
			"no ranges": flat(data, `"one"`),
			"unknown version": func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			},
			"last modified": func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(data))
			},
			"weak version": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", `W/"one"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			},
			"unknown length": func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Transfer-Encoding", "identity")
				for rest := data; len(rest) > 0; rest = rest[min(len(rest), 100_000):] {
					w.Write(rest[:min(len(rest), 100_000)])
					w.(http.Flusher).Flush()
				}
			},
			"chunks": func(w http.ResponseWriter, _ *http.Request) {
				w.(http.Flusher).Flush()
				w.Write(data)
			},
			"unknown total": func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" || n == 0 {
					flat(data, "")(w, r)
					return
				}
				w.Header().Set("Content-Range", "bytes 0-0/*")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(data[:1])
			},
			"no HEAD": func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return
				}
				file(data)(w, r)
			},
		} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				s := open(t, serve(t, h)+"/images/", nil)
				r, err := s.Open(t.Context(), "a/b.img")
				if err != nil {
					t.Fatal(err)
				}
				if n < 1<<20 {
					blocktest.TestReader(t, r, data)
				} else if err := blocktest.Equal(t.Context(), r, data); err != nil {
					t.Error(err)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if err := r.ReadAt(t.Context(), nil, 0); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("a read after Close = %v", err)
				}
			})
		}
	}
}

// TestTroubles: answers that are not what was asked for give no bytes.
func TestTroubles(t *testing.T) {
	data := storetest.Bytes(1, 100_000)
	answer := func(status int, body []byte, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"one"`)
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		once bool // then all is well
		want error
	}{
		"dropped":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true, nil},
		"500":              {answer(500, nil), true, nil},
		"429":              {answer(429, nil), true, nil},
		"cut":              {answer(206, data[10:50], "Content-Range", "bytes 10-99/100000", "Content-Length", "90"), true, nil},
		"whole":            {answer(200, data), false, errAny},
		"whole, other":     {answer(200, data, "Etag", `"two"`), false, syscall.ESTALE},
		"other range":      {answer(206, data[11:101], "Content-Range", "bytes 11-100/100000"), false, errAny},
		"short range":      {answer(206, data[10:99], "Content-Range", "bytes 10-98/100000"), false, errAny},
		"too long":         {answer(206, data[10:101], "Content-Range", "bytes 10-99/100000", "Content-Length", "91"), false, errAny},
		"no range":         {answer(206, data[10:100]), false, errAny},
		"odd range":        {answer(206, data[10:100], "Content-Range", "bytes ten-99/100000"), false, errAny},
		"other version":    {answer(206, data[10:100], "Content-Range", "bytes 10-99/100000", "Etag", `"two"`), false, syscall.ESTALE},
		"other length":     {answer(206, data[10:100], "Content-Range", "bytes 10-99/100001"), false, syscall.ESTALE},
		"too short now":    {answer(416, nil, "Content-Range", "bytes */5"), false, errAny},
		"gone":             {answer(404, nil), false, fs.ErrNotExist},
		"gone for good":    {answer(410, nil), false, fs.ErrNotExist},
		"refused":          {answer(403, nil), false, errAny},
		"coded":            {answer(206, data[10:100], "Content-Range", "bytes 10-99/100000", "Content-Encoding", "gzip"), false, errAny},
		"several ranges":   {answer(206, data[10:100], "Content-Type", "multipart/byteranges; boundary=x"), false, errAny},
		"redirect nowhere": {answer(302, nil), false, errAny},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			var met atomic.Int64
			s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				if armed.Load() && !(c.once && met.Add(1) > 1) {
					c.h(w, r)
					return
				}
				file(data)(w, r)
			}), nil)
			o, err := s.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			armed.Store(true)
			p := make([]byte, 90)
			err = o.ReadAt(t.Context(), p, 10)
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

// TestChanged: an object that is replaced while it is read is never mixed.
func TestChanged(t *testing.T) {
	one, two := storetest.Bytes(1, 100_000), storetest.Bytes(3, 100_000)
	var now atomic.Pointer[[]byte]
	var date atomic.Int64
	for name, h := range map[string]http.HandlerFunc{
		"by ETag": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", fmt.Sprintf(`"%d"`, date.Load()))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(*now.Load()))
		},
		"by weak ETag": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", fmt.Sprintf(`W/"%d"`, date.Load()))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(*now.Load()))
		},
		"by date": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Unix(date.Load(), 0), bytes.NewReader(*now.Load()))
		},
	} {
		now.Store(&one)
		date.Store(1e9)
		s := open(t, serve(t, h), nil)
		o, err := s.Open(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if err := blocktest.Equal(t.Context(), o, one); err != nil {
			t.Error(err)
		}
		now.Store(&two)
		date.Store(1e9 + 1)
		if err := o.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("%s: a read after it was replaced = %v", name, err)
		}
	}
}

func TestSilence(t *testing.T) {
	var hang atomic.Bool
	end := make(chan struct{})
	s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if hang.Load() {
			select {
			case <-end:
			case <-r.Context().Done():
			}
			return
		}
		file(storetest.Bytes(1, 1000))(w, r)
	}), nil)
	defer close(end)
	o, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	s.Impatient(50 * time.Millisecond)
	hang.Store(true)
	if err := o.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server = %v", err)
	}
	if _, err := s.Open(t.Context(), "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server = %v", err)
	}
}

// TestRedirects: they are followed by the rules for every address.
func TestRedirects(t *testing.T) {
	data := storetest.Bytes(1, 1000)
	other := serve(t, file(data))
	var mu sync.Mutex
	expired := map[string]bool{}
	ticket := 0
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/loop": "/loop", "/file": "file:///etc/passwd", "/out": other + "/x", "/relative": "good", "/gopher": "gopher://x/", "/none": "",
			"/user": "http://a:b@" + strings.TrimPrefix(other, "http://") + "/x",
		}
		if location, ok := to[r.URL.Path]; ok {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/ticket" {
			ticket++
			http.Redirect(w, r, fmt.Sprintf("/signed?%d", ticket), http.StatusTemporaryRedirect)
			return
		}
		if expired[r.URL.RawQuery] {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		file(data)(w, r)
	})
	s := open(t, base, nil)
	for key, want := range map[string]error{
		"loop": errAny, "file": errAny, "out": fs.ErrPermission, "relative": nil, "gopher": errAny, "none": errAny, "user": errAny, "ticket": nil,
	} {
		o, err := s.Open(t.Context(), key)
		if err == nil {
			o.Close()
		}
		if (err == nil) != (want == nil) || want != errAny && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", key, err, want)
		}
	}
	allowing := open(t, base, func(c *web.Config) { c.Allow = []string{strings.TrimPrefix(other, "http://")} })
	if err := storetest.Want(t.Context(), allowing, "out", data); err != nil {
		t.Error(err)
	}
	o, err := s.Open(t.Context(), "ticket")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	mu.Lock()
	before := ticket
	mu.Unlock()
	for range 3 {
		if err := blocktest.Equal(t.Context(), o, data); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	if ticket != before {
		t.Errorf("%d redirects for reads of one object", ticket-before)
	}
	expired[fmt.Sprint(ticket)] = true
	mu.Unlock()
	if err := blocktest.Equal(t.Context(), o, data); err != nil {
		t.Errorf("after the redirect had expired: %v", err)
	}
}

// TestGate: what a stranger must not reach is not asked.
func TestGate(t *testing.T) {
	asked := 0
	local := serve(t, func(w http.ResponseWriter, r *http.Request) { asked++; file([]byte("secret"))(w, r) })
	port := local[strings.LastIndex(local, ":")+1:]
	names := func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "inside.example":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		case "mapped.example":
			return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, nil
		}
		return nil, fmt.Errorf("no such host %s", host)
	}
	cfg := web.Config{Allow: []string{"*"}, Resolve: names, Timeout: time.Minute}
	s, err := web.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"0.0.0.0", "[::]", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "[fe80::1]", "[fe80::1%25lo]", "[fd00:ec2::254]",
		"100.64.0.1", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[ff02::1]",
		"inside.example", "mapped.example",
	} {
		key, err := web.URLKey("http://" + host + ":" + port + "/x")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if _, err := s.Open(t.Context(), key); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want fs.ErrPermission", host, err)
		}
	}
	if asked != 0 {
		t.Errorf("%d requests reached the server", asked)
	}
	cfg.AllowPrivate = true
	cfg.Allow = []string{"inside.example:" + port}
	within, err := web.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer within.Close()
	for url, want := range map[string]error{
		"http://inside.example:" + port + "/x": nil,
		"http://INSIDE.example:" + port + "/x": nil,
		"http://inside.example/x":              fs.ErrPermission,
		local + "/x":                           fs.ErrPermission,
	} {
		key, err := web.URLKey(url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := within.Open(t.Context(), key); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
		if got := backends.URI(within, key); got != url {
			t.Errorf("URI = %s, want %s", got, url)
		}
	}
}

func TestKeys(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://a.example/" + strings.Repeat("x", 169): true, "https://a.example/" + strings.Repeat("x", 170): false,
		"http://a.example:81/x?token=1": true, "ftp://a.example/": false, "file:///etc/passwd": false, "http://u:p@a.example/": false,
		"http:///x": false, "http:x": false, "//a.example/x": false, "": false, "http://%zz/": false,
	} {
		key, err := web.URLKey(url)
		if ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %q, %v", url, key, err)
		}
		if err == nil && backends.CheckKey(key) != nil {
			t.Errorf("%s: %q is no key", url, key)
		}
	}
	s := open(t, "http://a.example/images", nil)
	if got, want := backends.URI(s, "x/y.raw"), "http://a.example/images/x/y.raw"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
	for _, key := range []string{"", "../x", "/x", "a//b", "_url/====", "_url/aHR0cA", "_url/ZmlsZTovLy9ldGMvcGFzc3dk"} {
		if r, err := s.Open(t.Context(), key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v %v", key, r, err)
		}
	}
	if _, err := s.Create(t.Context(), "k", 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Create = %v", err)
	}
	if err := s.Delete(t.Context(), "k"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Delete = %v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  web.Config
		want string
	}{
		"nothing":       {web.Config{}, "neither endpoint nor allow"},
		"no URL":        {web.Config{Base: "mirror"}, "endpoint is not"},
		"password":      {web.Config{Base: "http://u:s3cret@mirror/"}, "endpoint is not"},
		"query":         {web.Config{Base: "http://mirror/?x"}, "endpoint is not"},
		"odd allowance": {web.Config{Allow: []string{"http://mirror/"}}, "is no HOST"},
		"no CA":         {web.Config{Base: "https://mirror/", CAFile: "/nothing"}, "certificates to trust"},
	} {
		_, err := web.Open(c.cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestSpoolShared: an object without ranges is fetched once for all.
func TestSpoolShared(t *testing.T) {
	data := storetest.Bytes(1, 3<<20)
	var sent atomic.Int64
	s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"one"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 64<<10):] {
			n, err := w.Write(rest[:min(len(rest), 64<<10)])
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}), nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := storetest.Want(t.Context(), s, "k", data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := storetest.Want(t.Context(), s, "k", data); err != nil { // nobody used it meanwhile
		t.Error(err)
	}
	// Each look begins an answer, of which a little is on its way when it ends.
	if n := sent.Load(); n > 9*int64(len(data)) {
		t.Errorf("%d bytes were sent for an object of %d", n, len(data))
	}
}

// TestSpoolWaits: what is there can be read before all is.
func TestSpoolWaits(t *testing.T) {
	data := storetest.Bytes(1, 1<<20)
	goOn := make(chan struct{})
	s := open(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"one"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:500_000])
		w.(http.Flusher).Flush()
		<-goOn
		w.Write(data[500_000:])
	}), nil)
	o, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, 1000)
	if err := o.ReadAt(t.Context(), p, 400_000); err != nil || !bytes.Equal(p, data[400_000:401_000]) {
		t.Errorf("other bytes, or %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := o.ReadAt(short, p, 900_000); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "of 1048576 bytes are there") {
		t.Errorf("a read of what is not there yet = %v", err)
	}
	close(goOn)
	if err := blocktest.Equal(t.Context(), o, data); err != nil {
		t.Error(err)
	}
}

// TestSpoolBreaks: a fetch that breaks off is begun again, and notices if the
// object is another one then.
func TestSpoolBreaks(t *testing.T) {
	one, two := storetest.Bytes(1, 1<<20), storetest.Bytes(3, 1<<20)
	for name, c := range map[string]struct {
		etags  [2]string
		chunks bool
		second []byte
		want   error
	}{
		"again":              {[2]string{`"1"`, `"1"`}, false, one, nil},
		"again, in chunks":   {[2]string{`"1"`, `"1"`}, true, one, nil},
		"replaced":           {[2]string{`"1"`, `"2"`}, false, two, syscall.ESTALE},
		"replaced in secret": {[2]string{"", ""}, false, two, syscall.ESTALE},
		"grown":              {[2]string{"", ""}, false, append(bytes.Clone(one), 1), syscall.ESTALE},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				second := asked.Add(1) > 1
				data, etag := one, c.etags[0]
				if second {
					data, etag = c.second, c.etags[1]
				}
				if etag != "" {
					w.Header().Set("Etag", etag)
				}
				if !c.chunks {
					w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				}
				if second {
					w.Write(data)
					return
				}
				w.Write(data[:400_000])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}), nil)
			err := storetest.Want(t.Context(), s, "k", one)
			if (err == nil) != (c.want == nil) || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestSpoolBound: spools that nobody uses make room, and what does not fit is
// refused.
func TestSpoolBound(t *testing.T) {
	for name, announce := range map[string]bool{"announced": true, "unannounced": false} {
		t.Run(name, func(t *testing.T) {
			s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
				n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
				if err != nil {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				w.Header().Set("Etag", r.URL.Path)
				if announce {
					w.Header().Set("Content-Length", strconv.Itoa(n))
				} else {
					w.(http.Flusher).Flush()
				}
				io.CopyN(w, zeros{}, int64(n))
			}), func(c *web.Config) { c.SpoolSize = 1 << 20 })
			want := func(n int) error { return storetest.Want(t.Context(), s, strconv.Itoa(n), make([]byte, n)) }
			for _, n := range []int{700_000, 600_000, 700_001, 1 << 20} { // no two fit
				if err := want(n); err != nil {
					t.Error(err)
				}
			}
			if err := want(1<<20 + 1); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("an object that is too large = %v", err)
			}
			used, err := s.Open(t.Context(), "700000")
			if err != nil {
				t.Fatal(err)
			}
			if err := want(600_000); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("beside a spool that is used = %v", err)
			}
			used.Close()
			if err := want(600_000); err != nil {
				t.Errorf("after it: %v", err)
			}
		})
	}
	full := open(t, serve(t, flat(make([]byte, 1000), "")), func(c *web.Config) { c.Guard = noSpace{} })
	o, err := full.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type noSpace struct{}

func (noSpace) Take(int64) error { return syscall.ENOSPC }

// TestClose ends a fetch that would never end.
func TestClose(t *testing.T) {
	s := open(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000000")
		for r.Context().Err() == nil {
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	}), nil)
	var o block.ReadCloser
	o, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.ReadAt(t.Context(), make([]byte, 1000), 0); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := o.ReadAt(t.Context(), make([]byte, 10), 999_999_000); err == nil {
		t.Error("a read of what will never be there worked")
	}
	o.Close()
	if _, err := s.Open(t.Context(), "k"); err == nil {
		t.Error("a fetch after Close began")
	}
}

func BenchmarkReader(b *testing.B) {
	data := storetest.Bytes(1, 32<<20)
	server := httptest.NewServer(file(data))
	defer server.Close()
	s, err := web.Open(web.Config{Base: server.URL, AllowPrivate: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	o, err := s.Open(b.Context(), "k")
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	blocktest.Benchmark(b, o)
}
