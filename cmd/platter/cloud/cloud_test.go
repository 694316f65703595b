package cloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A fake is as much of Keystone as a login needs.
type fake struct {
	*httptest.Server
	logins  []string // what was sent, as JSON
	life    time.Duration
	refuses int // a status, if it lets nobody in
}

func newFake(t *testing.T) *fake {
	f := &fake{life: time.Hour}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	if f.refuses != 0 {
		w.WriteHeader(f.refuses)
		return
	}
	id, status := r.Header.Get("X-Subject-Token"), http.StatusOK
	if r.Method == http.MethodPost {
		var sent struct{ Auth json.RawMessage }
		if json.NewDecoder(r.Body).Decode(&sent) != nil || r.URL.Path != "/v3/auth/tokens" {
			http.NotFound(w, r)
			return
		}
		f.logins = append(f.logins, string(sent.Auth))
		id, status = fmt.Sprint("token-", len(f.logins)), http.StatusCreated
	}
	w.Header().Set("X-Subject-Token", id)
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"token": {"expires_at": %q, "catalog": [{"type": "image", "endpoints": [
		{"interface": "public", "region": "one", "region_id": "one", "url": "http://one:9292"},
		{"interface": "internal", "region": "two", "region_id": "two", "url": "http://two:9292/v2"}]}]}}`,
		time.Now().Add(f.life).UTC().Format("2006-01-02T15:04:05.000000Z"))
}

func environment(pairs ...string) func(string) string {
	m := map[string]string{}
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return func(name string) string { return m[name] }
}

const cloudsYAML = `
clouds:
  mine:
    auth:
      auth_url: URL/v3
      username: alice
      project_name: one
      user_domain_name: people
      project_domain_id: d2
    region_name: two
    interface: internal
  app:
    auth_type: v3applicationcredential
    auth:
      auth_url: URL
      application_credential_id: c1
      application_credential_secret: s1
  empty: {}
