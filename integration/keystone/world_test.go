//go:build integration

package keystone

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// A user is somebody in a project.
type user struct{ name, project string }

const password = "a-password"

// The people of these tests.
var (
	alice  = user{"alice", "one"}   // member
	rita   = user{"rita", "one"}    // reader
	bob    = user{"bob", "two"}     // member
	nova   = user{"nova", "nova"}   // service
	myself = user{"myself", "ours"} // service: the gateway
)

// A world is a Keystone with people, and a gateway that asks it.
type world struct {
	keystone *servers.Keystone
	gateway  *gateway.Gateway
}

func newWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	k := servers.StartKeystone(t)
	for u, role := range map[user]string{alice: "member", rita: "reader", bob: "member", nova: "service", myself: "service"} {
		k.Grant(t, u.name, password, u.project, role)
	}
	w := &world{keystone: k}
	w.gateway = w.newGateway(t, "2s", flags...)
	k.AddService(t, "image", "glance", w.gateway.URL)
	w.gateway.Run(t)
	return w
}

// newGateway makes a gateway that remembers tokens for a time.
func (w *world) newGateway(t *testing.T, remember string, flags ...string) *gateway.Gateway {
	return gateway.New(t, append(flags, "--auth", "keystone", "PLATTER_AUTH_AUTH_URL="+w.keystone.URL, "PLATTER_AUTH_USERNAME="+myself.name,
		"PLATTER_AUTH_PASSWORD="+password, "PLATTER_AUTH_PROJECT_NAME="+myself.project, "PLATTER_AUTH_CACHE_TIME="+remember)...)
}

// token returns a new token of a user.
func (w *world) token(t *testing.T, u user) string {
	t.Helper()
	return w.keystone.Token(t, u.name, password, u.project)
}

// run runs a client as a user who has a password and nothing else, and returns
// what it said.
func (w *world) run(t *testing.T, u user, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "OS_") && !strings.HasPrefix(kv, "PLATTER_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	pass := password
	if u.name == "admin" {
		pass = w.keystone.AdminPassword
	}
	cmd.Env = append(cmd.Env, "OS_AUTH_URL="+w.keystone.URL, "OS_USERNAME="+u.name, "OS_PASSWORD="+pass, "OS_PROJECT_NAME="+u.project,
		"OS_USER_DOMAIN_ID=default", "OS_PROJECT_DOMAIN_ID=default", "OS_IDENTITY_API_VERSION=3", "OS_REGION_NAME="+w.keystone.Region, "PYTHONWARNINGS=ignore")
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %v as %s: %w\n%s%s", name, args, u.name, err, &out, &problem)
	}
	return strings.TrimSpace(out.String()), nil
}

// must is run for what has to succeed.
func (w *world) must(t *testing.T, u user, name string, args ...string) string {
	t.Helper()
	out, err := w.run(t, u, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused is run for what has to fail with a text.
func (w *world) refused(t *testing.T, text string, u user, name string, args ...string) {
	t.Helper()
	out, err := w.run(t, u, name, args...)
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s %v as %s: %v, want %q\n%s", name, args, u.name, err, text, out)
	}
}

// An answer is what a gateway answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// field returns a text of a JSON object.
func (a answer) field(name string) string {
	var fields map[string]any
	json.Unmarshal([]byte(a.body), &fields) // what is no object has no fields
	text, _ := fields[name].(string)
	return text
}

// ask sends a request; header is "Key: value".
func ask(t *testing.T, g *gateway.Gateway, token, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// expect asks and checks the status.
func expect(t *testing.T, g *gateway.Gateway, status int, token, method, path, body string, header ...string) answer {
	t.Helper()
	a := ask(t, g, token, method, path, body, header...)
	if a.status != status {
		t.Fatalf("%s %s: %d, want %d\n%s", method, path, a.status, status, a.body)
	}
	return a
}
