package keystone

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A Config says which Keystone is asked, and as whom. URL, Username, Password
// and Project are required.
type Config struct {
	URL           string // of Keystone, with or without /v3
	Username      string
	Password      string
	UserDomain    string // name; "" is Default
	Project       string // name
	ProjectDomain string // name; "" is Default

	PublicURL string // where clients are told to get tokens; "" is URL
	CAFile    string // PEM file of the authorities that are trusted; "": the system's
	Insecure  bool   // do not check Keystone's certificate

	Anonymous bool // who sends no token may read what is public

	Remember    time.Duration // a valid token; 0 is 10 s
	RememberBad time.Duration // a refused one; 0 is 2 s
	Tokens      int           // remembered at most, of either kind; 0 is 10,000
	Timeout     time.Duration // of one question, a new login included; 0 is 10 s
	Parallel    int           // questions at once; 0 is 32

	Logger  *slog.Logger     // nil: silence
	Observe func(Event)      // nil: nobody
	Now     func() time.Time // nil: time.Now
}

// An Event is something that Config.Observe is told of.
type Event struct {
	Kind   Kind
	Result Result
	Took   time.Duration // zero for what was remembered
}

// A Kind says what an Event was.
type Kind string

// The kinds of events.
const (
	Validation Kind = "validation" // Keystone was asked about a token
	Remembered Kind = "remembered" // the answer was known
	Login      Kind = "login"      // the gateway's own user got a token
)

// A Result says how an Event ended.
type Result string

// The results of events.
const (
	Good   Result = "good"   // valid, let in
	Bad    Result = "bad"    // not valid, not let in
	Failed Result = "failed" // nobody knows: Keystone is away or makes no sense
)

// maxToken is the length of the longest token that is sent on. Those of
// Keystone itself have some 250 characters.
const maxToken = 8 << 10

// serviceRole is the role whose holders may pass on tokens that have ended.
const serviceRole = "service"

// A Keystone is a [wire.Authenticator]. Any number of goroutines may use it.
type Keystone struct {
	cfg    Config
	log    *slog.Logger
	realm  string // of the WWW-Authenticate header
	http   *http.Client
	places chan struct{} // one for each question at once

	login session

	mu    sync.Mutex
	good  *memory
	bad   *memory
	asked map[key]*flight

	trouble trouble
	proven  atomic.Bool // the own user was seen to validate tokens of others
}

// A key names what is remembered.
type key struct {
	token   [sha256.Size]byte
	expired bool // it may have ended
}

// A flight is one question that any number of requests wait for.
type flight struct {
	done chan struct{}
	who  wire.Identity
	err  error
}

// New checks a Config. It does not speak to Keystone, which may be away.
func New(cfg Config) (*Keystone, error) {
	for _, need := range []struct{ name, value string }{{"URL", cfg.URL}, {"user name", cfg.Username}, {"password", cfg.Password}, {"project", cfg.Project}} {
		if need.value == "" {
			return nil, fmt.Errorf("keystone: the %s is missing", need.name)
		}
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("keystone: %q is no http or https URL", cfg.URL)
	}
	cfg.setDefaults()
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	k := &Keystone{
		cfg: cfg, log: cfg.Logger, http: client, places: make(chan struct{}, cfg.Parallel),
		realm: fmt.Sprintf(`Keystone uri="%s"`, strings.ReplaceAll(cfg.PublicURL, `"`, "")),
		good:  newMemory(cfg.Tokens), bad: newMemory(cfg.Tokens), asked: map[key]*flight{},
	}
	k.login.init(k)
	return k, nil
}

func (cfg *Config) setDefaults() {
	cfg.UserDomain = cmp.Or(cfg.UserDomain, "Default")
	cfg.ProjectDomain = cmp.Or(cfg.ProjectDomain, "Default")
	cfg.PublicURL = cmp.Or(cfg.PublicURL, cfg.URL)
	cfg.Remember = cmp.Or(cfg.Remember, 10*time.Second)
	cfg.RememberBad = cmp.Or(cfg.RememberBad, 2*time.Second)
	cfg.Tokens = cmp.Or(cfg.Tokens, 10_000)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Parallel = cmp.Or(cfg.Parallel, 32)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
}

