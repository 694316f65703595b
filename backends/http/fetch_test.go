package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// names is a resolver.
func names(of map[string]string) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		text, ok := of[host]
		if !ok {
			return nil, errors.New("no such host")
		}
		var list []netip.Addr
		for a := range strings.SplitSeq(text, ",") {
			list = append(list, netip.MustParseAddr(a))
		}
		return list, nil
	}
}

func fetcher(t *testing.T, cfg FetchConfig) *Fetcher {
	t.Helper()
	f, err := NewFetcher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFetchCheck: what must not be fetched is refused with a reason, before a
// connection is made.
func TestFetchCheck(t *testing.T) {
	cfg := FetchConfig{Resolve: names(map[string]string{
		"images.example.org": "93.184.215.14", "both.example.org": "93.184.215.14,10.0.0.1", "inside.example.org": "192.168.1.1",
		"localhost": "127.0.0.1", "metadata.example.org": "169.254.169.254", "six.example.org": "2606:2800:220:1::1", "xn--bcher-kva.example": "93.184.215.14",
		"loop6.example.org": "::1", "mapped.example.org": "::ffff:127.0.0.1", "nat64.example.org": "64:ff9b::7f00:1",
	})}
	allowed := cfg
	allowed.AllowedHosts = []string{"inside.example.org", "[::1]", "127.0.0.1"}
	allowed.AllowedPorts = []string{"80", "8080"}
	denied := cfg
	denied.DisallowedHosts, denied.DisallowedPorts, denied.DisallowedSchemes = []string{"images.example.org"}, []string{"81"}, []string{"http"}
	addresses := cfg
	addresses.DisallowedHosts = []string{"2606:2800:220:1::1", "93.184.215.14", "MiXed.example.org."}
	both := cfg
	both.AllowedHosts, both.DisallowedHosts = []string{"images.example.org"}, []string{"images.example.org"}
	for _, c := range []struct {
		cfg  FetchConfig
		uri  string
		want error
	}{
		{cfg, "http://images.example.org/a", nil},
		{cfg, "https://images.example.org", nil},
		{cfg, "https://IMAGES.example.org./a?b=c#d", nil},
		{cfg, "http://images.example.org:0080/", nil},
		{cfg, "http://93.184.215.14/", nil},
		{cfg, "http://six.example.org/", nil},
		{cfg, "http://[2606:2800:220:1::1]:80/", nil},
		{cfg, "http://xn--bcher-kva.example/", nil},

		{cfg, "", fs.ErrInvalid},
		{cfg, "images.example.org", fs.ErrInvalid},
		{cfg, "//images.example.org/a", fs.ErrPermission},
		{cfg, "http:images.example.org", fs.ErrInvalid},
		{cfg, "http:///etc/passwd", fs.ErrInvalid},
		{cfg, "file:///etc/passwd", fs.ErrInvalid},
		{cfg, "file://images.example.org/etc/passwd", fs.ErrPermission},
		{cfg, "gopher://images.example.org/", fs.ErrPermission},
		{cfg, "ftp://images.example.org/", fs.ErrPermission},
		{cfg, "http://user@images.example.org/", fs.ErrInvalid},
		{cfg, "http://user:pw@images.example.org/", fs.ErrInvalid},
		{cfg, "http://images.example.org:22/", fs.ErrPermission},
		{cfg, "http://images.example.org:99999/", fs.ErrPermission},
		{cfg, "http://images.example.org\\@127.0.0.1/", fs.ErrInvalid},
		{cfg, "http://images.example.org /", fs.ErrInvalid},
		{cfg, "http://images.example.org\r\nHost: x/", fs.ErrInvalid},
		{cfg, "http://b\u00fccher.example/", fs.ErrInvalid},
		{cfg, "http://127\u30020\u30020\u30021/", fs.ErrInvalid},
		{cfg, "http://images%2eexample.org/", fs.ErrInvalid},
		{cfg, "http://" + strings.Repeat("a", 9000), fs.ErrInvalid},

		{cfg, "http://localhost/", fs.ErrPermission},
		{cfg, "http://127.0.0.1/", fs.ErrPermission},
		{cfg, "http://127.8.9.1/", fs.ErrPermission},
		{cfg, "http://127.1/", fs.ErrInvalid},
		{cfg, "http://2130706433/", fs.ErrInvalid},
		{cfg, "http://0x7f000001/", fs.ErrInvalid},
		{cfg, "http://0x7f.0.0.1/", fs.ErrInvalid},
		{cfg, "http://0177.0.0.1/", fs.ErrInvalid},
		{cfg, "http://127.0.0.0x1/", fs.ErrInvalid},
		{cfg, "http://0/", fs.ErrInvalid},
		{cfg, "http://0.0.0.0/", fs.ErrPermission},
		{cfg, "http://10.1.2.3/", fs.ErrPermission},
		{cfg, "http://172.16.0.1/", fs.ErrPermission},
		{cfg, "http://192.168.0.1/", fs.ErrPermission},
		{cfg, "http://100.64.0.1/", fs.ErrPermission},
		{cfg, "http://169.254.169.254/latest/meta-data", fs.ErrPermission},
		{cfg, "http://224.0.0.1/", fs.ErrPermission},
		{cfg, "http://255.255.255.255/", fs.ErrPermission},
		{cfg, "http://[::1]/", fs.ErrPermission},
		{cfg, "http://[::]/", fs.ErrPermission},
		{cfg, "http://[::ffff:127.0.0.1]/", fs.ErrPermission},
		{cfg, "http://[::ffff:7f00:1]/", fs.ErrPermission},
		{cfg, "http://[::127.0.0.1]/", fs.ErrPermission},
		{cfg, "http://[64:ff9b::7f00:1]/", fs.ErrPermission},
		{cfg, "http://[2002:7f00:1::]/", fs.ErrPermission},
		{cfg, "http://[fe80::1]/", fs.ErrPermission},
		{cfg, "http://[fe80::1%25eth0]/", fs.ErrInvalid},
		{cfg, "http://[fd00::1]/", fs.ErrPermission},
		{cfg, "http://[ff02::1]/", fs.ErrPermission},
		{cfg, "http://inside.example.org/", fs.ErrPermission},
		{cfg, "http://both.example.org/", fs.ErrPermission},
		{cfg, "http://metadata.example.org/", fs.ErrPermission},
		{cfg, "http://loop6.example.org/", fs.ErrPermission},
		{cfg, "http://mapped.example.org/", fs.ErrPermission},
		{cfg, "http://nat64.example.org/", fs.ErrPermission},
		{cfg, "http://unknown.example.org/", fs.ErrPermission},

		{allowed, "http://inside.example.org:8080/", nil},
		{allowed, "http://[::1]/", nil},
		{allowed, "http://127.0.0.1/", nil},
		{allowed, "http://images.example.org/", fs.ErrPermission},
		{allowed, "https://inside.example.org/", fs.ErrPermission}, // port 443
		{denied, "https://images.example.org/", fs.ErrPermission},
		{denied, "https://six.example.org:444/", nil},
		{denied, "https://six.example.org:81/", fs.ErrPermission},
		{denied, "http://six.example.org/", fs.ErrPermission},
		{both, "http://images.example.org/", nil},
		{addresses, "http://[2606:2800:220:1:0::1]/", fs.ErrPermission},
		{addresses, "http://[2606:2800:0220:1::0001]/", fs.ErrPermission},
		{addresses, "http://[::ffff:93.184.215.14]/", fs.ErrPermission},
		{addresses, "http://images.example.org/", fs.ErrPermission}, // it is at that address
		{addresses, "http://mixed.EXAMPLE.org/", fs.ErrPermission},
		{cfg, "http://168.63.129.16/", fs.ErrPermission},
	} {
		if err := fetcher(t, c.cfg).Check(c.uri); !errors.Is(err, c.want) {
			t.Errorf("%.80q: %v, want %v", c.uri, err, c.want)
		}
	}
	if _, err := NewFetcher(FetchConfig{AllowedPorts: []string{"http"}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a port that is none: %v", err)
	}
}

// origin is a web server, and its port.
func origin(t *testing.T, h http.HandlerFunc) (base, port string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return s.URL, u.Port()
}

func fetchAll(f *Fetcher, ctx context.Context, uri string) (string, int64, error) {
	body, size, err := f.Open(ctx, uri)
	if err != nil {
		return "", 0, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return string(b), size, err
}

func TestFetch(t *testing.T) {
	_, port := origin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunked":
			w.Write([]byte("da"))
			w.(http.Flusher).Flush()
			w.Write([]byte("ta"))
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/coded":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("data"))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("data"))
		case "/again":
			http.Redirect(w, r, "/file", http.StatusFound)
		case "/around":
			http.Redirect(w, r, "/around", http.StatusFound)
		case "/inside":
			http.Redirect(w, r, "http://inside.example.org:"+r.URL.Query().Get("port")+"/file", http.StatusMovedPermanently)
		case "/scheme":
			http.Redirect(w, r, "gopher://example.org/", http.StatusFound)
		case "/numbers":
			http.Redirect(w, r, "http://2130706433/", http.StatusFound)
		case "/file":
			if r.Header.Get("Referer") != "" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("X-Auth-Token") != "" {
				w.WriteHeader(http.StatusTeapot)
			}
			w.Write([]byte("data"))
		}
	})
	f := fetcher(t, FetchConfig{
		AllowedHosts: []string{"images.example.org"}, AllowedPorts: []string{port},
		Resolve: names(map[string]string{"images.example.org": "127.0.0.1", "inside.example.org": "127.0.0.1"}),
	})
	for _, c := range []struct {
		path string
		size int64
		want string // in the error
	}{
		{"/file", 4, ""}, {"/chunked", -1, ""}, {"/again", 4, ""},
		{"/gone", 0, "410"}, {"/coded", 0, "could not be read"}, {"/cut", 0, "broke off"}, {"/around", 0, "redirect"},
		{"/inside?port=" + port, 0, "not allowed"}, {"/scheme", 0, "not allowed"}, {"/numbers", 0, "neither a name"},
	} {
		got, size, err := fetchAll(f, t.Context(), "http://images.example.org:"+port+c.path)
		if c.want == "" && (err != nil || got != "data" || size != c.size) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q of %d, %v; want %d, %q", c.path, got, size, err, c.size, c.want)
		}
	}
}

