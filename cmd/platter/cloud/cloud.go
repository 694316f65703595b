package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
)

// renewBefore is how long before its end a token is replaced: what begins with
// it may take a while.
const renewBefore = 5 * time.Minute

// loginTimeout bounds a login.
const loginTimeout = time.Minute

// A Cloud is an OpenStack cloud with a user of it. Any number of goroutines
// may use it.
type Cloud struct {
	settings settings
	options  *tokens.AuthOptions
	http     *http.Client

	mu       sync.Mutex
	provider *gophercloud.ProviderClient // nil: not logged in
	until    time.Time
}

// Find returns the cloud that the environment means, or nil if it means none.
func Find(env func(string) string) (*Cloud, error) {
	s, ok, err := read(env)
	if !ok {
		return nil, err
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = s.tls
	return &Cloud{settings: s, options: options, http: &http.Client{Transport: t, CheckRedirect: sameHost}}, nil
}

// sameHost refuses to follow to another host, since the token would go along.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Host != via[0].URL.Host || len(via) > 5 {
		return fmt.Errorf("it leads elsewhere, to %s://%s, which is not followed", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// HTTP returns a client that trusts whom the cloud's settings say.
func (c *Cloud) HTTP() *http.Client { return c.http }

// URL returns the address of Keystone.
func (c *Cloud) URL() string { return c.settings.auth.AuthURL }

// Token returns a token that is not bad, which is one that was refused; bad
// may be "". It logs in where that is needed.
func (c *Cloud) Token(ctx context.Context, bad string) (string, error) {
	p, err := c.session(ctx, bad)
	if err != nil {
		return "", err
	}
	return p.Token(), nil
}

// Endpoint returns where the catalog has the image service.
func (c *Cloud) Endpoint(ctx context.Context) (string, error) {
	p, err := c.session(ctx, "")
	if err != nil {
		return "", err
	}
	where := c.settings.where
	where.ApplyDefaults("image")
	found, err := p.EndpointLocator(where)
	if err != nil {
		region := ""
		if where.Region != "" {
			region = fmt.Sprintf(" in the region %q", where.Region)
		}
		return "", fmt.Errorf("the catalog of Keystone at %s has no %s endpoint of type image%s: name the gateway with --url or PLATTER_URL", c.URL(), where.Availability, region)
	}
	return found, nil
}

// errGiven is the error of a token that cannot be replaced.
var errGiven = errors.New("the token was given, and is not taken any more: get a new one, or set OS_USERNAME and OS_PASSWORD")

func (c *Cloud) session(ctx context.Context, bad string) (*gophercloud.ProviderClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	given := c.options.TokenID != ""
	if c.provider != nil && c.provider.Token() != bad && (given || time.Now().Before(c.until.Add(-renewBefore))) {
		return c.provider, nil
	}
	if given && bad != "" {
		return nil, errGiven
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	p, err := openstack.NewClient(c.URL())
	if err != nil {
		return nil, fmt.Errorf("the address of Keystone, %q: %w", c.URL(), err)
	}
	p.HTTPClient = *c.http
	p.UserAgent.Prepend("platter")
	o := *c.options
	if err := openstack.AuthenticateV3(ctx, p, &o, gophercloud.EndpointOpts{}); err != nil {
		return nil, c.explain(err)
	}
	if p.Token() == "" {
		return nil, fmt.Errorf("keystone at %s gave no token: is that the address of a Keystone v3?", c.URL())
	}
	c.provider, c.until = p, ends(p)
	return p, nil
}

// ends returns when the token of p ends; one of which that is not known is
// taken to be good until somebody refuses it.
func ends(p *gophercloud.ProviderClient) time.Time {
	if r, ok := p.GetAuthResult().(tokens.CreateResult); ok {
		if t, err := r.ExtractToken(); err == nil {
			return t.ExpiresAt
		}
	}
	return time.Now().AddDate(1, 0, 0)
}

// explain says what an error of a login means, and what to do. The answer's
// text is left out: it may be anything.
func (c *Cloud) explain(err error) error {
	var answer gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &answer) {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return fmt.Errorf("keystone at %s: %w", c.URL(), err)
	}
	switch answer.Actual {
	case http.StatusUnauthorized:
		if c.options.TokenID != "" {
			return errGiven
		}
		return &RefusedError{fmt.Sprintf("keystone at %s does not let you in: check the user, the password, the project and their domains", c.URL())}
	case http.StatusNotFound, http.StatusBadRequest:
		return fmt.Errorf("%s answers %d %s to a login: is that the address of a Keystone v3?", c.URL(), answer.Actual, http.StatusText(answer.Actual))
	}
	return fmt.Errorf("keystone at %s answers %d %s", c.URL(), answer.Actual, http.StatusText(answer.Actual))
}

// A RefusedError says that Keystone knows no such user, or another password.
type RefusedError struct{ text string }

// Error returns the text for the user.
func (e *RefusedError) Error() string { return e.text }
