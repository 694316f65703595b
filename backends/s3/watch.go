package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

// errWhole is the answer 200 to a request for a range. It is refused as soon
// as its header is there: the body would be the whole object.
var errWhole = errors.New("the server ignored the range and sent the whole object")

// A silenceError is a server that said nothing for too long.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string {
	return fmt.Sprintf("the server was silent for %v", e.limit)
}

// Timeout makes it a net.Error's timeout.
func (e *silenceError) Timeout() bool { return true }

// A watch is an http.RoundTripper that ends a request whose server is silent:
// for each, a timer is wound up again by every byte that goes either way.
// Unlike a deadline it does not end what is slow and goes on.
type watch struct {
	base  *http.Transport
	next  http.RoundTripper
	limit time.Duration
	skew  atomic.Int64 // the server's clock minus ours, ns, by the last answer
}

// workTimes is how much longer a server may be silent while it works before
// it answers.
const workTimes = 20

func newWatch(cfg Config, u *url.URL) (*watch, error) {
	base := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: min(cfg.Timeout, 10*time.Second), KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: min(cfg.Timeout, 10*time.Second),
		DisableCompression:  true, // what is stored is what is read
	}
	if u.Scheme == "https" {
		roots, err := authorities(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		base.TLSClientConfig = &tls.Config{RootCAs: roots, InsecureSkipVerify: cfg.Insecure, MinVersion: tls.VersionTLS12}
	}
	w := &watch{base: base, next: base, limit: cfg.Timeout}
	if cfg.Transport != nil {
		w.next = cfg.Transport(base)
	}
	return w, nil
}

// authorities returns the system's certificates and those of a file, or nil
// for the system's alone.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s: it should be PEM: %w", file, fs.ErrInvalid)
	}
	return pool, nil
}

func (w *watch) closeIdle() { w.base.CloseIdleConnections() }

// patience returns how long the server may be silent about a request.
func (w *watch) patience(req *http.Request) time.Duration {
	q := req.URL.Query()
	completes := req.Method == http.MethodPost && q.Has("uploadId")
	if completes || req.Header.Get("X-Amz-Copy-Source") != "" {
		return workTimes * w.limit
	}
	return w.limit
}

// RoundTrip sends one request.
func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	limit := w.patience(req)
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(limit, func() { cancel(&silenceError{limit}) })
	watched := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		watched.Body = &body{in: req.Body, ctx: ctx, timer: timer, limit: limit, end: func() {}}
	}
	resp, err := w.next.RoundTrip(watched)
	if err != nil {
		timer.Stop()
		err = silence(ctx, err)
		cancel(nil)
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		w.skew.Store(int64(time.Until(date)))
	}
	end := func() { timer.Stop(); cancel(nil) }
	if resp.StatusCode == http.StatusOK && req.Header.Get("Range") != "" {
		resp.Body.Close()
		end()
		return nil, errWhole
	}
	timer.Reset(limit)
	resp.Body = &body{in: resp.Body, ctx: ctx, timer: timer, limit: limit, end: end}
	return resp, nil
}

// silence returns the cause of an error if it was the watch.
func silence(ctx context.Context, err error) error {
	var s *silenceError
	if cause := context.Cause(ctx); errors.As(cause, &s) {
		return s
	}
	return err
}

// A body winds up the timer as its bytes go by.
type body struct {
	in    io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	limit time.Duration
	end   func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	if n > 0 {
		b.timer.Reset(b.limit)
	}
	if err != nil && err != io.EOF {
		err = silence(b.ctx, err)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.in.Close()
	b.end()
	return err
}
