//go:build integration

package swift

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/swift"
	"github.com/seed-478a8fee/platter/integration/proxy"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// TestRefusedPuts: Swift drops the connection after a PUT that it refused, and
// the next one that is sent there fails. Nobody hears of it.
func TestRefusedPuts(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		var log bytes.Buffer
		cfg := config(a)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := open(t, cfg)
		for _, n := range []int{10, 2 << 20} {
			data := storetest.Bytes(1, n)
			for i := range 20 {
				key := fmt.Sprintf("k%d-%d", n, i)
				if err := storetest.Put(t.Context(), s, key, int64(n), data); err != nil {
					t.Fatalf("%v\n%s", err, &log)
				}
				if err := storetest.Put(t.Context(), s, key, int64(n), data); !errors.Is(err, fs.ErrExist) {
					t.Fatalf("a taken key = %v\n%s", err, &log)
				}
			}
		}
		t.Logf("%d requests were sent again", strings.Count(log.String(), "trying again"))
	})
}

// behind opens a store behind a proxy.
func behind(t *testing.T, a servers.SwiftAccount, change func(*swift.Config)) (*swift.Store, *proxy.Proxy) {
	t.Helper()
	u, err := url.Parse(a.AuthURL)
	if err != nil {
		t.Fatal(err)
	}
	p := proxy.Start(t, u.Scheme+"://"+u.Host, proxy.Config{})
	cfg := config(a)
	cfg.AuthURL = p.URL + u.Path
	if a.Project == "" {
		u, err := url.Parse(endpoint(t, a))
		if err != nil {
			t.Fatal(err)
		}
		cfg.StorageURL = p.URL + u.Path
	}
	change(&cfg)
	return open(t, cfg), p
}

func endpoint(t *testing.T, a servers.SwiftAccount) string {
	t.Helper()
	target, err := a.Connection().GetStorageUrl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// TestFaults stores and reads while the network does its worst.
func TestFaults(t *testing.T) {
	for _, k := range kinds() {
		if k.name == "keystone" {
			continue // the same server as with tempauth
		}
		a := k.account(t)
		data := storetest.Bytes(1, 3<<20)
		for name, add := range map[string]func(p *proxy.Proxy){
			"lost answers":    func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "PUT", Every: 2}, proxy.ResetAfter()) },
			"lost requests":   func(p *proxy.Proxy) { p.Add(proxy.Rule{Every: 3}, proxy.ResetBefore()) },
			"server errors":   func(p *proxy.Proxy) { p.Add(proxy.Rule{Every: 3}, proxy.Answer(503, "busy")) },
			"cut uploads":     func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "PUT", Every: 2}, proxy.CutRequest(100_000)) },
			"cut bodies":      func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "GET", Every: 2}, proxy.Cut(10_000)) },
			"stalling bodies": func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "GET", Range: "bytes=", Times: 1}, proxy.Stall(10_000)) },
			"hanging":         func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "PUT", Times: 1}, proxy.HangAfter()) },
			"ranges ignored":  func(p *proxy.Proxy) { p.Add(proxy.Rule{Method: "GET", Range: "bytes=", Times: 2}, proxy.IgnoreRange()) },
		} {
			t.Run(k.name+"/"+name, func(t *testing.T) {
				s, p := behind(t, a, func(c *swift.Config) { c.SegmentSize, c.Timeout = 1<<20, 4*time.Second })
				tough := far.New(s, far.Config{})
				add(p)
				if err := storetest.Put(t.Context(), tough, "k", -1, data); err != nil {
					t.Fatal(err)
				}
				if err := storetest.Want(t.Context(), tough, "k", data); err != nil {
					t.Error(err)
				}
				if err := storetest.Put(t.Context(), tough, "k", -1, data); !errors.Is(err, fs.ErrExist) {
					t.Errorf("a taken key = %v", err)
				}
				if err := s.Delete(t.Context(), "k"); err != nil {
					t.Error(err)
				}
				p.Clear()
				for i := range 4 {
					name := "k"
					if i > 0 {
						name = fmt.Sprintf("k-%05d", i)
					}
					if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s is left: %v", name, err)
					}
				}
			})
		}
	}
}

// TestRestart: the server is killed in the midst of an upload and of a read,
// and comes back.
func TestRestart(t *testing.T) {
	server := servers.StartSwift(t, servers.SwiftConfig{})
	cfg := config(server.Account)
	cfg.SegmentSize, cfg.Timeout = 1<<20, 5*time.Second
	s := far.New(open(t, cfg), far.Config{Deadline: time.Minute})
	data := storetest.Bytes(1, 16<<20)
	w, err := s.Create(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	restart := func() {
		server.Proxy.Kill(t)
		time.Sleep(2 * time.Second)
		server.Proxy.Start(t)
	}
	var starts atomic.Bool
	back := make(chan struct{})
	for off := 0; off < len(data); off += 256 << 10 {
		if off == 8<<20 {
			server.Proxy.Kill(t)
			go func() { // ends within seconds, before the upload does
				defer close(back)
				time.Sleep(2 * time.Second)
				starts.Store(true)
				server.Proxy.Start(t)
			}()
		}
		if _, err := w.Write(data[off : off+256<<10]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !starts.Load() {
		t.Error("the upload ended while the server was away")
	}
	<-back
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	restart()
	if err := blocktest.Equal(t.Context(), r, data); err != nil {
		t.Error(err)
	}
	server.Object.Pause(t)
	time.AfterFunc(3*time.Second, func() { server.Object.Resume(t) })
	if err := r.ReadAt(t.Context(), make([]byte, 1000), 100); err != nil {
		t.Errorf("while the disk hung: %v", err)
	}
}

// TestGone: an object that the catalog knows is deleted, or replaced, by
// somebody else.
func TestGone(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		cfg := config(a)
		s, c := open(t, cfg), a.Connection()
		data := storetest.Bytes(1, 100_000)
		if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		put(t, c, "images", cfg.Prefix+"k", storetest.Bytes(3, 100_000), nil)
		if err := r.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("replaced: %v", err)
		}
		if err := c.ObjectDelete(t.Context(), "images", cfg.Prefix+"k"); err != nil {
			t.Fatal(err)
		}
		if err := r.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("gone: %v", err)
		}
	})
}

// TestWrongSetUp: what is wrong is said in words that help.
func TestWrongSetUp(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		for name, c := range map[string]struct {
			change func(*swift.Config)
			want   string
		}{
			"wrong key":        {func(c *swift.Config) { c.Key = "wr0ng" }, "correct user, key, project"},
			"wrong user":       {func(c *swift.Config) { c.User = "nobody:here" }, "correct user, key, project"},
			"no container":     {func(c *swift.Config) { c.Container, c.CreateContainer = "nowhere", false }, "there is no container nowhere"},
			"nobody listening": {func(c *swift.Config) { c.AuthURL = "http://127.0.0.1:1/auth/v1.0" }, "nothing listens at"},
		} {
			cfg := config(a)
			cfg.Retry = time.Second
			c.change(&cfg)
			s, err := swift.Open(t.Context(), cfg)
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			} else if strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%s: the error tells the key: %v", name, err)
			}
		}
	})
}
