package swift

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// statusRateLimit is what Swift's ratelimit answers.
const statusRateLimit = 498

var (
	// errWrongRange is an answer with another range or length than was asked
	// for. It would be the same again.
	errWrongRange = errors.New("wrong answer to a request for a range")

	// errDigest is bytes that are not those that were sent.
	errDigest = errors.New("wrong digest")
)

// full says that the quota or the server's disks are full. Swift answers 413
// to what is over a quota and to what is over the size of an object.
func full(err error) bool {
	switch statusOf(err) {
	case http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return true
	}
	return false
}

// refused says that the request found its condition not to hold.
func refused(err error) bool { return statusOf(err) == http.StatusPreconditionFailed }

// passing says that an error may be gone at the next try. What the server
// refuses will be refused again; what broke on the way may not.
func passing(err error) bool {
	if e, ok := errors.AsType[*signInError](err); ok && e.refused() {
		return false
	}
	switch status := statusOf(err); {
	case full(err), errors.Is(err, errWrongRange), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOSPC), untrusted(err) != "":
		return false
	case status == 0, status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status == statusRateLimit,
		status == http.StatusUnprocessableEntity: // the bytes arrived broken
		return true
	default:
		return status >= 500 && status != http.StatusNotImplemented
	}
}

// untrusted says what is wrong between us and the server's TLS, or "".
func untrusted(err error) string {
	if err == nil {
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is of an authority that is not trusted here: name the authority's PEM file in ca_file"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another host: use a name that the certificate has"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return "its certificate is not valid now: renew it, or set this machine's clock"
		}
		return "its certificate is not valid"
	}
	_, record := errors.AsType[tls.RecordHeaderError](err)
	if record || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return "it does not speak TLS: write http://"
	}
	return ""
}

// skewLimit is how far a clock may be off before it is suspected.
const skewLimit = 5 * time.Minute

// explain adds to an error of the server what it means and what helps.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if hint := untrusted(err); hint != "" {
		return fmt.Errorf("the server cannot be trusted: %s: %w", hint, err)
	}
	if e, ok := errors.AsType[*signInError](err); ok {
		return s.explainSignIn(e)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing listens there: start the server, or correct auth_url: %w", err)
	}
	switch {
	case full(err):
		return fmt.Errorf("container %s is full, or the object too large for it: free space, raise the quota, or lower segment_size: %v: %w",
			s.cfg.Container, err, syscall.ENOSPC)
	case statusOf(err) == http.StatusUnauthorized, statusOf(err) == http.StatusForbidden:
		return fmt.Errorf("the account does not allow this to user %s: let it read and write container %s: %w", s.cfg.User, s.cfg.Container, err)
	}
	return err
}

func (s *Store) explainSignIn(e *signInError) error {
	if skew := time.Duration(s.watch.skew.Load()).Round(time.Second); skew.Abs() > skewLimit {
		return fmt.Errorf("the clock of the server differs from this machine's by %v: set the wrong one (NTP): %w", skew.Abs(), e)
	}
	switch status := e.status(); {
	case errors.Is(e, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: start the service, or correct auth_url: %w", s.cfg.AuthURL, e)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%s does not take user %s: correct user, key, project or the domains: %w", s.cfg.AuthURL, s.cfg.User, e)
	case status == http.StatusNotFound, status == http.StatusBadRequest:
		return fmt.Errorf("nobody signs in at %s: correct auth_url and auth_version: %w", s.cfg.AuthURL, e)
	}
	return e
}

// taken is the error of a key that has an object.
func taken() error { return fmt.Errorf("there is an object already: %w", fs.ErrExist) }
