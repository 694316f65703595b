package protect

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "protections.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const sample = `# who may use what
[^x_.*]
create = Admin, spl_role
read = admin,member,
 reader
update: admin
delete = admin

; and the rest
[(?i)^Open$]
create = @
read = @
update = !
delete = @
[^gone]
create =
read = @
`

func TestAllow(t *testing.T) {
	r, err := Open(Config{File: write(t, sample+"[DEFAULT]\nupdate = !\ndelete = !\n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		property, roles, service string
		want                     string // the letters of what is allowed
	}{
		{"x_a", "admin", "", "crud"},
		{"x_a", "ADMIN", "", "crud"},
		{"x_a", "spl_role", "", "c"},
		{"x_a", "member", "", "r"},
		{"x_a", "reader,other", "", "r"},
		{"x_a", "other", "", ""},
		{"x_a", "other", "spl_role", "c"},
		{"ax_a", "admin", "", ""}, // no rule: nobody's
		{"open", "", "", "crd"},
		{"opened", "admin", "", ""},
		{"gone", "admin", "", "r"},
	} {
		who := wire.Identity{Roles: strings.Split(c.roles, ","), Service: wire.Service{Roles: strings.Split(c.service, ",")}}
		var got strings.Builder
		for op, word := range operations() {
			if r.Allow(t.Context(), who, Operation(op), c.property) {
				got.WriteByte(word[0])
			}
		}
		if got.String() != c.want {
			t.Errorf("%s for roles %q, of the service %q: %q, want %q", c.property, c.roles, c.service, got.String(), c.want)
		}
	}
	ctx := wire.WithIdentity(t.Context(), wire.Identity{Roles: []string{"other"}})
	if got := r.Visible(ctx, map[string]string{"x_a": "1", "open": "2", "z": "3"}); len(got) != 1 || got["open"] != "2" {
		t.Errorf("visible: %v", got)
	}
	if err := r.Check(ctx, Update, "open"); err == nil || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("Check: %v", err)
	}
}

// TestNone: without rules everybody may do everything.
func TestNone(t *testing.T) {
	var r *Rules
	if !r.Allow(context.Background(), wire.Identity{}, Delete, "x") || len(r.Visible(t.Context(), map[string]string{"a": "b"})) != 1 {
		t.Error("it protects")
	}
}

func TestPolicies(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(rules, []byte("billing: \"role:billing or rule:context_is_admin\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(policy.Config{File: rules})
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "[^x_]\ncreate = billing\nread = @\nupdate = !\ndelete = context_is_admin\n")
	r, err := Open(Config{File: file, Policies: true, Policy: engine})
	if err != nil {
		t.Fatal(err)
	}
	billing, admin := wire.Identity{Roles: []string{"billing"}}, wire.Identity{Roles: []string{"admin"}}
	for _, c := range []struct {
		who  wire.Identity
		op   Operation
		want bool
	}{
		{billing, Create, true}, {admin, Create, true}, {wire.Identity{}, Create, false},
		{wire.Identity{}, Read, true}, {admin, Update, false}, {admin, Delete, true}, {billing, Delete, false},
	} {
		if got := r.Allow(t.Context(), c.who, c.op, "x_1"); got != c.want {
			t.Errorf("%s as %v: %v", c.op, c.who.Roles, got)
		}
	}
}

func TestMistakes(t *testing.T) {
	const rest = "create=@\nread=@\nupdate=@\ndelete=@\n"
	for _, c := range []struct {
		text     string
		policies bool
		want     []string
	}{
		{"", false, []string{"no section"}},
		{"[a\n" + rest, false, []string{"line 1:", "is no section"}},
		{"create = @\n", false, []string{"line 1:", "below a section"}},
		{"[(]\n" + rest, false, []string{"line 1: section [(]", "missing closing"}},
		{"[a]\ncreate=@\nread=@\nupdate=@\n\n[b]\n" + rest + "remove=@\n", false, []string{"section [a]: delete is missing", "line 6: section [b]: \"remove\" is no operation"}},
		{"[a]\n" + rest + "[a]\n" + rest, false, []string{"line 6: the section [a] is there already"}},
		{"[a]\n" + rest + "read=@\n", false, []string{"line 6: \"read\" is there already"}},
		{"[a]\ncreate=@,!\nread=@\nupdate=@\ndelete=@\n", false, []string{"everybody (@) and nobody (!)"}},
		{"[a]\ncreate=x,y\nread=x\nupdate=x\ndelete=x\n", true, []string{"create names several policies"}},
		{strings.Repeat("#", 600<<10) + "\n" + strings.Repeat("# a\n", 300<<10), false, []string{"too long"}},
		{strings.Repeat("# a\n", 300<<10), false, []string{"more than"}},
	} {
		_, err := Open(Config{File: write(t, c.text), Policies: c.policies})
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: %v, want %q", c.text, err, want)
			}
		}
	}
	if _, err := Open(Config{File: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// FuzzParse: whatever the file holds, it is read or refused, and what is read
// can be asked.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("[a]\ncreate=@\n x\nread:!\n")
	f.Fuzz(func(t *testing.T, text string) {
		sections, err := parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range sections {
			if one, err := s.compile(false); err == nil {
				r := Rules{rules: []rule{one}}
				r.Allow(t.Context(), wire.Identity{Roles: []string{"a"}}, Read, "a")
			}
		}
	})
}
