package policy

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// engine makes an Engine of a file's text and returns what it warns of.
func engine(t testing.TB, text string) (*Engine, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e, err := New(Config{File: name, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return e, log.String()
}

func ptr[T any](v T) *T { return &v }

var (
	anImage = &catalog.Image{
		ID: "i1", Name: ptr("disk one"), Status: catalog.StatusActive, Visibility: catalog.VisibilityShared, Owner: "p1",
		DiskFormat: "raw", MinDisk: 3, Protected: true, Size: ptr(int64(512)), Properties: map[string]string{"os_distro": "debian", "owner": "mallory"},
	}
	aUser = wire.Identity{
		UserID: "u1", ProjectID: "p1", UserDomainID: "d1", Roles: []string{"Member", "reader"},
		Service: wire.Service{Roles: []string{"service"}, UserID: "nova"},
	}
)

// TestLanguage asks rules about anImage, for aUser, of whose project p1 the
// image is a member's too.
func TestLanguage(t *testing.T) {
	for _, c := range []struct {
		rule string
		want bool
	}{
		{"", true}, {"@", true}, {"!", false}, {"not !", true}, {"not not @", true}, {"(@)", true}, {"((@) and (not !))", true},
		{"@ or ! and !", true}, {"(@ or !) and !", false}, {"! and ! or @", true}, {"! or @ and @", true}, {"not @ or @", true},
		{"not (@ or @)", false}, {"not ! and !", false}, {"@ AND @", true}, {"! Or @", true}, {"@\n and\t@", true}, {"@ and @ and @ and !", false},
		{"role:member", true}, {"role:MEMBER", true}, {"role:admin", false}, {"role:%(kind)s", false}, {"role:", false},
		{"roles:Member", true}, {"roles:member", false}, {"service_roles:service", true}, {"service_roles:admin", false},
		{"user_id:u1", true}, {"user_id:u2", false}, {"project_id:%(owner)s", true}, {"project_id:%(project_id)s", true},
		{"project_id:%(member_id)s", false}, {"'p1':%(member_id)s", false}, {"None:%(member_id)s", false}, {"'p9':%(member)s", true},
		{"user_domain_id:d1", true}, {"domain_id:None", true}, {"system_scope:None", true}, {"system:None", false}, {"system_scope:all", false},
		{"service_user_id:nova", true}, {"is_admin:True", false}, {"is_admin:False", true}, {"is_admin_project:True", true},
		{"'shared':%(visibility)s", true}, {`"shared":%(visibility)s`, true}, {"'public':%(visibility)s", false}, {"shared:%(visibility)s", false},
		{"'debian':%(os_distro)s", true}, {"'x':%(os_flavor)s", false}, {"not 'x':%(os_flavor)s", true},
		{"3:%(min_disk)s", true}, {"'3':%(min_disk)s", true}, {"True:%(protected)s", true}, {"False:%(os_hidden)s", true}, {"512:%(size)s", true},
		{"None:%(checksum)s", true}, {"'raw':%(disk_format)s", true}, {"'i1':%(id)s", true}, {"'i1':%(image_id)s", true}, {"'active':%(status)s", true},
		{"'a-p1-raw':a-%(owner)s-%(disk_format)s", true}, {"'100%':100%%", true}, {"'x':x", true}, {"-5:-5", true}, {"'':", true},
		{"tenant:%(owner)s", false}, {"a.b.c:x", false}, {"user_id:a:b", false},
		{"rule:yes", true}, {"rule:no", false}, {"rule:default", true}, {"rule:deep", true},
	} {
		e, _ := engine(t, fmt.Sprintf("{%q: %q, yes: '@', 'no': '!', deep: 'rule:yes and not rule:no', use: 'rule:deep'}", "get_image", c.rule))
		got := e.Allow(t.Context(), aUser, "get_image", TargetOf(anImage, "p9")) == nil
		if got != c.want {
			t.Errorf("%q: %v, want %v", c.rule, got, c.want)
		}
		d, err := e.Explain(aUser, "get_image", TargetOf(anImage, "p9"))
		if err != nil || d.Allowed != c.want || len(d.Why) == 0 || strings.HasPrefix(d.Why[0], "yes") != c.want {
			t.Errorf("%q is explained by %q (%v)", c.rule, d.Why, err)
		}
	}
}

func TestLists(t *testing.T) {
	for _, c := range []struct {
		json, text string
	}{
		{`[]`, "@"}, {`[[]]`, "!"}, {`[["role:a","role:b"],["role:c"]]`, "((role:a and role:b) or role:c)"},
		{`["role:a"]`, "role:a"}, {`["role:a","@"]`, "(role:a or @)"}, {`["",["role:a"]]`, "role:a"}, {`[["rule:default"]]`, "rule:default"},
	} {
		for _, text := range []string{`{"get_image": ` + c.json + `}`, "# yaml\nget_image: " + c.json} {
			e, _ := engine(t, text)
			for _, r := range e.Effective() {
				if r.Name == "get_image" && r.Text != c.text {
					t.Errorf("%s became %q, want %q", text, r.Text, c.text)
				}
			}
		}
	}
}

// TestMistakes: what cannot be meant is said, with its line, and never taken.
func TestMistakes(t *testing.T) {
	bomb := "a0: '@'\n"
	for i := range 20 {
		bomb += fmt.Sprintf("a%d: 'rule:a%d or rule:a%d'\n", i+1, i, i)
	}
	for _, c := range []struct{ file, says string }{
		{"x: 'role:a or'", "line 1: the rule \"x\": a check is missing at the end"},
		{"\n\nx: 'and role:a'", `line 3: the rule "x": a check is missing before "and"`},
		{"x: 'role:a role:b'", `"role:b" does not belong after a whole rule`},
		{"x: '(role:a'", "a closing parenthesis is missing"},
		{"x: 'role:a)'", `")" does not belong`},
		{"x: '()'", "a check is missing"},
		{"x: ' '", "a check is missing"},
		{"x: admin", `"admin" is no check`},
		{"x: \"'quoted'\"", "is no check"}, {"x: \"'a':'%(owner)s'\"", "is no check"}, {"x: '\"a:b\"'", "is no check"},
		{"x: [['role:a and role:b']]", "is no single check"}, {"x: ['(role:a)']", "is no single check"}, {"x: [[and]]", "is no single check"},
		{"x: [['http://x']]", "asks another server"}, {"x: [['']]", "is no single check"},
		{"x: 'http://host/%(id)s'", "asks another server"},
		{"x: 'https://host/'", "asks another server"},
		{"x: 'user_id:%s'", "there must be (ATTRIBUTE)s"},
		{"x: 'user_id:50%'", "there must be (ATTRIBUTE)s"},
		{"x: 'user_id:%(a)d'", "there must be (ATTRIBUTE)s"},
		{"x: '007:%(a)s'", "neither the name of a credential nor a literal"},
		{"x: '1.5:%(a)s'", "neither"},
		{`x: "'it:%(a)s"`, "neither"},
		{"x: ':a'", "neither"},
		{"x: 'rule:typo'", "names rule:typo, which is defined nowhere"},
		{"x: 'rule:x'", "names rule:x, which leads back to it"},
		{"x: 'rule:y'\ny: '@ and not rule:z'\nz: '(rule:x or !)'", "leads back"},
		{"x:", "has no value"}, {`{"x": null}`, "has no value"}, {"x: true", "neither a text nor a list"},
		{"x: {a: b}", "neither a text nor a list"}, {"x: [[[a]]]", "neither"}, {`{"x": 1}`, "neither"}, {`{"x": [1]}`, "neither"}, {`{"x": [[1]]}`, "neither"},
		{"x: '@'\nx: '!'", "line 2: the rule \"x\" is there twice"}, {`{"x":"@",` + "\n" + `"x":"!"}`, "line 2: the rule \"x\" is there twice"},
		{"1: '@'", "the name of a rule must be a text"}, {"? [a]\n: '@'", "must be a text"},
		{"a: &b '@'\nx: *b", "neither"}, {"<<: {x: '@'}", "must be a text"},
		{"- x", "is an object of rules"}, {"[]", "is an object of rules"}, {`"x"`, "is an object of rules"},
		{"x: '@'\n---\ny: '@'", "second YAML document"},
		{"x: @", "yaml"}, {"x: 'a", "yaml"}, {"{\"x\": \"@\"", "yaml"},
		{"x: '" + strings.Repeat("(", 65) + "@" + strings.Repeat(")", 65) + "'", "nested more than"},
		{"x: '" + strings.Repeat("not ", 65) + "@'", "nested more than"},
		{"x: '" + strings.Repeat("@ or ", 10_001) + "@'", "more than 10000 checks"},
		{bomb, "more than 10000 checks"},
		{strings.Repeat("#", MaxFile+1), "has more than"},
		{func() string {
			var b strings.Builder
			for i := range MaxRules + 2 {
				fmt.Fprintf(&b, "r%d: '@'\n", i)
			}
			return b.String()
		}(), "there are more than 10000 rules"},
	} {
		name := filepath.Join(t.TempDir(), "p")
		if err := os.WriteFile(name, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{File: name})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%.80q: %.300v; want %q", c.file, err, c.says)
		}
	}
	if _, err := New(Config{File: filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// TestEveryMistake: all are said at once, up to a number.
func TestEveryMistake(t *testing.T) {
	_, err := compileText("a: 'x'\nb: 'role:a or'\nc: 'http://x'\n")
	if n := strings.Count(err.Error(), "line "); n != 3 {
		t.Errorf("%d of 3 mistakes: %v", n, err)
	}
	_, err = compileText(strings.Repeat("x: '@'\n", 1000))
	if n := strings.Count(err.Error(), "line "); n != maxMistakes {
		t.Errorf("%d mistakes are said", n)
	}
}

func compileText(text string) (*ruleset, error) {
	file, err := parseFile([]byte(text))
	if err != nil {
		return nil, err
	}
	return compile(Rules(), file)
}

// TestNothing: files without rules leave the defaults.
func TestNothing(t *testing.T) {
	for _, text := range []string{"", "\n# nothing\n", "{}", "null", "~", "---\n"} {
		e, warned := engine(t, text)
		if warned != "" || len(e.Effective()) != len(Rules()) {
			t.Errorf("%q: %d rules, %s", text, len(e.Effective()), warned)
		}
	}
}

func TestWarnings(t *testing.T) {
	for text, says := range map[string]string{
		"mine: '@'":                              "no operation asks the rule",
		"modify_task: '!'":                       "no operation asks the rule",
		"get_image: 'tenant:%(owner)s'":          "which nobody has here",
		"publicize_image: 'role:admin'":          "is what it would be without the file",
		"mine: '@'\nget_image: 'not rule:mine'":  "",
		"get_image: '!'":                         "",
		"get_image: 'is_admin:True or roles:ad'": "",
	} {
		_, warned := engine(t, text)
		if warned == "" != (says == "") || !strings.Contains(warned, says) {
			t.Errorf("%q: %s; want %q", text, warned, says)
		}
	}
}

// TestOldNames: a file that has not followed a rule to its new name keeps its
// meaning, as in oslo.policy.
func TestOldNames(t *testing.T) {
	defaults := []Rule{{Name: "new", Check: "role:a", Formerly: "old", Calls: []string{"GET /"}}}
	for file, want := range map[string]string{
		"x: '@'":                         "role:a",
		"old: 'role:b'":                  "role:b",
		"old: 'role:b'\nnew: 'role:c'":   "role:c",
		"old: 'rule:new'":                "role:a",
		"old: 'role:b'\nnew: 'rule:old'": "rule:old",
	} {
		rules, err := parseFile([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		set, err := compile(defaults, rules)
		if err != nil {
			t.Errorf("%q: %v", file, err)
			continue
		}
		if got := set.entries["new"].text; got != want {
			t.Errorf("%q: the rule is %q, want %q", file, got, want)
		}
		if warned := strings.Contains(strings.Join(set.warnings, "\n"), "please rename it"); warned != strings.Contains(file, "old:") {
			t.Errorf("%q: warnings %q", file, set.warnings)
		}
	}
}

func TestScope(t *testing.T) {
	system := wire.Identity{SystemScope: "all", Roles: []string{"admin"}}
	domain := wire.Identity{DomainID: "d", Roles: []string{"admin"}}
	strict, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := New(Config{AnyScope: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []wire.Identity{system, domain} {
		if strict.Allow(t.Context(), who, "delete_image", TargetOf(anImage, "")) == nil {
			t.Errorf("%+v may use a rule for projects", who)
		}
		if strict.Allow(t.Context(), who, "context_is_admin", wire.Target{}) != nil {
			t.Errorf("%+v is no administrator", who)
		}
		if loose.Allow(t.Context(), who, "delete_image", TargetOf(anImage, "")) != nil {
			t.Errorf("%+v may not, though any scope will do", who)
		}
	}
}

// TestUnknownRule: what is not defined lets nobody in.
func TestUnknownRule(t *testing.T) {
	e, _ := engine(t, "")
	err := e.Allow(t.Context(), wire.Identity{Admin: true, Roles: []string{"admin"}}, "raze_image", wire.Target{})
	if wire.StatusOf(err) != 403 || !strings.Contains(err.Error(), "raze_image") {
		t.Errorf("%v", err)
	}
	if _, err := e.Explain(aUser, "raze_image", wire.Target{}); err == nil {
		t.Error("it is explained")
	}
}

// TestAsksWithoutMemory: a question, allowed or refused, makes nothing.
func TestAsksWithoutMemory(t *testing.T) {
	e, _ := engine(t, "")
	target := TargetOf(anImage, "")
	for _, rule := range []string{"get_image", "modify_member", "platter:add_overlay", "publicize_image"} {
		if n := testing.AllocsPerRun(100, func() { e.Allow(t.Context(), aUser, rule, target) }); n > 0 {
			t.Errorf("%s costs %.0f allocations", rule, n)
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	e, _ := engine(b, "")
	target := TargetOf(anImage, "")
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Allow(b.Context(), aUser, "get_image", target); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzFile: whatever a file holds, it is taken or refused; what is taken can
// be asked, its rules mean the same when they are written out and read again,
// and both answers agree.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "{}", "get_image: '@'", `{"get_image": [["role:a", "role:b"], ["!"]]}`, "x: 'rule:y'\ny: 'rule:x'", "a: &a [*a]",
		"get_image: \"not (role:%(x)s or 'a':%(owner)s) and user_id:%%\"", "x: '((((@))))'", "? a\n: b", "get_image: 'None:%(checksum)s'",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := parseFile(data)
		if err != nil {
			return
		}
		set, err := compile(Rules(), rules)
		if err != nil {
			return
		}
		target := TargetOf(anImage, "p9")
		for name, e := range set.entries {
			question := &env{aUser, target}
			got := e.check.holds(question)
			var why []string
			e.check.explain(question, 0, &why)
			if strings.HasPrefix(why[0], "yes") != got {
				t.Errorf("%q: %v, explained by %q", e.text, got, why[0])
			}
			again, err := parseRule(e.check.String())
			if err != nil {
				t.Errorf("%q is written out as %q: %v", e.text, e.check, err)
				continue
			}
			again.each(func(n *node) { n.kids = []*node{set.entries[n.name].check} })
			if again.holds(question) != got {
				t.Errorf("%q of %s, written out as %q, means something else", e.text, name, e.check)
			}
		}
	})
}
