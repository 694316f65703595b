//go:build integration

package policy

import (
	"bytes"
	"context"
	_ "embed" // for judge.py
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

//go:embed judge.py
var judge string

// A question is: with the rules of a file (-1: Glance's), may a user do what
// a rule names to a target?
type question struct {
	file         int
	rule         string
	user, target int
}

// MarshalJSON writes it as judge.py reads it.
func (q question) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{q.file, q.rule, q.user, q.target})
}

// A verdict is what judge.py says. An answer that is nil was an exception.
type verdict struct {
	Answers  []*bool
	Defaults map[string]string
}

func ask(t *testing.T, files []string, asks []question) verdict {
	t.Helper()
	work, err := json.Marshal(map[string]any{"files": files, "users": pythonUsers(), "targets": pythonTargets(), "asks": asks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-c", judge)
	var out, log bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(work), &out, &log
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v (glance-api and python3-oslo.policy are needed; make deps installs them)\n%.4000s", err, log.String())
	}
	var v verdict
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v in %.1000s", err, out.String())
	}
	if len(v.Answers) != len(asks) {
		t.Fatalf("%d answers to %d questions", len(v.Answers), len(asks))
	}
	if log.Len() > 0 {
		t.Logf("exceptions there:\n%.2000s", log.String())
	}
	return v
}

// users are who asks. The first has everything set, the second nothing.
func users() []wire.Identity {
	out := []wire.Identity{
		{
			UserID: "u1", UserDomainID: "d1", ProjectID: "p1", ProjectDomainID: "d2", Roles: []string{"member", "reader", "Heat-Owner"},
			Service: wire.Service{UserID: "nova", UserDomainID: "d3", ProjectID: "services", ProjectDomainID: "d3", Roles: []string{"service", "admin"}},
		},
		{},
		{UserID: "u3", DomainID: "d1", Roles: []string{"admin", "member", "reader"}},
		{UserID: "u4", SystemScope: "all", Roles: []string{"admin", "member", "reader"}},
	}
	for _, project := range []string{"p1", "p2"} {
		for _, roles := range [][]string{{"admin"}, {"ADMIN", "member", "reader"}, {"member", "reader"}, {"reader"}, {"member"}, {"service"}, {"other"}} {
			out = append(out, wire.Identity{UserID: "u5", ProjectID: project, Roles: roles})
		}
	}
	return out
}

