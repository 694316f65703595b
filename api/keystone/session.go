package keystone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

const (
	// renewBefore is how long before its end the own token is replaced.
	renewBefore = time.Minute

	// calmDown is how long a login that was refused is not tried again.
	calmDown = 5 * time.Second
)

// A pass is one token of the gateway's own user.
type pass struct {
	provider *gophercloud.ProviderClient
	identity string // the URL that questions go to, with a slash at its end
	until    time.Time
	roles    []string
}

// A session keeps the gateway's own user logged in.
type session struct {
	k    *Keystone
	turn chan struct{} // full: somebody logs in, or looks

	// Whoever has the turn may use these.
	now     *pass
	refused error     // of the last login, if it was no outage
	again   time.Time // when it may be tried again
}

func (s *session) init(k *Keystone) { s.k, s.turn = k, make(chan struct{}, 1) }

// get returns a pass that is not bad, which is one that Keystone has refused.
// Requests that need a login at the same time share one.
func (s *session) get(ctx context.Context, bad *pass) (*pass, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("keystone at %s does not answer a login: %w", s.k.cfg.URL, ctx.Err())
	}
	now := s.k.cfg.Now()
	if s.now != nil && s.now != bad && now.Before(s.now.until.Add(-renewBefore)) {
		return s.now, nil
	}
	if now.Before(s.again) {
		return nil, s.refused
	}
	start := time.Now()
	p, err := s.logIn(ctx)
	s.k.cfg.Observe(Event{Kind: Login, Result: loginResult(err), Took: time.Since(start)})
	if err != nil {
		if s.now != nil && s.now != bad && now.Before(s.now.until) {
			return s.now, nil // it still serves, and the next one tries again
		}
		s.now = nil
		err = s.explain(err)
		if loginResult(err) == Bad {
			s.refused, s.again = err, now.Add(calmDown)
		}
		return nil, err
	}
	s.now, s.refused, s.again = p, nil, time.Time{}
	return p, nil
}

// logIn gets a token for the gateway's own user.
func (s *session) logIn(ctx context.Context) (*pass, error) {
	cfg := s.k.cfg
	provider, err := openstack.NewClient(cfg.URL)
	if err != nil {
		return nil, err
	}
	provider.HTTPClient = *s.k.http
	provider.UserAgent.Prepend("platterd")
	err = openstack.AuthenticateV3(ctx, provider, &tokens.AuthOptions{
		Username: cfg.Username, Password: cfg.Password, DomainName: cfg.UserDomain,
		Scope: tokens.Scope{ProjectName: cfg.Project, DomainName: cfg.ProjectDomain},
	}, gophercloud.EndpointOpts{})
	if err != nil {
		return nil, err
	}
	p := &pass{provider: provider, identity: strings.TrimSuffix(provider.IdentityBase, "/") + "/v3/"}
	made, ok := provider.GetAuthResult().(tokens.CreateResult)
	if !ok || provider.Token() == "" {
		return nil, errors.New("the answer to a login has no token: is this the address of a Keystone v3?")
	}
	t, err := made.ExtractToken()
	if err != nil || t.ExpiresAt.IsZero() {
		return nil, errors.New("the answer to a login is no token: is this the address of a Keystone v3?")
	}
	p.until = t.ExpiresAt
	roles, err := made.ExtractRoles()
	if err != nil {
		return nil, errors.New("the answer to a login has no roles that can be read")
	}
	for _, r := range roles[:min(len(roles), maxRoles)] {
		p.roles = append(p.roles, strings.ToLower(r.Name[:min(len(r.Name), maxText)]))
	}
	slices.Sort(p.roles)
	return p, nil
}

// errRefused is the error of a login that will not succeed by waiting.
var errRefused = errors.New("refused")

func loginResult(err error) Result {
	switch c := code(err); {
	case err == nil:
		return Good
	case errors.Is(err, errRefused) || c == http.StatusUnauthorized || c == http.StatusForbidden || c == http.StatusNotFound || c == http.StatusBadRequest:
		return Bad
	}
	return Failed
}

// explain says what an error of a login means, and what to do.
func (s *session) explain(err error) error {
	cfg := s.k.cfg
	switch c := code(err); c {
	case http.StatusUnauthorized, http.StatusForbidden:
		return refusal{fmt.Errorf("keystone at %s does not let the gateway's user %q of domain %q in to project %q of domain %q (%d): check username, password, project_name and the domains of [auth], and that the user has a role there",
			cfg.URL, cfg.Username, cfg.UserDomain, cfg.Project, cfg.ProjectDomain, c)}
	case http.StatusNotFound, http.StatusBadRequest:
		return refusal{fmt.Errorf("%s answers %d %s to a login: is auth_url the address of a Keystone v3?", cfg.URL, c, http.StatusText(c))}
	}
	return s.k.unreached(err)
}

// A refusal is an errRefused with a text of its own.
type refusal struct{ err error }

func (r refusal) Error() string        { return r.err.Error() }
func (r refusal) Is(target error) bool { return target == errRefused }
