package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// pipeListener hands out one connection.
type pipeListener struct {
	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial serves h on a pipe and returns the client's end.
func dial(t *testing.T, h http.Handler) net.Conn {
	client, server := net.Pipe()
	l := pipeListener{make(chan net.Conn, 1)}
	l.conns <- server
	srv := wire.NewServer(h)
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() {
		close(l.conns)
		client.Close()
		srv.Close()
		<-done
	})
	return client
}

// slowData takes what comes, and counts.
type slowData struct{ got int64 }

func (d *slowData) Put(_ context.Context, _ string, body io.Reader, _ int64, _ string) (err error) {
	d.got, err = io.Copy(io.Discard, body)
	time.Sleep(10 * time.Minute) // a deep look at the image must not look like a dead client
	return err
}

func (d *slowData) Open(context.Context, catalog.Image) (block.ReadCloser, error) {
	return nil, catalog.ErrNoData
}

// TestPatience uploads a byte every half minute for three hours, which is
// fine, and then falls silent, which is not.
func TestPatience(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	data := &slowData{}
	s.cfg.Data = data
	put := "PUT /v2/images/" + id + "/file HTTP/1.1\r\nHost: gateway\r\n" + octets + "\r\nContent-Length: 360\r\n\r\n"
	t.Run("slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, s)
			go func() {
				io.WriteString(c, put)
				for range 360 {
					time.Sleep(30 * time.Second)
					io.WriteString(c, "x")
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 204 || data.got != 360 {
				t.Errorf("%+v %v, %d bytes", resp, err, data.got)
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, s)
			start := time.Now()
			go io.WriteString(c, put+"xxx")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil && resp.StatusCode < 400 || time.Since(start) > 15*time.Minute {
				t.Errorf("%+v %v after %v", resp, err, time.Since(start))
			}
		})
	})
	for name, request := range map[string]string{
		"silent and unread": "GET /v2/images HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n",
		"silent and asked":  "POST /v2/images HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n",
		"silent in chunks":  "GET /v2/images/x HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := dial(t, s)
				start := time.Now()
				go io.WriteString(c, request)
				io.ReadAll(c)
				if time.Since(start) > 2*wire.Patience {
					t.Errorf("cut after %v", time.Since(start))
				}
			})
		})
	}
	t.Run("a few words, a byte at a time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, s)
			go func() {
				io.WriteString(c, "POST /v2/images HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100000\r\n\r\n")
				for _, err := c.Write([]byte("[")); err == nil; _, err = c.Write([]byte("[")) {
					time.Sleep(10 * time.Second)
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 408 {
				t.Errorf("%+v %v", resp, err)
			}
			c.Close()
			time.Sleep(time.Minute)
		})
	})
	t.Run("slow header", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, s)
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				for _, err := fmt.Fprint(c, "G"); err == nil; _, err = fmt.Fprint(c, "G") {
					time.Sleep(time.Second)
				}
			})
			io.ReadAll(c)
			wg.Wait()
			if time.Since(start) > time.Minute {
				t.Errorf("cut after %v", time.Since(start))
			}
		})
	})
	t.Run("long header", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, s)
			go io.WriteString(c, "GET /v2/images HTTP/1.1\r\nHost: gateway\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 431 {
				t.Errorf("%+v %v", resp, err)
			}
			time.Sleep(time.Second) // the server lingers for a moment
		})
	})
}
