//go:build integration

package differ

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// mayGrow is how much memory the requests of TestEndless may take, all
// together: they promise a thousand times as much.
const mayGrow = 192 << 20

// TestEndless sends bodies that do not end to every call that takes one, many
// at once. The gateway refuses them, and does not keep what it read.
func TestEndless(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	id := g.NewImage(t, "a", "raw")
	before := peak(t, g.PID())
	for _, call := range []string{"POST /v2/images", "PATCH /v2/images/" + id, "POST /v2/images/" + id + "/members", "PUT /v2/images/" + id + "/members/x",
		"POST /v2/tasks", "POST /v2/images/" + id + "/import", "POST /platter/v1/attachments", "POST /platter/v1/overlays"} {
		method, path, _ := strings.Cut(call, " ")
		for name, body := range map[string]func() io.Reader{
			"text":       func() io.Reader { return endless(`{"name":"`, "x") },
			"array":      func() io.Reader { return endless(`{"name":[`, "1,") },
			"properties": func() io.Reader { return endless(`{"a":"b"`, `,"a":"b"`) },
			"depth":      func() io.Reader { return endless("", "[") },
		} {
			t.Run(strings.ReplaceAll(call, id, "ID")+" "+name, func(t *testing.T) {
				var all sync.WaitGroup
				var told atomic.Int32
				for range 16 {
					all.Go(func() {
						switch status := send(t, g.URL, method, path, body()); {
						case status == http.StatusRequestEntityTooLarge:
							told.Add(1)
						case status != 0: // an answer may be lost when the connection is cut
							t.Errorf("%d, want 413", status)
						}
					})
				}
				all.Wait()
				if told.Load() == 0 {
					t.Error("nobody was told 413")
				}
			})
		}
	}
	if after := peak(t, g.PID()); after > before+mayGrow {
		t.Errorf("the gateway grew from %d to %d MiB", before>>20, after>>20)
	}
	g.Call(t, "GET", "/v2/images/"+id, "", 200)
}

// endless is a body that begins somehow and then repeats itself to a GiB.
func endless(begin, repeat string) io.Reader {
	return io.MultiReader(strings.NewReader(begin), io.LimitReader(&repeated{text: strings.Repeat(repeat, 4096)}, 1<<30))
}

type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

// send returns the status of a request, which may come before all is sent, or
// 0 if the connection was cut.
func send(t *testing.T, url, method, path string, body io.Reader) int {
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(url, "http://"), time.Minute)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	kind := "application/json"
	if method == "PATCH" {
		kind = "application/openstack-images-v2.1-json-patch"
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", method, path, c.RemoteAddr(), kind)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := body.Read(buf)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n]); err != nil {
				return // the gateway has heard enough
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// peak returns the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestTangled sends requests that a proxy and a server may read differently.
// None gets an answer of success, or a second request through.
func TestTangled(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	host := strings.TrimPrefix(g.URL, "http://")
	head := "POST /v2/images HTTP/1.1\r\nHost: " + host + "\r\n"
	for name, request := range map[string]string{
		"two lengths":             head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
		"length with a sign":      head + "Content-Length: +2\r\n\r\n{}",
		"negative length":         head + "Content-Length: -1\r\n\r\n{}",
		"length that is no size":  head + "Content-Length: 99999999999999999999\r\n\r\n{}",
		"unknown encoding":        head + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"encoding twice":          head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"chunk that is no number": head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
		"chunk that is too long":  head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
		"space before the colon":  head + "Content-Length : 2\r\n\r\n{}",
		"folded header":           head + "X: a\r\n b\r\n: c\r\n\r\n",
		"no host":                 "GET /v2/images HTTP/1.1\r\n\r\n",
		"two hosts":               "GET /v2/images HTTP/1.1\r\nHost: " + host + "\r\nHost: other\r\n\r\n",
		"NUL in a header":         "GET /v2/images HTTP/1.1\r\nHost: " + host + "\r\nX-Auth-Token: a\x00b\r\n\r\n",
		"space in the path":       "GET /v2/images HTTP/1.1 HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"unknown protocol":        "GET /v2/images FTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"no request":              "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"headers without end":     "GET /v2/images HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Repeat("X-Header: "+strings.Repeat("x", 1000)+"\r\n", 4000),
		"one endless header":      "GET /v2/images HTTP/1.1\r\nHost: " + host + "\r\nX-Auth-Token: " + strings.Repeat("x", 4<<20),
		"endless path":            "GET /v2/images/" + strings.Repeat("x", 4<<20) + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.DialTimeout("tcp", host, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			go io.WriteString(c, request)
			answer := bufio.NewReader(c)
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				return // the connection was cut
			}
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented && resp.StatusCode != http.StatusHTTPVersionNotSupported {
				t.Errorf("%s", resp.Status)
			}
		})
	}
	if list := string(g.Call(t, "GET", "/v2/images", "", 200)); !strings.Contains(list, `"images":[]`) {
		t.Errorf("an image was made: %s", list)
	}
}