`

const secureYAML = "clouds:\n  mine:\n    auth:\n      password: from-secure\n"

func TestLogins(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "clouds.yaml")
	for name, text := range map[string]string{"clouds.yaml": cloudsYAML, "secure.yaml": secureYAML} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "URL", f.URL)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := []string{"OS_AUTH_URL=" + f.URL, "OS_USERNAME=alice", "OS_PASSWORD=secret", "OS_PROJECT_NAME=one"}
	const who = `"identity":{"methods":["password"],"password":{"user":{"domain":{"id":"default"},"name":"alice","password":"secret"}}}`
	for name, c := range map[string]struct {
		env      []string
		want     string // of the login
		endpoint string
	}{
		"variables":     {own, `{` + who + `,"scope":{"project":{"domain":{"id":"default"},"name":"one"}}}`, "http://one:9292/"},
		"project id":    {append(own, "OS_PROJECT_ID=p1"), `{` + who + `,"scope":{"project":{"id":"p1"}}}`, "http://one:9292/"},
		"system":        {append(own, "OS_SYSTEM_SCOPE=all"), `{` + who + `,"scope":{"system":{"all":true}}}`, "http://one:9292/"},
		"user id":       {append(own, "OS_USER_ID=u1", "OS_PROJECT_DOMAIN_NAME=dom"), `{"identity":{"methods":["password"],"password":{"user":{"id":"u1","password":"secret"}}},"scope":{"project":{"domain":{"name":"dom"},"name":"one"}}}`, "http://one:9292/"},
		"clouds.yaml":   {[]string{"OS_CLOUD=mine", "OS_CLIENT_CONFIG_FILE=" + file}, `{"identity":{"methods":["password"],"password":{"user":{"domain":{"name":"people"},"name":"alice","password":"from-secure"}}},"scope":{"project":{"domain":{"id":"d2"},"name":"one"}}}`, "http://two:9292/v2/"},
		"credential":    {[]string{"OS_CLOUD=app", "OS_CLIENT_CONFIG_FILE=" + file}, `{"identity":{"application_credential":{"id":"c1","secret":"s1"},"methods":["application_credential"]}}`, "http://one:9292/"},
		"no such place": {append(own, "OS_REGION_NAME=three"), `{` + who + `,"scope":{"project":{"domain":{"id":"default"},"name":"one"}}}`, `region "three"`},
	} {
		t.Run(name, func(t *testing.T) {
			f.logins = nil
			home, err := Find(environment(c.env...))
			if err != nil {
				t.Fatal(err)
			}
			endpoint, err := home.Endpoint(t.Context())
			if err != nil {
				endpoint = err.Error()
			}
			if !strings.Contains(endpoint, c.endpoint) {
				t.Errorf("endpoint %q, want %q", endpoint, c.endpoint)
			}
			if token, err := home.Token(t.Context(), ""); err != nil || token != "token-1" {
				t.Errorf("token %q, %v", token, err)
			}
			var got, want any
			if len(f.logins) != 1 || json.Unmarshal([]byte(f.logins[0]), &got) != nil || json.Unmarshal([]byte(c.want), &want) != nil {
				t.Fatalf("logins: %q, want %s", f.logins, c.want)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRenew(t *testing.T) {
	f := newFake(t)
	home, err := Find(environment("OS_AUTH_URL="+f.URL, "OS_USERNAME=alice", "OS_PASSWORD=secret", "OS_PROJECT_ID=p"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ bad, want string }{{"", "token-1"}, {"", "token-1"}, {"token-1", "token-2"}, {"token-1", "token-2"}} {
		if token, err := home.Token(t.Context(), step.bad); err != nil || token != step.want {
			t.Errorf("not %q: %q, %v, want %q", step.bad, token, err, step.want)
		}
	}
	f.life = renewBefore / 2 // so that it is about to end
	for _, want := range []string{"token-3", "token-4"} {
		if token, err := home.Token(t.Context(), "token-2"); err != nil || token != want {
			t.Errorf("%q, %v, want %q", token, err, want)
		}
	}
	given, err := Find(environment("OS_AUTH_URL="+f.URL, "OS_TOKEN=mine"))
	if err != nil {
		t.Fatal(err)
	}
	if endpoint, err := given.Endpoint(t.Context()); err != nil || endpoint != "http://one:9292/" {
		t.Errorf("with a token: %q, %v", endpoint, err)
	}
	if _, err := given.Token(t.Context(), "mine"); err == nil || !strings.Contains(err.Error(), "get a new one") {
		t.Errorf("a given token that is refused: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	write := func(text string) string {
		name := filepath.Join(dir, fmt.Sprint(len(text), ".yaml"))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"no user":     {[]string{"OS_AUTH_URL=" + f.URL}, "OS_USERNAME"},
		"no password": {[]string{"OS_AUTH_URL=" + f.URL, "OS_USERNAME=u"}, "OS_PASSWORD"},
		"kind":        {[]string{"OS_AUTH_URL=" + f.URL, "OS_AUTH_TYPE=v3kerberos"}, "v3kerberos"},
		"no file":     {[]string{"OS_CLOUD=x", "OS_CLIENT_CONFIG_FILE=" + dir + "/none"}, "there is no clouds.yaml"},
		"no entry":    {[]string{"OS_CLOUD=x", "OS_CLIENT_CONFIG_FILE=" + write("clouds: {a: {}, b: {}}")}, "it has: a, b"},
		"no auth":     {[]string{"OS_CLOUD=a", "OS_CLIENT_CONFIG_FILE=" + write("clouds: {a: {region_name: x}}")}, "auth section"},
		"no yaml":     {[]string{"OS_CLOUD=a", "OS_CLIENT_CONFIG_FILE=" + write("clouds: [")}, "clouds.yaml"},
		"no address":  {[]string{"OS_CLOUD=a", "OS_CLIENT_CONFIG_FILE=" + write("clouds: {a: {auth: {username: u, password: p}}}")}, "auth_url"},
		"no ca":       {[]string{"OS_AUTH_URL=" + f.URL, "OS_USERNAME=u", "OS_PASSWORD=p", "OS_CACERT=" + dir + "/none"}, "CA cert"},
	} {
		if _, err := Find(environment(c.env...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, env := range [][]string{nil, {"OS_AUTH_TYPE=none", "OS_AUTH_URL=" + f.URL}, {"OS_USERNAME=u"}} {
		if home, err := Find(environment(env...)); home != nil || err != nil {
			t.Errorf("%v: %v, %v, want no cloud", env, home, err)
		}
	}
	home, err := Find(environment("OS_AUTH_URL="+f.URL, "OS_USERNAME=u", "OS_PASSWORD=p", "OS_PROJECT_ID=p"))
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]string{401: "check the user", 404: "address of a Keystone v3", 503: "answers 503"} {
		f.refuses = status
		if _, err := home.Token(t.Context(), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v, want %q", status, err, want)
		}
	}
}
