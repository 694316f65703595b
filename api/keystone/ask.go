package keystone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/seed-478a8fee/platter/api/wire"
)

// The bounds of what a token may say, well above Keystone's own.
const (
	maxRoles = 1000
	maxText  = 1024 // bytes of an id or a name
)

// ask asks Keystone about a token, with a new token of the gateway's own if it
// does not know that any more.
func (k *Keystone) ask(ctx context.Context, token string, expired bool) (wire.Identity, error) {
	select {
	case k.places <- struct{}{}:
		defer func() { <-k.places }()
	case <-ctx.Done():
		return wire.Identity{}, fmt.Errorf("%d questions are under way, and none has ended: %w", k.cfg.Parallel, ctx.Err())
	}
	own, err := k.login.get(ctx, nil)
	if err != nil {
		return wire.Identity{}, err
	}
	who, err := k.askAs(ctx, own, token, expired)
	if code(err) != http.StatusUnauthorized {
		return who, k.explain(own, err)
	}
	if own, err = k.login.get(ctx, own); err != nil {
		return wire.Identity{}, err
	}
	who, err = k.askAs(ctx, own, token, expired)
	return who, k.explain(own, err)
}

// askAs asks with one token of our own. What it is good for is logged by
// nobody: errors have the status and no text of the answer.
func (k *Keystone) askAs(ctx context.Context, own *pass, token string, expired bool) (wire.Identity, error) {
	query := "?nocatalog=1"
	if expired {
		query += "&allow_expired=1"
	}
	var body json.RawMessage
	_, err := own.provider.Request(ctx, http.MethodGet, own.identity+"auth/tokens"+query, &gophercloud.RequestOpts{
		JSONResponse: &body,
		OkCodes:      []int{http.StatusOK},
		MoreHeaders:  map[string]string{"X-Subject-Token": token},
	})
	if code(err) == http.StatusNotFound {
		return wire.Identity{}, errInvalid
	}
	if err != nil {
		return wire.Identity{}, err
	}
	t, err := parse(body)
	if err != nil {
		return wire.Identity{}, err
	}
	if !expired && !k.cfg.Now().Before(t.Expires) {
		return wire.Identity{}, errInvalid
	}
	return t.identity(), nil
}

// code returns the status of an error that is an answer, or 0.
func code(err error) int {
	var answer gophercloud.ErrUnexpectedResponseCode
	if errors.As(err, &answer) {
		return answer.Actual
	}
	return 0
}

// explain says what an error of a question means, and to the operator what to
// do.
func (k *Keystone) explain(own *pass, err error) error {
	switch c := code(err); {
	case err == nil || errors.Is(err, errInvalid):
		return err
	case c == http.StatusUnauthorized:
		return fmt.Errorf("keystone at %s gave the gateway's user %q a token and does not know it (401): do all its servers have the same keys?", k.cfg.URL, k.cfg.Username)
	case c == http.StatusForbidden:
		return fmt.Errorf("keystone at %s does not let the gateway's user %q validate tokens (403); its roles on project %q are [%s]: give it the role %s or admin there",
			k.cfg.URL, k.cfg.Username, k.cfg.Project, strings.Join(own.roles, " "), serviceRole)
	}
	return k.unreached(err)
}

// unreached describes an error that is no refusal.
func (k *Keystone) unreached(err error) error {
	if c := code(err); c != 0 {
		return fmt.Errorf("keystone at %s answers %d %s", k.cfg.URL, c, http.StatusText(c))
	}
	return fmt.Errorf("keystone at %s: %w", k.cfg.URL, plain(err))
}

// A token is what Keystone says of one.
type token struct {
	Expires time.Time `json:"expires_at"`
	User    struct {
		ID, Name string
		Domain   struct{ ID string }
	}
	Project *struct {
		ID, Name string
		Domain   struct{ ID string }
	}
	Domain *struct{ ID string }
	System *struct{ All bool }
	Roles  []struct{ Name string }
}

// parse reads an answer and checks that it makes sense.
func parse(body []byte) (token, error) {
	var answer struct{ Token *token }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == nil {
		return token{}, errors.New("the answer is no token: is this the address of a Keystone v3?")
	}
	t := *answer.Token
	texts := []string{t.User.ID, t.User.Name, t.User.Domain.ID}
	if t.Project != nil {
		texts = append(texts, t.Project.ID, t.Project.Name, t.Project.Domain.ID)
	}
	if t.Domain != nil {
		texts = append(texts, t.Domain.ID)
	}
	for _, r := range t.Roles {
		texts = append(texts, r.Name)
	}
	tooLong := slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxText })
	if t.User.ID == "" || t.Expires.IsZero() || tooLong || len(t.Roles) > maxRoles {
		return token{}, errors.New("the answer is no token that makes sense: it has no user, no end, or too much of something")
	}
	return t, nil
}

// roles returns the names of the roles in lower case, as Glance has them.
// Keystone has added those that others imply.
func (t token) roles() []string {
	var out []string
	for _, r := range t.Roles {
		out = append(out, strings.ToLower(r.Name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (t token) identity() wire.Identity {
	who := wire.Identity{UserID: t.User.ID, UserDomainID: t.User.Domain.ID, Roles: t.roles(), Expires: t.Expires}
	if t.Project != nil {
		who.ProjectID, who.ProjectDomainID = t.Project.ID, t.Project.Domain.ID
	}
	if t.Domain != nil {
		who.DomainID = t.Domain.ID
	}
	if t.System != nil && t.System.All {
		who.SystemScope = "all"
	}
	who.Admin = who.HasRole("admin")
	return who
}
