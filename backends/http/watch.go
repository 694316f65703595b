package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"
)

// A silenceError is a server that said nothing for too long.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string { return fmt.Sprintf("the server was silent for %v", e.limit) }

// Timeout makes it a net.Error's timeout.
func (e *silenceError) Timeout() bool { return true }

// Is makes it the error of a deadline.
func (e *silenceError) Is(err error) bool { return err == context.DeadlineExceeded }

// A watch is an http.RoundTripper that ends a request whose server is silent:
// for each, a timer is wound up again by every byte of the answer. Unlike a
// deadline it does not end what is slow and goes on.
type watch struct {
	base  *http.Transport
	next  http.RoundTripper
	limit time.Duration
}

func newWatch(cfg Config, g gate) (*watch, error) {
	roots, err := authorities(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	base := &http.Transport{
		// No proxy: it would resolve names by itself and see what we do not.
		DialContext:            g.dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    min(cfg.Timeout, 10*time.Second),
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // what is stored is what is read
		ForceAttemptHTTP2:      true,
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

// RoundTrip sends one request. The answer's body must be closed.
func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(w.limit, func() { cancel(&silenceError{w.limit}) })
	end := func() { timer.Stop(); cancel(nil) }
	resp, err := w.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		err = silence(ctx, err)
		end()
		return nil, err
	}
	timer.Reset(w.limit)
	resp.Body = &body{in: resp.Body, ctx: ctx, timer: timer, limit: w.limit, end: end}
	return resp, nil
}

// silence returns the cause of an error if it was the watch.
func silence(ctx context.Context, err error) error {
	if s, ok := errors.AsType[*silenceError](context.Cause(ctx)); ok {
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
