package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// platterd runs a command and returns what it prints and its exit code.
func platterd(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	app := newApp()
	app.Writer = &out
	err := app.Run(append([]string{"platterd", "--data-dir", t.TempDir()}, args...))
	return out.String(), exitCode(err)
}

func policyFile(t *testing.T, text string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PLATTER_POLICY_FILE", name)
}

func TestPolicyCheck(t *testing.T) {
	policyFile(t, "delete_image: \"role:undertaker and project_id:%(project_id)s\"\n")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--project p --roles member,reader add_image", 0, `yes  `},
		{"--project p --roles reader add_image", 3, `no       role:member, of the roles reader`},
		{"--project p --roles undertaker delete_image", 0, `yes: the rule "delete_image" is "role:undertaker and project_id:%(project_id)s"`},
		{"--project p --roles admin,member delete_image", 3, "no"},
		{"--system --roles admin add_image", 3, "this rule takes tokens for projects only"},
		{"--project p --system add_image", 2, ""},
		{"--project p raze_image", 2, ""},
		{"", 2, ""},
		{"add_image i j", 2, ""},
	} {
		out, code := platterd(t, append([]string{"policy", "check"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("policy check %s: code %d, want %d with %q; it says\n%s", c.args, code, c.code, c.says, out)
		}
	}
}

// TestPolicyShow: what is printed is a policy file, with the rules of the
// file in it and all defaults as comments.
func TestPolicyShow(t *testing.T) {
	policyFile(t, `{"add_image": "rule:trusted", "trusted": "'a\"b':%(name)s or role:trusted"}`)
	out, code := platterd(t, "policy")
	if code != 0 {
		t.Fatalf("code %d", code)
	}
	var got map[string]string
	if err := yaml.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if len(got) != 2 || got["add_image"] != "rule:trusted" || got["trusted"] != `'a"b':%(name)s or role:trusted` {
		t.Errorf("the rules of the file are %q", got)
	}
	for _, r := range policy.Rules() {
		if !strings.Contains(out, "\n#"+yamlText(r.Name)+": ") && r.Name != "add_image" {
			t.Errorf("the default of %s is not shown", r.Name)
		}
	}
}

func TestPolicyMistakes(t *testing.T) {
	policyFile(t, "add_image: \"http://elsewhere/\"\ndelete_image: \"rule:nowhere or\"\n")
	if _, code := platterd(t, "policy"); code != 2 {
		t.Errorf("code %d", code)
	}
}

// TestPolicyReload: a file that went wrong changes nothing and is spoken of.
func TestPolicyReload(t *testing.T) {
	name := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("get_images: \"!\"\n")
	r, err := openPolicy(&config.Config{Policy: config.Policy{File: name}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	admin := wire.Identity{Roles: []string{"admin"}}
	may := func() bool { return r.Allow(t.Context(), admin, "get_images", wire.Target{}) == nil }
	if may() || r.ailing() != "" {
		t.Fatalf("at the start: may %v, ailing %q", may(), r.ailing())
	}
	write("get_images: \"role:admin or\"\n")
	if r.reload(); may() || !strings.Contains(r.ailing(), "a check is missing at the end") {
		t.Errorf("with a mistake: may %v, ailing %q", may(), r.ailing())
	}
	write("get_images: \"role:admin\"\n")
	if r.reload(); !may() || r.ailing() != "" {
		t.Errorf("in order again: may %v, ailing %q", may(), r.ailing())
	}
	var none *policyRules // with the API off
	if none.reload(); none.ailing() != "" {
		t.Error("no rules are ailing")
	}
}
