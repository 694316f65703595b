package wire

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
)

// MaxRequestID is the longest request id that is taken from a client.
const MaxRequestID = 64

// RequestIDHeader names the header that carries the id of a request.
const RequestIDHeader = "X-Openstack-Request-Id"

// An Identity is who asks. The zero Identity is nobody. A token has at most
// one scope: a project, a domain, or the whole system.
type Identity struct {
	UserID          string
	UserDomainID    string
	ProjectID       string // "" is no project: what it makes has no owner
	ProjectDomainID string
	DomainID        string   // set where the token is for a domain
	SystemScope     string   // "all" where the token is for the system
	Roles           []string // as the token lists them
	Admin           bool     // sees everything; the rule context_is_admin says who does
	ReadOnly        bool     // an anonymous reader
	Service         Service  // on whose behalf the request comes, if a service sent it

	Expires time.Time // when the token ends; zero: never
}

// A Service is the service that passes on a user's request: what its own
// token, X-Service-Token, says. The zero Service is none.
type Service struct {
	UserID, UserDomainID       string
	ProjectID, ProjectDomainID string
	Roles                      []string
}

// HasRole tells whether the identity has the role.
func (id Identity) HasRole(role string) bool { return slices.Contains(id.Roles, role) }

// An Authenticator finds out who sent a request. Its error is usually
// Errorf(401, …).
type Authenticator interface {
	Authenticate(r *http.Request) (Identity, error)
}

type contextKey int

const (
	identityKey contextKey = iota
	requestKey
)

type requestIDs struct{ own, global string }

// WithIdentity returns a context that carries the identity.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey, id)
}

// IdentityFrom returns the identity in ctx, or nobody.
func IdentityFrom(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey).(Identity)
	return id
}

// WithRequestID returns a context that carries the id of a request and the
// global id that its client gave, if any.
func WithRequestID(ctx context.Context, id, global string) context.Context {
	return context.WithValue(ctx, requestKey, requestIDs{id, global})
}

// RequestID returns the id of the request that ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	ids, _ := ctx.Value(requestKey).(requestIDs)
	return ids.own
}

// GlobalRequestID returns the id that the client gave its request, or "".
func GlobalRequestID(ctx context.Context) string {
	ids, _ := ctx.Value(requestKey).(requestIDs)
	return ids.global
}

// NewRequestID makes an id for a request.
func NewRequestID() string { return "req-" + uuid.NewString() }

// GlobalID returns the request id that the client sent, if it is fit to be
// logged. One that is too long is an error of status 431.
func GlobalID(r *http.Request) (string, error) {
	id := r.Header.Get(RequestIDHeader)
	if len(id) > MaxRequestID {
		return "", Errorf(http.StatusRequestHeaderFieldsTooLarge,
			"the %s header has %d characters; it may have %d", RequestIDHeader, len(id), MaxRequestID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return "", nil
		}
	}
	return id, nil
}
