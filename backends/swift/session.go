package swift

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/ncw/swift/v2"
)

// A session is the token that requests carry. It signs in when it is first
// needed and when the server no longer takes the token.
type session struct {
	cfg    Config
	watch  *watch
	turn   chan struct{} // holds one element while somebody has the fields below
	token  string
	target *url.URL // of the account
}

func newSession(cfg Config, w *watch) *session {
	return &session{cfg: cfg, watch: w, turn: make(chan struct{}, 1)}
}

// get returns the token and the URL of the account. One caller signs in, the
// others wait for it.
func (s *session) get(ctx context.Context) (token string, target *url.URL, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	if s.token == "" {
		if err := s.signIn(ctx); err != nil {
			return "", nil, err
		}
	}
	return s.token, s.target, nil
}

// expired forgets a token that the server refused, unless that is done.
func (s *session) expired(ctx context.Context, token string) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return
	}
	if s.token == token {
		s.token = ""
	}
}

// signIn gets a new token.
func (s *session) signIn(ctx context.Context) error {
	c := swift.Connection{
		AuthUrl: s.cfg.AuthURL, AuthVersion: s.cfg.AuthVersion, UserName: s.cfg.User, ApiKey: s.cfg.Key,
		Tenant: s.cfg.Project, TenantDomain: s.cfg.ProjectDomain, Domain: s.cfg.UserDomain,
		Region: s.cfg.Region, Internal: s.cfg.Internal, UserAgent: agent, Transport: s.watch,
		ConnectTimeout: 2 * s.cfg.Timeout, // watch is first
	}
	err := c.Authenticate(ctx)
	if c.AuthToken == "" || c.StorageUrl == "" {
		if err == nil {
			err = errors.New("it gave no token or no endpoint")
		}
		return &signInError{err}
	}
	// There may be an error still: that the token is about to expire. That is
	// so by our clock only, and the server will tell.
	text := c.StorageUrl
	if s.cfg.StorageURL != "" {
		text = s.cfg.StorageURL
	}
	target, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || target.Host == "" {
		return &signInError{fmt.Errorf("the endpoint %q is no URL", text)}
	}
	s.token, s.target = c.AuthToken, target
	return nil
}

// A signInError is an error of the service that gives out tokens.
type signInError struct{ err error }

func (e *signInError) Error() string { return "sign in: " + e.err.Error() }
func (e *signInError) Unwrap() error { return e.err }

// status returns the HTTP status that the service answered, 0 if none.
func (e *signInError) status() int {
	if err, ok := errors.AsType[*swift.Error](e.err); ok {
		return err.StatusCode
	}
	return 0
}

// refused says that signing in would be refused again.
func (e *signInError) refused() bool {
	switch e.status() {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return true
	}
	return false
}
