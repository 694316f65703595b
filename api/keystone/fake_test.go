package keystone

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A fake answers as Keystone does, and as it should not.
type fake struct {
	*httptest.Server

	mu     sync.Mutex
	tokens map[string]map[string]any // of users: what is said of them
	own    map[string]bool           // the gateway's, as long as they are valid
	made   int                       // own tokens
	asked  int                       // questions about tokens
	roles  []string                  // of the gateway's user
	life   time.Duration             // of own tokens

	onLogin, onAsk http.HandlerFunc // instead of the usual answer
}

func newFake(t testing.TB) *fake {
	f := &fake{tokens: map[string]map[string]any{}, own: map[string]bool{}, roles: []string{"service"}, life: time.Hour}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v3/auth/tokens" {
		http.NotFound(w, r)
		return
	}
	f.mu.Lock()
	special := f.onAsk
	if r.Method == http.MethodPost {
		special = f.onLogin
	} else {
		f.asked++
	}
	f.mu.Unlock()
	switch {
	case special != nil:
		special(w, r)
	case r.Method == http.MethodPost:
		f.logIn(w)
	default:
		f.answer(w, r)
	}
}

func (f *fake) logIn(w http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made++
	id := fmt.Sprint("own-", f.made)
	f.own[id] = true
	w.Header().Set("X-Subject-Token", id)
	w.WriteHeader(http.StatusCreated)
	say := about("platter", time.Now().Add(f.life), f.roles...)
	say["catalog"] = []any{map[string]any{"type": "image", "name": "glance", "endpoints": []any{
		map[string]any{"interface": "public", "region_id": "one", "region": "one", "url": "http://images.example.org:9292"}}}}
	json.NewEncoder(w).Encode(map[string]any{"token": say})
}

func (f *fake) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.own[r.Header.Get("X-Auth-Token")] {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	subject := r.Header.Get("X-Subject-Token")
	say, ok := f.tokens[subject]
	if f.own[subject] {
		say, ok = about("platter", time.Now().Add(f.life), f.roles...), true
	}
	if !ok || say["late"] == true && r.URL.Query().Get("allow_expired") == "" {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"error": {"message": "Could not find token: %s."}}`, subject)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": say})
}

// about is what Keystone says of the token of a user in a project of that
// name.
func about(user string, expires time.Time, roles ...string) map[string]any {
	var list []any
	for _, r := range roles {
		list = append(list, map[string]any{"id": "id-of-" + r, "name": r})
	}
	return map[string]any{
		"methods": []string{"password"}, "expires_at": expires.UTC().Format("2006-01-02T15:04:05.000000Z"), "issued_at": "2020-01-01T00:00:00.000000Z",
		"user":    map[string]any{"id": "id-of-" + user, "name": user, "domain": map[string]any{"id": "default", "name": "Default"}},
		"project": map[string]any{"id": "project-of-" + user, "name": user, "domain": map[string]any{"id": "default", "name": "Default"}},
		"roles":   list,
	}
}

// set says what a token is; nil revokes it.
func (f *fake) set(token string, say map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[token] = say
	if say == nil {
		delete(f.tokens, token)
	}
}

// counts returns how often somebody logged in, and asked about a token.
func (f *fake) counts() (logins, questions int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made, f.asked
}

func (f *fake) forgetOwn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.own)
}

// config asks the fake, with a clock that the test moves.
func (f *fake) config() Config {
	return Config{URL: f.URL, Username: "platter", Password: "correct horse", Project: "service", Timeout: time.Minute}
}

// A clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newKeystone(t testing.TB, cfg Config) *Keystone {
	t.Helper()
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// show sends a token, and a service's if it is not "".
func show(k *Keystone, token, service string) (wire.Identity, error) {
	r := httptest.NewRequest("GET", "http://gateway/v2/images", nil)
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	if service != "" {
		r.Header.Set("X-Service-Token", service)
	}
	return k.Authenticate(r)
}

// status returns the status that a client gets for an error, 200 for none.
func status(err error) int {
	var e *wire.Error
	switch {
	case err == nil:
		return 200
	case errors.As(err, &e):
		return e.Status
	}
	return 0
}

// want checks the status of an answer, and that it says nothing of the token.
func want(t *testing.T, err error, code int, token, text string) {
	t.Helper()
	if got := status(err); got != code {
		t.Fatalf("status %d, want %d: %v", got, code, err)
	}
	if err == nil {
		return
	}
	if len(token) > 8 && strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "correct horse") {
		t.Errorf("the error has a secret in it: %v", err)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want %q in it", err, text)
	}
	var e *wire.Error
	errors.As(err, &e)
	if code == 401 && !strings.HasPrefix(e.Header.Get("Www-Authenticate"), `Keystone uri="http`) {
		t.Errorf("401 without where to get a token: %v", e.Header)
	}
	if code == 503 && strings.Contains(e.Error(), "127.0.0.1") {
		t.Errorf("the client is told what is the operator's: %v", e)
	}
	if code == 503 && e.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}
