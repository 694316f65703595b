package keystone

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-478a8fee/platter/api/wire"
)

func TestIdentities(t *testing.T) {
	f := newFake(t)
	k := newKeystone(t, f.config())
	later := time.Now().Add(time.Hour)
	domain := about("carol", later, "member")
	delete(domain, "project")
	domain["domain"] = map[string]any{"id": "d1", "name": "One"}
	system := about("dave", later, "reader")
	delete(system, "project")
	system["system"] = map[string]any{"all": true}
	unscoped := about("erin", later)
	delete(unscoped, "project")
	base := func(user string, roles ...string) wire.Identity {
		return wire.Identity{UserID: "id-of-" + user, UserDomainID: "default", Roles: roles}
	}
	in := func(id wire.Identity, user string) wire.Identity {
		id.ProjectID, id.ProjectDomainID = "project-of-"+user, "default"
		return id
	}
	admin := in(base("alice", "admin", "member", "reader"), "alice")
	admin.Admin = true
	ofDomain, ofSystem := base("carol", "member"), base("dave", "reader")
	ofDomain.DomainID, ofSystem.SystemScope = "d1", "all"
	for name, c := range map[string]struct {
		say  map[string]any
		want wire.Identity
	}{
		"admin":    {about("alice", later, "Admin", "member", "reader", "member"), admin},
		"member":   {about("bob", later, "member", "reader"), in(base("bob", "member", "reader"), "bob")},
		"domain":   {domain, ofDomain},
		"system":   {system, ofSystem},
		"unscoped": {unscoped, base("erin")},
	} {
		t.Run(name, func(t *testing.T) {
			f.set("token-"+name, c.say)
			got, err := show(k, "token-"+name, "")
			if err != nil {
				t.Fatal(err)
			}
			if d := time.Until(got.Expires); d < 50*time.Minute || d > time.Hour {
				t.Errorf("it expires in %v", d)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(wire.Identity{}, "Expires"), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsNoToken(t *testing.T) {
	f := newFake(t)
	k := newKeystone(t, f.config())
	_, err := show(k, "", "")
	want(t, err, 401, "", "needs a token")
	for _, odd := range []string{strings.Repeat("x", maxToken+1), "with space", "non-äscii", "\x7f", "\xff\xfe"} {
		_, err := show(k, odd, "")
		want(t, err, 401, odd, "not valid")
	}
	if _, asked := f.counts(); asked != 0 {
		t.Errorf("Keystone was asked %d times about what cannot be a token", asked)
	}
	_, err = show(k, "made-up-token", "")
	want(t, err, 401, "made-up-token", "not valid")
}

func TestAnonymous(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Anonymous = true
	k := newKeystone(t, cfg)
	who, err := show(k, "", "")
	if err != nil || !who.ReadOnly || who.Admin || who.ProjectID != "" || len(who.Roles) > 0 {
		t.Errorf("without a token: %+v, %v", who, err)
	}
	_, err = show(k, "made-up-token", "")
	want(t, err, 401, "made-up-token", "not valid")
	_, err = show(k, "", "made-up-token")
	want(t, err, 401, "made-up-token", "needs a token")
}

// TestOddAnswers has Keystone answer all that a server may. The caller's token
// is never to blame for it.
func TestOddAnswers(t *testing.T) {
	const token = "gAAAAAB-the-token-of-somebody"
	reply := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Subject-Token", "own")
			w.WriteHeader(code)
			fmt.Fprint(w, strings.ReplaceAll(body, "TOKEN", r.Header.Get("X-Subject-Token")))
		}
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or the server does not see that the client is gone
		<-r.Context().Done()
	}
	elsewhere := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://evil.example.org/v3/auth/tokens", http.StatusTemporaryRedirect)
	}
	flood := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			for piece := strings.Repeat(" ", 1<<20); ; {
				if _, err := fmt.Fprint(w, piece); err != nil {
					return
				}
			}
		}
	}
	cut := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"token": {"user"`)
	}
	many := `{"token": {"expires_at": "2100-01-01T00:00:00Z", "user": {"id": "u"}, "roles": [` + strings.Repeat(`{"name":"r"},`, maxRoles) + `{"name":"r"}]}}`
	for name, c := range map[string]struct {
		ask, login http.HandlerFunc
		text       string
	}{
		"401":             {ask: reply(401, "TOKEN"), text: "same keys"},
		"403":             {ask: reply(403, "TOKEN"), text: "give it the role service"},
		"418":             {ask: reply(418, "TOKEN"), text: "answers 418"},
		"500":             {ask: reply(500, "TOKEN"), text: "answers 500"},
		"503":             {ask: reply(503, "TOKEN"), text: "answers 503"},
		"204":             {ask: reply(204, ""), text: "answers 204"},
		"slow":            {ask: hang, text: "no answer in time"},
		"redirect":        {ask: elsewhere, text: "set auth_url"},
		"huge":            {ask: flood(200), text: "too long"},
		"html":            {ask: reply(200, "<html>TOKEN"), text: "no JSON"},
		"cut off":         {ask: cut, text: "cut off"},
		"nothing":         {ask: reply(200, ""), text: "cut off"},
		"array":           {ask: reply(200, "[]"), text: "no token"},
		"null":            {ask: reply(200, `{"token": null}`), text: "no token"},
		"no user":         {ask: reply(200, `{"token": {"expires_at": "2100-01-01T00:00:00Z"}}`), text: "makes sense"},
		"no end":          {ask: reply(200, `{"token": {"user": {"id": "u"}}}`), text: "makes sense"},
		"other types":     {ask: reply(200, `{"token": {"user": ["TOKEN"], "roles": 7}}`), text: "no token"},
		"long name":       {ask: reply(200, `{"token": {"expires_at": "2100-01-01T00:00:00Z", "user": {"id": "`+strings.Repeat("u", maxText+1)+`"}}}`), text: "too much"},
		"many roles":      {ask: reply(200, many), text: "too much"},
		"deep":            {ask: reply(200, strings.Repeat("[", 200<<10)), text: "keystone"},
		"login 401":       {login: reply(401, ""), text: "check username, password"},
		"login 403":       {login: reply(403, ""), text: "check username, password"},
		"login 404":       {login: reply(404, ""), text: "address of a Keystone v3"},
		"login 500":       {login: reply(500, ""), text: "answers 500"},
		"login slow":      {login: hang, text: "no answer in time"},
		"login redirect":  {login: elsewhere, text: "set auth_url"},
		"login huge":      {login: flood(201), text: "too long"},
		"login huge 500":  {login: flood(500), text: "answers 500"},
		"login html":      {login: reply(201, "<html>"), text: "no JSON"},
		"login no end":    {login: reply(201, `{"token": {}}`), text: "address of a Keystone v3"},
		"login odd roles": {login: reply(201, `{"token": {"expires_at": "2100-01-01T00:00:00Z", "roles": 1}}`), text: "roles"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.onAsk, f.onLogin = c.ask, c.login
			cfg := f.config()
			if strings.Contains(name, "slow") {
				cfg.Timeout = 50 * time.Millisecond
			}
			k := newKeystone(t, cfg)
			_, err := show(k, token, "")
			want(t, err, 503, token, c.text)
			if k.Trouble() == nil {
				t.Error("nobody is told of the trouble")
			}
			f.mu.Lock()
			f.onAsk, f.onLogin = nil, nil
			f.mu.Unlock()
			f.set(token, about("alice", time.Now().Add(time.Hour), "member"))
			k.login.again = time.Time{}
			k.cfg.Timeout = time.Minute
			if _, err := show(k, token, ""); err != nil {
				t.Errorf("after the trouble: %v", err)
			}
			if err := k.Trouble(); err != nil {
				t.Errorf("the trouble is over: %v", err)
			}
		})
	}
}

func TestOwnTokenEnds(t *testing.T) {
	f, c := newFake(t), newClock()
	cfg := f.config()
	cfg.Now = c.now
	k := newKeystone(t, cfg)
	ask := func(token string, logins int) {
		t.Helper()
		f.set(token, about("alice", c.now().Add(24*time.Hour), "member"))
		if _, err := show(k, token, ""); err != nil {
			t.Fatal(err)
		}
		if made, _ := f.counts(); made != logins {
			t.Errorf("%d logins, want %d", made, logins)
		}
	}
	ask("token-1", 1)
	ask("token-2", 1)
	f.forgetOwn() // as after a change of the password, or of Keystone's keys
	ask("token-3", 2)
	c.move(time.Hour - renewBefore/2)
	ask("token-4", 3)

	// One that cannot be renewed yet serves to its end.
	f.mu.Lock()
	f.life = 24 * time.Hour
	f.mu.Unlock()
	c.move(time.Hour)
	ask("token-5", 4)
	f.mu.Lock()
	f.onLogin = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	f.mu.Unlock()
	c.move(22*time.Hour - renewBefore/2)
	ask("token-6", 4)
}

// TestRefusedLogin checks that a wrong password is not tried for each request:
// Keystone locks out users who fail too often.
func TestRefusedLogin(t *testing.T) {
	f, c := newFake(t), newClock()
	var tries atomic.Int64
	f.onLogin = func(w http.ResponseWriter, _ *http.Request) { tries.Add(1); w.WriteHeader(401) }
	cfg := f.config()
	cfg.Now = c.now
	k := newKeystone(t, cfg)
	for i := range 20 {
		_, err := show(k, fmt.Sprint("token-", i), "")
		want(t, err, 503, "", "check username, password")
	}
	if tries.Load() != 1 {
		t.Errorf("%d logins with a wrong password", tries.Load())
	}
	c.move(calmDown)
	f.set("token-0", about("alice", c.now().Add(time.Hour), "member"))
	f.mu.Lock()
	f.onLogin = nil
	f.mu.Unlock()
	if _, err := show(k, "token-0", ""); err != nil {
		t.Error(err)
	}
}

func TestRemembered(t *testing.T) {
	f, c := newFake(t), newClock()
	cfg := f.config()
	cfg.Now = c.now
	k := newKeystone(t, cfg)
	check := func(token string, code, questions int) {
		t.Helper()
		_, err := show(k, token, "")
		want(t, err, code, token, "")
		if _, asked := f.counts(); asked != questions {
			t.Errorf("%s: Keystone was asked %d times, want %d", token, asked, questions)
		}
	}
	f.set("long-lived", about("alice", c.now().Add(time.Hour), "member"))
	f.set("short-lived", about("bob", c.now().Add(4*time.Second), "member"))
	check("long-lived", 200, 1)
	check("long-lived", 200, 1)
	check("short-lived", 200, 2)
	check("made-up-token", 401, 3)
	check("made-up-token", 401, 3)

	f.set("long-lived", nil) // revoked
	c.move(2 * time.Second)
	check("made-up-token", 401, 4) // remembered for 2 s
	f.set("made-up-token", about("carol", c.now().Add(time.Hour)))
	c.move(2 * time.Second)
	check("made-up-token", 200, 5)
	check("short-lived", 401, 6) // not for longer than it lives, whatever Keystone's clock says
	c.move(6*time.Second - time.Millisecond)
	check("long-lived", 200, 6)
	c.move(time.Millisecond)
	check("long-lived", 401, 7)
}

func TestServiceToken(t *testing.T) {
	f := newFake(t)
	k := newKeystone(t, f.config())
	later := time.Now().Add(time.Hour)
	late := about("alice", time.Now().Add(-time.Hour), "member")
	late["late"] = true
	f.set("token-of-alice", about("alice", later, "member"))
	f.set("late-token-of-alice", late)
	f.set("token-of-nova", about("nova", later, "service", "reader"))
	f.set("token-of-bob", about("bob", later, "member"))
	nova := wire.Service{UserID: "id-of-nova", UserDomainID: "default", ProjectID: "project-of-nova", ProjectDomainID: "default", Roles: []string{"reader", "service"}}

	for range 2 { // the second time from memory
		who, err := show(k, "token-of-alice", "token-of-nova")
		if diff := cmp.Diff(nova, who.Service); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		if who.UserID != "id-of-alice" || who.HasRole("service") {
			t.Errorf("the user is %+v", who)
		}
		_, err = show(k, "late-token-of-alice", "")
		want(t, err, 401, "late-token-of-alice", "X-Auth-Token")
		who, err = show(k, "late-token-of-alice", "token-of-nova")
		if err != nil || who.UserID != "id-of-alice" {
			t.Errorf("a token that has ended, with a service's: %+v, %v", who, err)
		}
		_, err = show(k, "late-token-of-alice", "token-of-bob")
		want(t, err, 401, "late-token-of-alice", "X-Auth-Token")
		_, err = show(k, "token-of-alice", "made-up-token")
		want(t, err, 401, "made-up-token", "X-Service-Token")
		_, err = show(k, "token-of-alice", "late-token-of-alice")
		want(t, err, 401, "late-token-of-alice", "X-Service-Token")
		who, err = show(k, "token-of-alice", "")
		if err != nil || who.Service.UserID != "" {
			t.Errorf("without a service: %+v, %v", who, err)
		}
	}
}

func TestOneQuestionForMany(t *testing.T) {
	f := newFake(t)
	arrived, let := make(chan struct{}), make(chan struct{})
	f.onAsk = func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // twice would be a panic
		<-let
		f.answer(w, r)
	}
	f.set("token-of-alice", about("alice", time.Now().Add(time.Hour), "member"))
	k := newKeystone(t, f.config())
	ctx, hangUp := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "GET", "http://gateway/v2/images", nil)
	r.Header.Set("X-Auth-Token", "token-of-alice")
	var all sync.WaitGroup
	all.Go(func() { k.Authenticate(r) }) // its client does not wait
	<-arrived
	hangUp()
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Authenticate(r.WithContext(impatient)); status(err) != 503 {
		t.Errorf("who waits no longer got %v", err)
	}
	for range 50 {
		all.Go(func() {
			if _, err := show(k, "token-of-alice", ""); err != nil {
				t.Error(err)
			}
		})
	}
	close(let)
	all.Wait()
	if logins, asked := f.counts(); logins != 1 || asked != 1 {
		t.Errorf("%d logins and %d questions for one token", logins, asked)
	}
}

func TestOutage(t *testing.T) {
	f, c := newFake(t), newClock()
	cfg := f.config()
	cfg.Now = c.now
	var mu sync.Mutex
	events := map[string]int{}
	cfg.Observe = func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		events[string(e.Kind)+" "+string(e.Result)]++
	}
	k := newKeystone(t, cfg)
	f.set("token-of-alice", about("alice", c.now().Add(time.Hour), "member"))
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.onAsk = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	f.onLogin = f.onAsk
	f.mu.Unlock()
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Errorf("what was checked a moment ago: %v", err)
	}
	for range 3 { // an outage is not remembered
		_, err := show(k, "token-of-bob", "")
		want(t, err, 503, "token-of-bob", "keystone at "+f.URL)
	}
	c.move(cfg.Remember + 10*time.Second)
	_, err := show(k, "token-of-alice", "")
	want(t, err, 503, "token-of-alice", "")
	k.try(t.Context())
	if k.Trouble() == nil {
		t.Error("no trouble while Keystone is away")
	}
	f.mu.Lock()
	f.onAsk, f.onLogin = nil, nil
	f.mu.Unlock()
	k.try(t.Context())
	if err := k.Trouble(); err != nil {
		t.Errorf("the trouble is over: %v", err)
	}
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int{"login good": 1, "validation good": 2, "validation failed": 4, "remembered good": 1}, events); diff != "" {
		t.Error(diff)
	}
}

// TestWeakUser has the gateway run as a user who cannot validate tokens. That
// is said before the first request.
func TestWeakUser(t *testing.T) {
	f := newFake(t)
	f.roles = []string{"Member"}
	k := newKeystone(t, f.config())
	k.try(t.Context())
	if err := k.Trouble(); err == nil || !strings.Contains(err.Error(), `roles [member] on project "service"`) {
		t.Errorf("trouble: %v", err)
	}
	// A Keystone with other rules may let it.
	f.set("token-of-alice", about("alice", time.Now().Add(time.Hour), "member"))
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Fatal(err)
	}
	k.try(t.Context())
	if err := k.Trouble(); err != nil {
		t.Errorf("it does validate: %v", err)
	}
}

func TestRubbishPushesOutRubbish(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Tokens, cfg.Remember = 10, time.Hour
	k := newKeystone(t, cfg)
	f.set("token-of-alice", about("alice", time.Now().Add(2*time.Hour), "member"))
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		_, err := show(k, fmt.Sprint("made-up-", i), "")
		want(t, err, 401, "", "")
	}
	_, before := f.counts()
	if _, err := show(k, "token-of-alice", ""); err != nil {
		t.Fatal(err)
	}
	if _, after := f.counts(); after != before {
		t.Error("made-up tokens pushed out a good one")
	}
	for i := range 100 {
		token := fmt.Sprint("token-", i)
		f.set(token, about("alice", time.Now().Add(2*time.Hour), "member"))
		if _, err := show(k, token, ""); err != nil {
			t.Fatal(err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range []*memory{k.good, k.bad} {
		if len(m.entries) != 10 || m.order.Len() != 10 {
			t.Errorf("%d and %d entries of 10", len(m.entries), m.order.Len())
		}
		m.tidy(time.Now().Add(3 * time.Hour))
		if len(m.entries) != 0 || m.order.Len() != 0 {
			t.Errorf("%d stale entries stay", len(m.entries))
		}
	}
}

func TestTLS(t *testing.T) {
	f := newFake(t)
	f.set("token-of-alice", about("alice", time.Now().Add(time.Hour), "member"))
	server := httptest.NewTLSServer(f)
	defer server.Close()
	server.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := f.config()
	cfg.URL = server.URL + "/v3/"
	_, err := show(newKeystone(t, cfg), "token-of-alice", "")
	want(t, err, 503, "", "certificate")
	cfg.CAFile = ca
	if _, err := show(newKeystone(t, cfg), "token-of-alice", ""); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	cfg.CAFile, cfg.Insecure = "", true
	if _, err := show(newKeystone(t, cfg), "token-of-alice", ""); err != nil {
		t.Errorf("without a check: %v", err)
	}
	cfg.CAFile = filepath.Join(t.TempDir(), "missing")
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("no such ca_file: %v", err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{URL: "http://keystone:5000", Username: "u", Password: "p", Project: "s"}
	for name, change := range map[string]func(*Config){
		"URL": func(c *Config) { c.URL = "" }, "user name": func(c *Config) { c.Username = "" }, "password": func(c *Config) { c.Password = "" },
		"project": func(c *Config) { c.Project = "" }, "ftp": func(c *Config) { c.URL = "ftp://keystone" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEndpoint(t *testing.T) {
	k := newKeystone(t, newFake(t).config())
	if url, err := k.Endpoint(t.Context(), "image", "one"); err != nil || url != "http://images.example.org:9292/" {
		t.Errorf("image: %q, %v", url, err)
	}
	if _, err := k.Endpoint(t.Context(), "dns", ""); err == nil || !strings.Contains(err.Error(), "dns") {
		t.Errorf("dns: %v", err)
	}
}

func TestRun(t *testing.T) {
	f := newFake(t)
	k := newKeystone(t, f.config())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Run(ctx) }()
	for {
		if logins, _ := f.counts(); logins > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := k.Trouble(); err != nil {
		t.Errorf("a stop is no trouble: %v", err)
	}
}

// FuzzParse has Keystone say anything. What is taken is bounded.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"token": {"expires_at": "2100-01-01T00:00:00.000000Z", "user": {"id": "u", "name": "n", "domain": {"id": "default"}}, "project": {"id": "p"}, "roles": [{"name": "Admin"}]}}`))
	f.Add([]byte(`{"token": {"expires_at": "x", "system": {"all": true}, "domain": {}}}`))
	f.Add([]byte(`{"token": [`))
	f.Fuzz(func(t *testing.T, body []byte) {
		k, err := parse(body)
		if err != nil {
			return
		}
		who := k.identity()
		if who.UserID == "" || who.Expires.IsZero() || len(who.Roles) > maxRoles || len(who.UserID)+len(who.ProjectID)+len(who.DomainID) > 3*maxText {
			t.Errorf("taken: %+v", who)
		}
		for _, r := range who.Roles {
			if r != strings.ToLower(r) {
				t.Errorf("role %q", r)
			}
		}
	})
}
