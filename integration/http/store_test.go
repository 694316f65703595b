//go:build integration

package http

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	client "github.com/ncw/swift/v2"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/far"
	web "github.com/seed-478a8fee/platter/backends/http"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/proxy"
	"github.com/seed-478a8fee/platter/integration/servers"
)

var (
	keeper servers.Keeper
	swift  = servers.Share(&keeper, func(t servers.TB) *servers.Swift { return servers.StartSwift(t, servers.SwiftConfig{}) })
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// A site is a web server with a folder, whose URL ends with a slash.
type site struct {
	name   string
	ranges bool
	start  func(t testing.TB) (base string, put func(name string, data []byte))
}

func sites() []site {
	return []site{{"go", true, goSite}, {"swift", true, swiftSite}, {"python", false, pythonSite}}
}

// folder returns a new folder and a function that puts files there, each
// newer than the last by a second or more: that is how finely some servers
// tell versions.
func folder(t testing.TB) (string, func(string, []byte)) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	return dir, func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		at = at.Add(2 * time.Second)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+".new", data, 0o644),
			os.Chtimes(path+".new", at, at), os.Rename(path+".new", path))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func goSite(t testing.TB) (string, func(string, []byte)) {
	dir, put := folder(t)
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL + "/", put
}

func pythonSite(t testing.TB) (string, func(string, []byte)) {
	dir, put := folder(t)
	cmd := exec.Command("/usr/bin/python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() { // the kernel's signal comes when this thread ends
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	line, err := bufio.NewReader(out).ReadString('\n')
	port := regexp.MustCompile(` port (\d+) `).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("python3 -m http.server says %q, %v", line, err)
	}
	return "http://127.0.0.1:" + port[1] + "/", put
}

func swiftSite(t testing.TB) (string, func(string, []byte)) {
	c := swift(t).Account.Connection()
	name := fmt.Sprintf("public-%d", time.Now().UnixNano())
	if err := c.ContainerCreate(t.Context(), name, client.Headers{"X-Container-Read": ".r:*"}); err != nil {
		t.Fatal(err)
	}
	target, err := c.GetStorageUrl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return target + "/" + name + "/", func(file string, data []byte) {
		t.Helper()
		if err := c.ObjectPutBytes(t.Context(), name, file, data, "application/octet-stream"); err != nil {
			t.Fatal(err)
		}
	}
}

