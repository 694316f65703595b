package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

var (
	// errRange is an answer that is not the range that was asked for.
	errRange = errors.New("wrong answer to a request for a range")

	// errRedirect is a redirect that is not followed.
	errRedirect = errors.New("a redirect that is not followed")
)

// A statusError is an answer that says no.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.status, http.StatusText(e.status))
}

// Is says of what the server does not have that it does not exist.
func (e *statusError) Is(err error) bool {
	return err == fs.ErrNotExist && (e.status == http.StatusNotFound || e.status == http.StatusGone)
}

// get asks for a URL, follows redirects, and returns the answer with the URL
// that gave it. The answer is 200, 206 or 416; the caller closes its body.
func (s *Store) get(ctx context.Context, u *url.URL, header map[string]string) (*http.Response, *url.URL, error) {
	for hops := 0; ; hops++ {
		if err := s.gate.check(u); err != nil {
			return nil, nil, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, nil, err
		}
		req.Header.Set("User-Agent", "platter")
		req.Header.Set("Accept-Encoding", "identity")
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := s.watch.RoundTrip(req)
		if err != nil {
			return nil, nil, explain(u, err)
		}
		switch resp.StatusCode {
		case http.StatusOK, http.StatusPartialContent:
			if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
				resp.Body.Close()
				return nil, nil, fmt.Errorf("the server sends it coded as %s, though asked not to: %w", coding, errRange)
			}
			return resp, u, nil
		case http.StatusRequestedRangeNotSatisfiable:
			return resp, u, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			resp.Body.Close()
			if u, err = s.follow(u, resp.Header.Get("Location"), hops); err != nil {
				return nil, nil, err
			}
		default:
			resp.Body.Close()
			return nil, nil, &statusError{resp.StatusCode}
		}
	}
}

// follow returns where a redirect leads. Whether that may be asked for is
// checked like everything else.
func (s *Store) follow(from *url.URL, location string, hops int) (*url.URL, error) {
	if hops >= s.cfg.Redirects {
		return nil, fmt.Errorf("%w: there were %d before", errRedirect, hops)
	}
	ref, err := url.Parse(location)
	if err != nil || location == "" {
		return nil, fmt.Errorf("%w: it leads nowhere", errRedirect)
	}
	to := from.ResolveReference(ref)
	to.Fragment, to.RawFragment = "", ""
	if _, err := parse(to.String()); err != nil {
		return nil, fmt.Errorf("%w: %w", errRedirect, err)
	}
	if from.Scheme == "https" && to.Scheme != "https" {
		return nil, fmt.Errorf("%w: from https to http: %w", errRedirect, fs.ErrPermission)
	}
	return to, nil
}

// explain says what an error of a connection means.
func explain(u *url.URL, err error) error {
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case authority:
		return fmt.Errorf("the certificate of %s is of an authority that is not trusted here: name the authority's PEM file in ca_file: %w", u.Host, err)
	case host:
		return fmt.Errorf("the certificate of %s is for another host: %w", u.Host, err)
	case record:
		return fmt.Errorf("%s does not speak TLS: write http://: %w", u.Host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: %w", u.Host, err)
	}
	return fmt.Errorf("ask %s: %w", u.Host, err)
}

// passing says that an error may be gone at the next try.
func passing(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	if certificate {
		return false
	}
	for _, is := range []error{errRange, errRedirect, fs.ErrPermission, fs.ErrInvalid, fs.ErrNotExist, fs.ErrClosed, syscall.ESTALE, syscall.ENOSPC} {
		if errors.Is(err, is) {
			return false
		}
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status >= 500 && e.status != http.StatusNotImplemented || e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout
	}
	return true
}

const (
	tries      = 4
	firstDelay = 50 * time.Millisecond
	slowDelay  = 500 * time.Millisecond // for a server that asked us to slow down
)

// again calls f until it succeeds, fails for good, or has failed tries times.
func (s *Store) again(ctx context.Context, what string, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if try+1 >= tries || !passing(err) {
			return err
		}
		d := firstDelay << try
		if e, ok := errors.AsType[*statusError](err); ok && (e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable) {
			d = max(d, slowDelay)
		}
		d = d/2 + rand.N(d/2)
		s.cfg.Logger.WarnContext(ctx, "http: trying again", "what", what, "after", d, "error", err)
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A version tells one content of a URL from another.
type version struct{ etag, modified string }

func versionOf(h http.Header) version {
	return version{etag: h.Get("Etag"), modified: h.Get("Last-Modified")}
}

// known tells whether there is anything to compare.
func (v version) known() bool { return v != version{} }

// same tells whether an answer's version is this one. An answer to a condition
// need not have Last-Modified beside an ETag (RFC 9110, 15.3.7).
func (v version) same(got version) bool {
	if v.etag != "" {
		return v.etag == got.etag
	}
	return v == got
}

// condition returns the header If-Range for a strong version, or "" (RFC 9110,
// 13.1.5). Without it the versions are compared all the same.
func (v version) condition() string {
	switch {
	case v.etag == "":
		return v.modified
	case strings.HasPrefix(v.etag, "W/"):
		return ""
	}
	return v.etag
}
