package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(Config{URL: s.URL + "/v2/", Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestErrorForms reads what a gateway says, and what a proxy before it says.
func TestErrorForms(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"application/json", `{"message":"No image found<br /><br />\n\n\n","code":"404 Not Found","title":"Not Found"}`, "No image found"},
		{"text/plain; charset=UTF-8", "404 Not Found\n\nNo image found\n\nRequest id: req-1\n", "No image found"},
		{"text/html", "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  No image found<br /><br />\n</body></html>", "No image found"},
		{"", "", "the gateway answered 404 Not Found to GET /v2/images/x"},
	} {
		cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Auth-Token") != "secret" || r.URL.Path != "/v2/images/x" {
				t.Errorf("asked for %s with %v", r.URL, r.Header)
			}
			w.Header().Set("X-Openstack-Request-Id", "req-1")
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(404)
			w.Write([]byte(c.body))
		})
		_, err := cl.Image(t.Context(), "x")
		var answer *Error
		if !errors.As(err, &answer) || answer.Error() != c.want || answer.RequestID != "req-1" || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", c.kind, err)
		}
	}
}

func TestErrorsInWordsOfTheLibrary(t *testing.T) {
	for status, want := range map[int]error{401: fs.ErrPermission, 403: fs.ErrPermission, 404: fs.ErrNotExist, 409: fs.ErrExist, 410: fs.ErrNotExist, 501: errors.ErrUnsupported} {
		if !errors.Is(&Error{Status: status}, want) {
			t.Errorf("%d is not %v", status, want)
		}
	}
}

func TestUnreached(t *testing.T) {
	c, err := New(Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	var unreached *UnreachedError
	if _, err := c.Image(t.Context(), "x"); !errors.As(err, &unreached) || strings.Contains(err.Error(), "images/x") {
		t.Errorf("err = %v", err)
	}
	for _, bad := range []string{"", "gopher://x", "http://", "::"} {
		if _, err := New(Config{URL: bad}); err == nil {
			t.Errorf("New(%q) takes it", bad)
		}
	}
}

func TestPages(t *testing.T) {
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("marker") {
		case "":
			w.Write([]byte(`{"images":[{"id":"a","size":12345678901234567}],"next":"/v2/images?name=x&marker=a"}`))
		case "a":
			w.Write([]byte(`{"images":[{"id":"b"}],"next":"/v2/images?name=x&marker=b"}`))
		default:
			w.Write([]byte(`{"images":[]}`))
		}
	})
	var ids []string
	for img, err := range cl.Images(t.Context(), url.Values{"name": {"x"}}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID())
		if img.ID() == "a" && img.Int("size") != 12345678901234567 {
			t.Errorf("size %v", img["size"])
		}
	}
	if strings.Join(ids, "") != "ab" {
		t.Errorf("ids %v", ids)
	}
}

func TestAnswerThatIsNone(t *testing.T) {
	cl := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>welcome")) })
	if _, err := cl.Image(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "not what was asked for") {
		t.Errorf("err = %v", err)
	}
	for _, err := range cl.Images(t.Context(), nil) {
		if err == nil {
			t.Error("a page of HTML is taken")
		}
	}
}

func TestReadAt(t *testing.T) {
	data := []byte("0123456789")
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	p := make([]byte, 3)
	if err := cl.ReadAt(t.Context(), "x", p, 4); err != nil || string(p) != "456" {
		t.Errorf("%q, %v", p, err)
	}
	whole := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
	if err := whole.ReadAt(t.Context(), "x", p, 4); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a server without ranges: %v", err)
	}
}

func TestExactly(t *testing.T) {
	for name, want := range map[string]string{"debian": "debian", "in:x": `in:"in:x"`, "a,b": `in:"a,b"`, `q"x`: `in:"q\"x"`} {
		if got := exactly(name); got != want {
			t.Errorf("exactly(%q) = %s, want %s", name, got, want)
		}
	}
}

// TestLogin has a gateway take one token after the other, each for a while.
func TestLogin(t *testing.T) {
	valid := "none yet"
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != valid {
			w.WriteHeader(401)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, r.Method+" "+string(body))
		w.Write([]byte(`{"id": "x"}`))
	}))
	t.Cleanup(server.Close)
	var bad []string
	failure := error(nil)
	c, err := New(Config{URL: server.URL, Login: func(_ context.Context, refused string) (string, error) {
		bad = append(bad, refused)
		return valid, failure
	}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(do func() error, wantBad []string, wantBody string) {
		t.Helper()
		bad, bodies = nil, nil
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantBad, bad); diff != "" {
			t.Errorf("logins: %s", diff)
		}
		if diff := cmp.Diff([]string{wantBody}, bodies); diff != "" {
			t.Errorf("requests: %s", diff)
		}
	}
	create := func() error {
		_, err := c.CreateImage(t.Context(), map[string]any{"name": "x"})
		return err
	}
	upload := func() error {
		return c.Upload(t.Context(), "x", io.LimitReader(strings.NewReader("bytes of an image"), 5), 5)
	}
	valid = "first"
	check(upload, []string{""}, "PUT bytes") // it cannot be sent twice
	check(create, nil, `POST {"name":"x"}`)
	valid = "second"
	check(create, []string{"first"}, `POST {"name":"x"}`)
	check(create, nil, `POST {"name":"x"}`)
	valid, failure = "third", errors.New("Keystone is away")
	if err := create(); !errors.Is(err, failure) {
		t.Errorf("without a new token: %v", err)
	}

	// A gateway that wants no token gets none.
	valid, failure = "", nil
	if c, err = New(Config{URL: server.URL, Login: c.login}); err != nil {
		t.Fatal(err)
	}
	check(create, nil, `POST {"name":"x"}`)
	bodies = nil
	if err := upload(); err != nil || len(bad) > 0 {
		t.Errorf("an upload without a token: %v, logins %q", err, bad)
	}
}

// TestRedirects checks that a token does not follow where a gateway, or what
// pretends to be one, sends it.
func TestRedirects(t *testing.T) {
	var stolen atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Store(true) }))
	t.Cleanup(thief.Close)
	cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	})
	if _, err := cl.Image(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "leads elsewhere") || stolen.Load() {
		t.Errorf("%v, stolen: %v", err, stolen.Load())
	}
}