// open opens a store of a server at loopback.
func open(t testing.TB, base string) *web.Store {
	t.Helper()
	s, err := web.Open(web.Config{Base: base, AllowPrivate: true, SpoolDir: t.TempDir(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRead(t *testing.T) {
	for _, site := range sites() {
		t.Run(site.name, func(t *testing.T) {
			base, put := site.start(t)
			s := open(t, base)
			for i, n := range []int{0, 1, 65_537, 9<<20 + 5} {
				key, data := fmt.Sprintf("folder/image-%d.raw", n), storetest.Bytes(uint64(i), n)
				put(key, data)
				r, err := s.Open(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if n < 1<<20 {
					blocktest.TestReader(t, r, data)
				} else if err := blocktest.Equal(t.Context(), r, data); err != nil {
					t.Error(err)
				}
				if got, want := backends.URI(s, key), base+key; got != want {
					t.Errorf("URI is %s, want %s", got, want)
				}
				whole, err := web.URLKey(base + key)
				if err != nil {
					t.Fatal(err)
				}
				if err := storetest.Want(t.Context(), far.New(s, far.Config{}), whole, data); err != nil {
					t.Error(err)
				}
				to := mem.New()
				if err := backends.Copy(t.Context(), to, "copy", s, key, nil); err != nil {
					t.Error(err)
				}
				if err := storetest.Want(t.Context(), to, "copy", data); err != nil {
					t.Error(err)
				}
			}
			if r, err := s.Open(t.Context(), "folder/nothing"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("nothing: %v %v", r, err)
			}
		})
	}
}

// TestReplaced: an object that is replaced is never mixed: the reader says so,
// or goes on with the old one if it has it.
func TestReplaced(t *testing.T) {
	for _, site := range sites() {
		t.Run(site.name, func(t *testing.T) {
			base, put := site.start(t)
			s := open(t, base)
			one, two := storetest.Bytes(1, 300_000), storetest.Bytes(3, 300_000)
			put("k", one)
			r, err := s.Open(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := blocktest.Equal(t.Context(), r, one); err != nil {
				t.Fatal(err)
			}
			put("k", two)
			err = blocktest.Equal(t.Context(), r, one)
			if site.ranges != errors.Is(err, syscall.ESTALE) || !site.ranges && err != nil {
				t.Errorf("after it was replaced: %v", err)
			}
			if err := storetest.Want(t.Context(), s, "k", two); err != nil {
				t.Errorf("opened again: %v", err)
			}
		})
	}
}

// TestFaults reads while the network does its worst.
func TestFaults(t *testing.T) {
	data := storetest.Bytes(1, 3<<20)
	for _, site := range sites() {
		base, put := site.start(t)
		put("k", data)
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			rule  proxy.Rule
			fault proxy.Fault
		}{
			"lost requests": {proxy.Rule{Every: 2}, proxy.ResetBefore()},
			"lost answers":  {proxy.Rule{Every: 2}, proxy.ResetAfter()},
			"server errors": {proxy.Rule{Every: 2}, proxy.Answer(503, "busy")},
			"cut bodies":    {proxy.Rule{Every: 2}, proxy.Cut(100_000)},
			"stalling":      {proxy.Rule{Every: 2, Times: 2}, proxy.Stall(100_000)},
			"hanging":       {proxy.Rule{Times: 1}, proxy.HangAfter()},
		} {
			t.Run(site.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				p := proxy.Start(t, u.Scheme+"://"+u.Host, proxy.Config{})
				p.Add(c.rule, c.fault)
				s := far.New(open(t, p.URL+u.Path), far.Config{})
				if err := storetest.Want(t.Context(), s, "k", data); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestRangesVanish: a server that gave ranges when the object was opened sends
// the whole now.
func TestRangesVanish(t *testing.T) {
	base, put := goSite(t)
	put("k", storetest.Bytes(1, 1<<20))
	p := proxy.Start(t, base, proxy.Config{})
	s := open(t, p.URL)
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.Add(proxy.Rule{}, proxy.IgnoreRange())
	before := p.Count().Received
	if err := r.ReadAt(t.Context(), make([]byte, 100), 5000); err == nil {
		t.Error("the whole object was taken for a range")
	}
	t.Logf("%d bytes were received", p.Count().Received-before)
}

// TestCost: a read asks for what is read, once.
func TestCost(t *testing.T) {
	base, put := goSite(t)
	put("k", storetest.Bytes(1, 4<<20))
	p := proxy.Start(t, base, proxy.Config{})
	s := open(t, p.URL)
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if c := p.Count(); c.Requests != 1 || c.Received > 1 {
		t.Errorf("to open it took %+v", c)
	}
	p.Forget()
	if err := r.ReadAt(t.Context(), make([]byte, 70_000), 123_456); err != nil {
		t.Fatal(err)
	}
	if c := p.Count(); c.Requests != 1 || c.Received != 70_000 {
		t.Errorf("to read 70,000 bytes took %+v", c)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, site := range sites() {
		b.Run(site.name, func(b *testing.B) {
			base, put := site.start(b)
			put("k", storetest.Bytes(1, 32<<20))
			var r block.ReadCloser
			r, err := open(b, base).Open(b.Context(), "k")
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			if _, err := io.Copy(io.Discard, io.NewSectionReader(block.ReaderAt(b.Context(), r), 0, r.Size())); err != nil {
				b.Fatal(err)
			}
			blocktest.Benchmark(b, r)
		})
	}
}
