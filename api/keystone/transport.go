package keystone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// The most bytes that an answer may have: to a question, and to a login, which
// has the whole catalog in it.
const (
	maxAnswer = 512 << 10
	maxLogin  = 4 << 20
)

var errTooLong = errors.New("the answer is too long: is this the address of a Keystone v3?")

// newClient makes the client of all questions. Each has a context that ends.
func newClient(cfg Config) (*http.Client, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    cfg.Timeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    cfg.Parallel,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.Insecure},
	}
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("keystone: the authorities in ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("keystone: ca_file %s has no certificate in PEM form", cfg.CAFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: bounded{t}, CheckRedirect: noRedirect}, nil
}

// noRedirect refuses to follow, since the header with the token would go to
// wherever it leads.
func noRedirect(req *http.Request, _ []*http.Request) error {
	to := *req.URL
	to.RawQuery, to.User = "", nil
	return fmt.Errorf("it leads elsewhere, to %s, which is not followed: set auth_url to where Keystone is", clip(to.String()))
}

func clip(s string) string { return s[:min(len(s), 200)] }

// A bounded transport gives answers an end.
type bounded struct{ next http.RoundTripper }

// RoundTrip sends one request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	left := maxAnswer
	if r.Method == http.MethodPost {
		left = maxLogin
	}
	resp.Body = &boundedBody{resp.Body, left}
	return resp, nil
}

// A boundedBody fails when it has given too much.
type boundedBody struct {
	io.ReadCloser
	left int
}

// Read reads the next part.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// plain takes the method and the URL off an error of the HTTP client, which
// its texts repeat.
func plain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.As(err, &syntax):
		return errors.New("the answer is no JSON: is this the address of a Keystone v3?")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the answer was cut off")
	}
	return err
}
