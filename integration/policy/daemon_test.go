//go:build integration

package policy

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestDaemon: a gateway with a policy file does what it says, reads it again
// on SIGHUP, and keeps to the old one while the new one has mistakes; platterd
// policy says the same of an image in its catalog.
func TestDaemon(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("delete_image: \"'debian':%(os_distro)s and project_id:%(owner)s\"\n")
	g := gateway.Start(t, "--mount", "off", "--nbd-listen", "off", "PLATTER_POLICY_FILE="+file)
	made := g.Call(t, "POST", "/v2/images", `{"name":"x","owner":"p1","os_distro":"debian"}`, http.StatusCreated)
	path := regexp.MustCompile(`/v2/images/[0-9a-f-]{36}`).FindString(string(made))
	id := filepath.Base(path)
	g.Call(t, "DELETE", path, "", http.StatusForbidden) // an administrator without a project

	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--project p1 --roles member,reader delete_image " + id, 0, `yes  all of these:`},
		{"--project p2 --roles member,reader delete_image " + id, 3, "the API answers 404"},
		{"--project p2 --roles admin delete_image " + id, 3, `project_id:%(owner)s, "p2" against "p1"`},
		{"--project p1 --roles reader modify_image " + id, 3, "role:member, of the roles reader"},
		{"--project p1 --roles reader get_image 00000000-0000-4000-8000-000000000000", 1, ""},
	} {
		args := append([]string{"--data-dir", g.Dir, "policy", "check"}, strings.Fields(c.args)...)
		cmd := exec.CommandContext(t.Context(), gateway.Binary(t, "platterd"), args...)
		cmd.Env = append(os.Environ(), "PLATTER_POLICY_FILE="+file)
		out, err := cmd.CombinedOutput()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("policy check %s: code %d, want %d with %q\n%s", c.args, code, c.code, c.says, out)
		}
	}

	write("delete_image: \"http://elsewhere/\"\n")
	hangup(t, g)
	until(t, "the mistake is said", func() bool {
		body, _, err := g.Ask("GET", "/readyz", "")
		return err == nil && strings.Contains(string(body), "asks another server")
	})
	g.Call(t, "DELETE", path, "", http.StatusForbidden)
	write("delete_image: \"role:admin\"\n")
	hangup(t, g)
	until(t, "the new rule is in force", func() bool {
		_, code, err := g.Ask("DELETE", path, "")
		return err == nil && code == http.StatusNoContent
	})
}

func hangup(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	if err := syscall.Kill(g.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// until waits for what must come, however long a slow machine takes.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within two minutes", what)
		}
	}
}
