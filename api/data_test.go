package api

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/format"
)

func TestParseRange(t *testing.T) {
	for _, c := range []struct {
		header   string
		size     int64
		off, n   int64
		wantCode int
	}{
		{"bytes=0-", 10, 0, 10, 206}, {"bytes=0-0", 10, 0, 1, 206}, {"bytes=2-5", 10, 2, 4, 206}, {"bytes=5-99", 10, 5, 5, 206},
		{"bytes=-3", 10, 7, 3, 206}, {"bytes=-30", 10, 0, 10, 206}, {"bytes=9-", 10, 9, 1, 206}, {"bytes=0-99999999999999999999", 10, 0, 10, 206},
		{"bytes=10-", 10, 0, 0, 416}, {"bytes=5-2", 10, 0, 0, 416}, {"bytes=a-b", 10, 0, 0, 416}, {"bytes=-", 10, 0, 0, 416},
		{"bytes=-0", 10, 0, 0, 416}, {"items=0-1", 10, 0, 0, 416}, {"bytes 0-1", 10, 0, 0, 416}, {"bytes=0-1,3-4", 10, 0, 0, 400},
		{"bytes=0-", 0, 0, 0, 416}, {"bytes=-1", 0, 0, 0, 416}, {"", 10, 0, 0, 416}, {"bytes=+1-2", 10, 0, 0, 416},
		{"bytes=99999999999999999999-", 10, 0, 0, 416}, {"BYTES=1-2", 10, 1, 2, 206},
	} {
		s, err := parseRange(c.header, c.size)
		if err != nil {
			if got := wire.StatusOf(err); got != c.wantCode {
				t.Errorf("%q of %d: %v, want %d", c.header, c.size, err, c.wantCode)
			}
		} else if c.wantCode != 206 || s.off != c.off || s.n != c.n || !s.partial {
			t.Errorf("%q of %d: %+v, want %d+%d (%d)", c.header, c.size, s, c.off, c.n, c.wantCode)
		}
	}
	for _, c := range []struct {
		header string
		off, n int64
		ok     bool
	}{
		{"bytes 1-4/10", 1, 4, true}, {"bytes 0-9/*", 0, 10, true}, {"bytes 5-10/*", 0, 0, false}, {"bytes 1-4", 0, 0, false},
		{"bytes */10", 0, 0, false}, {"bytes 4-1/10", 0, 0, false}, {"bytes 1-40/10", 0, 0, false},
	} {
		s, err := parseContentRange(c.header, 10)
		if (err == nil) != c.ok || err == nil && (s.off != c.off || s.n != c.n) {
			t.Errorf("Content-Range %q: %+v, %v", c.header, s, err)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=3-4", "bytes=1-2,3-4", "bytes 0-1/3", "bytes=--1", "bytes=9999999999999999999999-"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		for _, parse := range []func(string, int64) (span, error){parseRange, parseContentRange} {
			s, err := parse(header, size)
			if err != nil {
				if code := wire.StatusOf(err); code != 400 && code != 416 {
					t.Errorf("%q: %d", header, code)
				}
			} else if s.off < 0 || s.n <= 0 || s.off > size-s.n {
				t.Errorf("%q of %d: %+v is not inside", header, size, s)
			}
		}
	})
}

func TestDownload(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	want := strings.Repeat("0123456789abcdef", pieceSize/8) + "end"
	if w := do(s, "PUT", "/v2/images/"+id+"/file", want, octets); w.Code != 204 {
		t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	for _, c := range []struct {
		header string
		status int
		body   string
	}{
		{"X-None: 1", 200, want}, {"Range: bytes=0-", 206, want}, {"Range: bytes=5-7", 206, "567"}, {"Range: bytes=-3", 206, "end"},
		{"Content-Range: bytes 5-7/*", 206, "567"},
	} {
		w := do(s, "GET", "/v2/images/"+id+"/file", "", c.header)
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s: %d, %d bytes; want %d, %d bytes", c.header, w.Code, w.Body.Len(), c.status, len(c.body))
		}
		h := w.Header()
		if h.Get("Content-Length") != itoa(len(c.body)) || len(h.Get("Content-MD5")) != 32 || h.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %v", c.header, h)
		}
		for _, none := range []string{"Etag", "Accept-Ranges", "Last-Modified"} {
			if h.Get(none) != "" {
				t.Errorf("%s: there is %s", c.header, none)
			}
		}
	}
	w := do(s, "GET", "/v2/images/"+id+"/file", "", "Range: bytes=99999999-")
	if w.Code != 416 || w.Header().Get("Content-Range") != "bytes */"+itoa(len(want)) {
		t.Errorf("behind the end: %d %v", w.Code, w.Header())
	}
}

// TestStreams checks that the first byte is handed on before the last is sent.
func TestStreams(t *testing.T) {
	s, data := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	data.first = make(chan struct{})
	srv := httptest.NewServer(s)
	defer srv.Close()
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "PUT", srv.URL+"/v2/images/"+id+"/file", pr)
	req.Header.Set("Content-Type", "application/octet-stream")
	var wg sync.WaitGroup
	wg.Go(func() {
		pw.Write([]byte("first"))
		<-data.first
		pw.Write([]byte(" last"))
		pw.Close()
	})
	resp, err := http.DefaultClient.Do(req)
	wg.Wait()
	if err != nil || resp.StatusCode != 204 {
		t.Fatalf("upload in pieces: %v %v", resp, err)
	}
	resp.Body.Close()
	if w := do(s, "GET", "/v2/images/"+id+"/file", ""); w.Body.String() != "first last" {
		t.Errorf("it came back as %q", w.Body)
	}
}