// TestFetchToken: a token goes to the server that it is for, and no further.
func TestFetchToken(t *testing.T) {
	var port string
	_, port = origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/again" {
			http.Redirect(w, r, "http://b.example.org:"+port+"/", http.StatusFound)
			return
		}
		io.WriteString(w, "token "+r.Header.Get("X-Auth-Token"))
	})
	f := fetcher(t, FetchConfig{AllowedHosts: []string{"a.example.org", "b.example.org"}, AllowedPorts: []string{port},
		Resolve: names(map[string]string{"a.example.org": "127.0.0.1", "b.example.org": "127.0.0.1"})})
	for path, want := range map[string]string{"/": "token secret", "/again": "token "} {
		body, _, err := f.OpenWith(t.Context(), "http://a.example.org:"+port+path, "secret")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		body.Close()
	}
}

// TestFetchRebinding: a name that is another address when it is connected to is
// checked again.
func TestFetchRebinding(t *testing.T) {
	asked, port := atomic.Int32{}, ""
	_, port = origin(t, func(http.ResponseWriter, *http.Request) { t.Error("the server inside was reached") })
	f := fetcher(t, FetchConfig{AllowedPorts: []string{port}, Resolve: func(context.Context, string) ([]netip.Addr, error) {
		if asked.Add(1) == 1 {
			return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	uri := "http://rebind.example.org:" + port + "/"
	if err := f.Check(uri); err != nil {
		t.Error(err)
	}
	if _, _, err := fetchAll(f, t.Context(), uri); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("after the name has changed: %v", err)
	}
}

// TestFetchTells: whether a port is open inside is not told.
func TestFetchTells(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	go func() {
		for {
			c, err := open.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "SSH-2.0-x\r\n")
			c.Close()
		}
	}()
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shut.Close()
	var texts []string
	for _, l := range []net.Listener{open, shut} {
		_, port, _ := net.SplitHostPort(l.Addr().String())
		f := fetcher(t, FetchConfig{AllowedHosts: []string{"127.0.0.1"}, AllowedPorts: []string{port}})
		_, _, err := fetchAll(f, t.Context(), "http://127.0.0.1:"+port+"/")
		if err == nil {
			t.Fatal("it was read")
		}
		texts = append(texts, strings.ReplaceAll(err.Error(), port, "PORT"))
	}
	if texts[0] != texts[1] {
		t.Errorf("an open port: %s\na shut one: %s", texts[0], texts[1])
	}
}

// TestFetchSilence: a server that says nothing more ends the fetch, as the end
// of who waits for it does.
func TestFetchSilence(t *testing.T) {
	over := make(chan struct{})
	_, port := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("da"))
		w.(http.Flusher).Flush()
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(over) }) // before the server is closed
	f := fetcher(t, FetchConfig{AllowedHosts: []string{"127.0.0.1"}, AllowedPorts: []string{port}, Timeout: 2 * time.Second})
	got, _, err := fetchAll(f, t.Context(), "http://127.0.0.1:"+port+"/")
	if err == nil || !strings.Contains(err.Error(), "silent") || got != "da" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f = fetcher(t, FetchConfig{AllowedHosts: []string{"127.0.0.1"}, AllowedPorts: []string{port}})
	body, _, err := f.Open(ctx, "http://127.0.0.1:"+port+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("it goes on after its end")
	}
}

// FuzzFetchURL: no URL that passes names an address of this machine, in any
// notation that the system's own look-up would take for one.
func FuzzFetchURL(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1/", "http://0x7f.1/", "http://[::1%25lo]/", "https://a.b:443/x", "http://a@b/", "http://1.2.3.4:80"} {
		f.Add(s)
	}
	fetch, err := NewFetcher(FetchConfig{Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
		// As inet_aton would: anything of digits is an address.
		if strings.Trim(host, "0123456789abcdefx.") == "" && strings.ContainsAny(host[:1], "0123456789") && !strings.ContainsAny(host, "gz") {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if fetch.Check(uri) != nil {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("%q passes", uri)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && !public(a) {
			t.Fatalf("%q passes", uri)
		}
		if p := portOf(u); p != "80" && p != "443" {
			t.Fatalf("%q passes, port %s", uri, p)
		}
	})
}