func pythonUsers() []map[string]any {
	var out []map[string]any
	for _, u := range users() {
		m := map[string]any{"roles": slices.Concat([]string{}, u.Roles), "service_roles": slices.Concat([]string{}, u.Service.Roles)}
		for key, value := range map[string]string{
			"user_id": u.UserID, "user_domain_id": u.UserDomainID, "project_id": u.ProjectID, "project_domain_id": u.ProjectDomainID,
			"domain_id": u.DomainID, "system_scope": u.SystemScope, "service_user_id": u.Service.UserID, "service_user_domain_id": u.Service.UserDomainID,
			"service_project_id": u.Service.ProjectID, "service_project_domain_id": u.Service.ProjectDomainID,
		} {
			m[key] = orNil(value)
		}
		out = append(out, m)
	}
	return out
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// images are what is asked about, with the project that each is shared with.
func images() (list []catalog.Image, members []string) {
	name, size := "disk (one)", int64(512)
	for _, owner := range []string{"p1", "p2", ""} {
		for _, v := range []catalog.Visibility{catalog.VisibilityPublic, catalog.VisibilityCommunity, catalog.VisibilityShared, catalog.VisibilityPrivate} {
			img := catalog.Image{ID: "i-" + owner, Status: catalog.StatusQueued, Visibility: v, Owner: owner, Properties: map[string]string{}}
			if owner == "p2" {
				img.Name, img.Size, img.Status, img.DiskFormat, img.ContainerFormat = &name, &size, catalog.StatusActive, "raw", "bare"
				img.Protected, img.MinDisk, img.MinRAM, img.Checksum, img.HashAlgo = true, 3, 64, "abc", "sha512"
				img.Properties = map[string]string{"os_distro": "debian", "role": "member", "empty": ""}
			}
			list, members = append(list, img), append(members, "")
			if v == catalog.VisibilityShared {
				list, members = append(list, img), append(members, "p1")
			}
		}
	}
	return list, members
}

// targets are the images, and what is no image yet or none at all.
func targets() []wire.Target {
	var out []wire.Target
	list, members := images()
	for i := range list {
		out = append(out, policy.TargetOf(&list[i], members[i]))
	}
	return append(out,
		wire.Target{},
		wire.Target{Kind: "image", Owner: "p1", Visibility: "private"}, wire.Target{Kind: "image", Owner: "p2", Visibility: "public"},
		wire.Target{Kind: "image", Visibility: "private"})
}

func pythonTargets() []map[string]any {
	var out []map[string]any
	list, members := images()
	for i, img := range list {
		fields := map[string]any{
			"visibility": img.Visibility, "min_disk": img.MinDisk, "min_ram": img.MinRAM, "protected": img.Protected, "os_hidden": img.Hidden,
			"owner": orNil(img.Owner), "member": orNil(members[i]), "checksum": orNil(img.Checksum), "os_hash_algo": orNil(img.HashAlgo),
			"os_hash_value": orNil(img.HashValue), "disk_format": orNil(img.DiskFormat), "container_format": orNil(img.ContainerFormat),
			"name": img.Name, "size": img.Size, "virtual_size": img.VirtualSize,
		}
		out = append(out, map[string]any{"kind": "image", "id": img.ID, "status": img.Status, "fields": fields, "properties": img.Properties})
	}
	plain := func(fields map[string]any) { out = append(out, map[string]any{"kind": "fields", "fields": fields}) }
	plain(map[string]any{})
	for _, t := range targets()[len(list)+1:] {
		plain(map[string]any{"project_id": orNil(t.Owner), "owner": orNil(t.Owner), "visibility": t.Visibility})
	}
	return out
}

// A writer makes up rules.
type writer struct{ *rand.Rand }

func (w writer) pick(words ...string) string { return words[w.IntN(len(words))] }

// attribute is a name that stands in %()s.
func (w writer) attribute() string {
	return "%(" + w.pick("project_id", "owner", "member_id", "member", "visibility", "os_distro", "role", "empty", "absent", "min_disk", "protected",
		"size", "name", "status", "disk_format", "checksum", "os_hidden", "id", "image_id", "virtual_size", "os_hash_algo", "container_format", "min_ram") + ")s"
}

func (w writer) match() string {
	switch w.IntN(8) {
	case 0:
		return w.pick("p1", "p2", "None", "debian", "True", "u1", "d1", "all", "")
	case 1:
		return w.pick("x-", "p", "100%%", "") + w.attribute() + w.pick("", "-y", w.attribute())
	}
	return w.attribute()
}

// check is a check that may name the rules before n.
func (w writer) check(n int) string {
	switch w.IntN(12) {
	case 0:
		return w.pick("@", "!")
	case 1, 2:
		return "role:" + w.pick("admin", "member", "Reader", "SERVICE", "heat-owner", "nobody", "%(role)s", "%(absent)s")
	case 3, 4:
		if n > 0 {
			return fmt.Sprintf("rule:g%d", w.IntN(n))
		}
		return "rule:default"
	case 5:
		return w.pick("roles", "service_roles") + ":" + w.pick("member", "Member", "service", "%(role)s")
	case 6, 7:
		return w.pick("'p1'", `"p2"`, "'public'", "'shared'", "'debian'", "None", "True", "False", "3", "-1", "512", "'None'", "'100%'", "''") + ":" + w.match()
	}
	return w.pick("user_id", "user_domain_id", "project_id", "project_id", "project_id", "project_domain_id", "domain_id", "system_scope", "system",
		"is_admin_project", "service_user_id", "service_project_id", "service_user_domain_id", "tenant", "a.b") + ":" + w.match()
}

// rule is a rule of some depth.
func (w writer) rule(n, depth int) string {
	if depth == 0 {
		return w.check(n)
	}
	parts := make([]string, 1+w.IntN(3))
	for i := range parts {
		parts[i] = w.rule(n, depth-1-w.IntN(depth))
		switch w.IntN(5) {
		case 0:
			parts[i] = w.pick("not ", "NOT ", "not not ") + parts[i]
		case 1:
			parts[i] = "(" + w.pick("", " ") + parts[i] + w.pick("", " ", "\t") + ")"
		}
	}
	out := parts[0]
	for _, p := range parts[1:] {
		out += w.pick(" and ", " or ", " AND ", " Or ", "  and\n") + p
	}
	return out
}

// lists is a rule in the old form.
func (w writer) lists(n int) any {
	out := []any{}
	for range w.IntN(4) {
		if w.IntN(4) == 0 {
			out = append(out, w.check(n))
			continue
		}
		list := []string{}
		for range w.IntN(4) {
			list = append(list, w.check(n))
		}
		out = append(out, list)
	}
	return out
}

const rulesOfFile = 6

// file is a policy file, JSON or YAML.
func (w writer) file() string {
	var out []string
	for n := range rulesOfFile {
		var value any = w.rule(n, 1+w.IntN(4))
		if w.IntN(6) == 0 {
			value = w.lists(n)
		}
		text, _ := json.Marshal(value)
		out = append(out, fmt.Sprintf("%q: %s", fmt.Sprintf("g%d", n), text))
	}
	if w.IntN(2) == 0 {
		return "{" + strings.Join(out, ",\n") + "}"
	}
	return "# rules\n" + strings.Join(out, "\n") + "\n"
}

// spoil changes a rule so that it may be none any more.
func (w writer) spoil(rule string) string {
	words := strings.Fields(rule)
	at := w.IntN(len(words))
	switch w.IntN(3) {
	case 0:
		words = slices.Delete(words, at, at+1)
	case 1:
		words = slices.Insert(words, at, w.pick("and", "or", "not", "(", ")", "@", "role:admin"))
	default:
		words[at] = w.pick("(", "", "((") + words[at] + w.pick(")", "))", "")
	}
	return strings.Join(words, " ")
}

// open makes an Engine of a file's text.
func open(t *testing.T, text string) (*policy.Engine, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return policy.New(policy.Config{File: name})
}

// TestLanguage: thousands of generated rules, and as many spoilt ones of
// which those that we take must mean there what they mean here.
func TestLanguage(t *testing.T) {
	w := writer{rand.New(rand.NewPCG(1, 2026))}
	var files []string
	var engines []*policy.Engine
	var asks []question
	add := func(text string, rules int) bool {
		e, err := open(t, text)
		if err != nil {
			return false
		}
		for n := range rules {
			for range 5 {
				asks = append(asks, question{len(files), fmt.Sprintf("g%d", n), w.IntN(len(users())), w.IntN(len(targets()))})
			}
		}
		files, engines = append(files, text), append(engines, e)
		return true
	}
	for range 350 {
		if text := w.file(); !add(text, rulesOfFile) {
			_, err := open(t, text)
			t.Fatalf("a good file is refused: %v\n%s", err, text)
		}
	}
	taken := 0
	for range 1000 {
		text, _ := json.Marshal(map[string]string{"g0": w.spoil(w.rule(0, 1+w.IntN(3)))})
		if add(string(text), 1) {
			taken++
		}
	}
	if taken < 100 || taken > 900 {
		t.Errorf("of 1000 spoilt rules %d were taken, which tests too little", taken)
	}
	allowed := 0
	who, what := users(), targets()
	for i, got := range ask(t, files, asks).Answers {
		q := asks[i]
		ours := engines[q.file].Allow(t.Context(), who[q.user], q.rule, what[q.target]) == nil
		if got == nil || *got != ours {
			t.Errorf("%s of\n%s\nfor %+v to %+v: %v here, %s there", q.rule, files[q.file], who[q.user], what[q.target], ours, said(got))
		} else if ours {
			allowed++
		}
	}
	t.Logf("%d questions, %d of them allowed; %d spoilt rules taken", len(asks), allowed, taken)
	if share := float64(allowed) / float64(len(asks)); share < 0.2 || share > 0.8 {
		t.Errorf("%.2f of the questions are allowed, which tests too little", share)
	}
}

func said(answer *bool) string {
	if answer == nil {
		return "an exception"
	}
	return fmt.Sprint(*answer)
}

// TestGlanceFile: the policy file that Debian's Glance comes with will do.
func TestGlanceFile(t *testing.T) {
	text, err := os.ReadFile("/etc/glance/policy.d/00_default_policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, string(text)); err != nil {
		t.Error(err)
	}
	sample, err := exec.Command("oslopolicy-sample-generator", "--namespace", "glance").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder // with every rule that it shows as a comment
	for line := range strings.Lines(string(sample)) {
		if strings.HasPrefix(line, `#"`) {
			line = line[1:]
		}
		all.WriteString(line)
	}
	e, err := open(t, all.String())
	if err != nil {
		t.Fatal(err)
	}
	fromFile := 0
	for _, r := range e.Effective() {
		if r.Line > 0 {
			fromFile++
		}
	}
	if fromFile < 60 {
		t.Errorf("%d rules of the sample were read:\n%s", fromFile, all.String())
	}
}

// newer are the rules that Glance 25.1 does not have, or has otherwise.
func newer(rule string) bool {
	return strings.HasPrefix(rule, "platter:") || slices.Contains([]string{
		"download_from_store", "add_image_location", "fetch_image_location", "list_cached_nodes", "service_api", // not yet
		"stores_info_detail", // for administrators only, there
	}, rule)
}

// TestGlanceRules: every rule of Glance is one of ours, has the same default,
// and answers everybody about everything as there.
func TestGlanceRules(t *testing.T) {
	e, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	who, what := users(), targets()
	var asks []question
	for _, r := range policy.Rules() {
		if newer(r.Name) || r.Unused {
			continue
		}
		for u := range who {
			for target := range what {
				asks = append(asks, question{-1, r.Name, u, target})
			}
		}
	}
	v := ask(t, []string{}, asks)
	for i, got := range v.Answers {
		q := asks[i]
		if ours := e.Allow(t.Context(), who[q.user], q.rule, what[q.target]) == nil; got == nil || *got != ours {
			t.Errorf("%s for %+v to %+v: %v here, %s there", q.rule, who[q.user], what[q.target], ours, said(got))
		}
	}
	for _, r := range policy.Rules() {
		text, there := v.Defaults[r.Name]
		if there && text != r.Check && !newer(r.Name) {
			t.Errorf("%s is %q here, %q there", r.Name, r.Check, text)
		}
		if !there && !newer(r.Name) {
			t.Errorf("%s is no rule of Glance", r.Name)
		}
		delete(v.Defaults, r.Name)
	}
	for name := range v.Defaults {
		t.Errorf("the rule %s of Glance is missing here", name)
	}
	t.Logf("%d questions", len(asks))
}