// TestRefusedUpload checks that a client that sends everything first still
// gets the reason.
func TestRefusedUpload(t *testing.T) {
	s, data := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	data.fail = wire.Errorf(415, "the image has a backing file")
	srv := httptest.NewServer(s)
	defer srv.Close()
	for range 3 {
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", srv.URL+"/v2/images/"+id+"/file", bytes.NewReader(make([]byte, 24<<20)))
		req.Header.Set("Content-Type", "application/octet-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 415 || !strings.Contains(string(body), "backing file") {
			t.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
	}
}

func TestUploadErrors(t *testing.T) {
	s, data := newServer(t, nil)
	unset := create(t, s, `{"name":"no formats"}`)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	for _, c := range []struct {
		id     string
		header []string
		want   int
	}{
		{id, []string{"Content-Type: text/plain"}, 415}, {id, nil, 415}, {unset, []string{octets}, 400},
		{id, []string{octets, "X-Openstack-Image-Size: 7"}, 400}, {id, []string{octets, "X-Openstack-Image-Size: -1"}, 400},
		{id, []string{octets, "X-Openstack-Image-Size: 4"}, 204}, {id, []string{octets}, 409},
	} {
		if w := do(s, "PUT", "/v2/images/"+c.id+"/file", "data", c.header...); w.Code != c.want {
			t.Errorf("%v: %d, want %d: %s", c.header, w.Code, c.want, w.Body)
		}
	}
	data.fail = errors.New("the disk at /dev/secret is broken")
	if w := do(s, "PUT", "/v2/images/"+unset+"/file", "data", octets); w.Code != 400 {
		t.Errorf("formats come first: %d", w.Code)
	}
	other := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	if w := do(s, "PUT", "/v2/images/"+other+"/file", "data", octets); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a broken store: %d %s", w.Code, w.Body)
	}
}

// TestRefusalText checks that who sent a bad file reads the cause, the object
// and the remedy, and nothing of this program.
func TestRefusalText(t *testing.T) {
	s, data := newServer(t, nil)
	id := create(t, s, `{"disk_format":"qcow2","container_format":"bare"}`)
	for _, c := range []struct {
		refusal format.Refusal
		want    string
	}{
		{format.Refusal{Declared: "qcow2", Reason: "the content is not of the declared format; correct disk_format"},
			"it is declared as qcow2 and looks like no known format: the content is not of the declared format. The image is queued again;"},
		{format.Refusal{Declared: "qcow2", Found: "qcow2", Reason: "qcow2: feature bit 9: unsupported operation"},
			"it is qcow2 as declared, but must not be taken: qcow2: feature bit 9. The image is queued again;"},
	} {
		data.fail = fmt.Errorf("image %s: %w", id, &c.refusal)
		w := do(s, "PUT", "/v2/images/"+id+"/file", "data", octets, "Accept: text/plain")
		if w.Code != 415 || !strings.Contains(w.Body.String(), "The data for image "+id+" was refused: "+c.want) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestEmptyImage(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	if w := do(s, "GET", "/v2/images/"+id+"/file", ""); w.Code != 204 {
		t.Errorf("queued: %d, want 204", w.Code)
	}
	if w := do(s, "PUT", "/v2/images/"+id+"/file", "", octets); w.Code != 204 {
		t.Fatalf("empty upload: %d %s", w.Code, w.Body)
	}
	if w := do(s, "GET", "/v2/images/"+id+"/file", ""); w.Code != 200 || w.Header().Get("Content-Length") != "0" {
		t.Errorf("empty: %d %v", w.Code, w.Header())
	}
}

// TestRefusedBeforeReading checks that who sends 30 MiB before it looks gets
// the reason of a refusal for which not a byte was read.
func TestRefusedBeforeReading(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	srv := httptest.NewServer(s)
	defer srv.Close()
	for _, c := range []struct {
		path, kind string
		want       string
	}{
		{id + "/file", "text/plain", "415"}, {uuid.NewString() + "/file", "application/octet-stream", "404"},
		{id + "/stage", "application/octet-stream", "404"}, {id + "/members", "application/octet-stream", "405"},
	} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT /v2/images/%s HTTP/1.1\r\nHost: gateway\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", c.path, c.kind, 30<<20)
		if _, err := conn.Write(make([]byte, 30<<20)); err != nil {
			t.Errorf("%s: sending: %v", c.path, err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 "+c.want) {
			t.Errorf("%s: %q %v, want %s", c.path, line, err, c.want)
		}
		conn.Close()
	}
}

// TestExpect checks that who asks before it sends gets the answer at once.
func TestExpect(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	srv := httptest.NewServer(s)
	defer srv.Close()
	for path, want := range map[string]string{id + "/file": "100", "nothing/file": "404", id: "405"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(conn, "PUT /v2/images/%s HTTP/1.1\r\nHost: gateway\r\n%s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", path, octets)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, "HTTP/1.1 "+want) {
			t.Errorf("%s: %q %v, want %s", path, line, err, want)
		}
		conn.Close()
	}
}

// TestMemberQuota has many clients reach for the last places.
func TestMemberQuota(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Limits.Members = 5 })
	id := create(t, s, `{}`)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() { do(s, "POST", "/v2/images/"+id+"/members", `{"member":"p`+itoa(i)+`"}`) })
	}
	wg.Wait()
	if n := strings.Count(do(s, "GET", "/v2/images/"+id+"/members", "").Body.String(), "member_id"); n != 5 {
		t.Errorf("%d members, want 5", n)
	}
}