// Authenticate says who sent a request. The error is of status 401 if that is
// nobody who may, and 503 if it cannot be known now.
func (k *Keystone) Authenticate(r *http.Request) (wire.Identity, error) {
	token, service := r.Header.Get("X-Auth-Token"), r.Header.Get("X-Service-Token")
	if token == "" {
		if k.cfg.Anonymous && service == "" {
			return wire.Identity{ReadOnly: true}, nil
		}
		return wire.Identity{}, k.refuse("This request needs a token: get one from Keystone and send it as X-Auth-Token.")
	}
	var by wire.Service
	if service != "" {
		who, err := k.identify(r.Context(), service, false)
		if err != nil {
			return wire.Identity{}, k.answer(err, "X-Service-Token")
		}
		by = wire.Service{UserID: who.UserID, UserDomainID: who.UserDomainID, ProjectID: who.ProjectID, ProjectDomainID: who.ProjectDomainID, Roles: who.Roles}
	}
	who, err := k.identify(r.Context(), token, slices.Contains(by.Roles, serviceRole))
	if err != nil {
		return wire.Identity{}, k.answer(err, "X-Auth-Token")
	}
	who.Service = by
	return who, nil
}

// errInvalid is the error of a token that Keystone does not know any more, or
// never did.
var errInvalid = errors.New("the token is not valid: it has ended, was revoked, or is none")

func (k *Keystone) refuse(format string, args ...any) error {
	return wire.Errorf(http.StatusUnauthorized, format, args...).With("Www-Authenticate", k.realm)
}

// answer makes an error one that the client is told.
func (k *Keystone) answer(err error, header string) error {
	if errors.Is(err, errInvalid) {
		return k.refuse("The %s is not valid: it has ended, was revoked, or is no token of this cloud. Get a new one from Keystone.", header)
	}
	// The client is not told what the log is.
	return fmt.Errorf("%w (%w)", wire.Errorf(http.StatusServiceUnavailable,
		"The token cannot be checked now, because Keystone does not do its part. Try again in some seconds; if it lasts, the operator finds the cause in /readyz and in the log.").With("Retry-After", "5"), err)
}

// fits tells whether a text could be a token at all.
func fits(token string) bool {
	if len(token) > maxToken {
		return false
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// identify says whose a token is, from memory or by asking. The first who asks
// about a token asks for all; that work outlives its request, so that a client
// that hangs up fails nobody else.
func (k *Keystone) identify(ctx context.Context, token string, expired bool) (wire.Identity, error) {
	if !fits(token) {
		return wire.Identity{}, errInvalid
	}
	id := key{sha256.Sum256([]byte(token)), expired}
	k.mu.Lock()
	if who, err, known := k.recall(id); known {
		k.mu.Unlock()
		k.cfg.Observe(Event{Kind: Remembered, Result: resultOf(err)})
		return who, err
	}
	f, waits := k.asked[id]
	if !waits {
		f = &flight{done: make(chan struct{}), err: errors.New("the question about the token was broken off")}
		k.asked[id] = f
	}
	k.mu.Unlock()
	if !waits {
		k.fly(ctx, f, id, token)
	}
	select {
	case <-f.done:
		return f.who, f.err
	case <-ctx.Done():
		return wire.Identity{}, ctx.Err()
	}
}

// recall looks a token up. k.mu is held.
func (k *Keystone) recall(id key) (who wire.Identity, err error, known bool) {
	now := k.cfg.Now()
	if who, ok := k.good.get(id, now); ok {
		return who, nil, true
	}
	if id.expired { // what is valid is valid all the more for a service
		if who, ok := k.good.get(key{token: id.token}, now); ok {
			return who, nil, true
		}
	}
	if _, ok := k.bad.get(id, now); ok {
		return wire.Identity{}, errInvalid, true
	}
	return wire.Identity{}, nil, false
}

// fly asks Keystone and remembers what it said.
func (k *Keystone) fly(ctx context.Context, f *flight, id key, token string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.cfg.Timeout)
	defer cancel()
	defer func() { // also after a panic, or all others would wait
		k.mu.Lock()
		defer k.mu.Unlock()
		now := k.cfg.Now()
		switch {
		case f.err == nil:
			until := now.Add(k.cfg.Remember)
			if !id.expired && f.who.Expires.Before(until) {
				until = f.who.Expires
			}
			k.good.put(id, f.who, until)
		case errors.Is(f.err, errInvalid):
			k.bad.put(id, wire.Identity{}, now.Add(k.cfg.RememberBad))
		}
		delete(k.asked, id)
		close(f.done)
	}()
	start := time.Now()
	f.who, f.err = k.ask(ctx, token, id.expired)
	if f.err == nil {
		k.proven.Store(true)
	}
	k.cfg.Observe(Event{Kind: Validation, Result: resultOf(f.err), Took: time.Since(start)})
	k.trouble.note(k.log, f.err)
}

func resultOf(err error) Result {
	switch {
	case err == nil:
		return Good
	case errors.Is(err, errInvalid):
		return Bad
	}
	return Failed
}
