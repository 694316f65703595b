package api

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
)

// TestWhoMayWhat asks every call on an image of project p1 as whoever could,
// under Glance's defaults.
func TestWhoMayWhat(t *testing.T) {
	const (
		patch = "Content-Type: application/openstack-images-v2.1-json-patch"
		p1    = "X-Test-Project: p1"
		p2    = "X-Test-Project: p2"
		p3    = "X-Test-Project: p3"
	)
	people := map[string][]string{
		"admin":    {"X-Test-Project: p0", "X-Test-Roles: admin,member,reader"},
		"owner":    {p1, "X-Test-Roles: member,reader"},
		"reader":   {p1, "X-Test-Roles: reader"},
		"sharer":   {p2, "X-Test-Roles: member,reader"}, // p2 is a member of shared images
		"guest":    {p2, "X-Test-Roles: reader"},
		"stranger": {p3, "X-Test-Roles: member,reader"},
		"nobody":   {p1, "X-Test-Roles: other"},
	}
	tag := `[{"op":"add","path":"/k","value":"v"}]`
	public := `[{"op":"replace","path":"/visibility","value":"public"}]`
	community := `[{"op":"replace","path":"/visibility","value":"community"}]`
	for _, c := range []struct{ visibility, method, path, body, want string }{
		{"private", "GET", "", "", "admin 200 owner 200 reader 200 stranger 404 nobody 404"},
		{"public", "GET", "", "", "admin 200 owner 200 reader 200 stranger 200 nobody 404"},
		{"community", "GET", "", "", "stranger 200 guest 200 nobody 404"},
		{"shared", "GET", "", "", "owner 200 sharer 200 guest 200 stranger 404 nobody 404"},

		{"private", "PATCH", "", tag, "admin 200 owner 200 reader 403 stranger 404 nobody 404"},
		{"public", "PATCH", "", tag, "stranger 403 reader 403 nobody 404"},
		{"shared", "PATCH", "", tag, "sharer 403 guest 403 stranger 404"},
		{"private", "PATCH", "", `[]`, "owner 200 reader 200 stranger 404 nobody 404"},
		{"private", "PATCH", "", public, "admin 200 owner 403 reader 403 stranger 404"},
		{"private", "PATCH", "", community, "admin 200 owner 200 reader 403"},

		{"private", "DELETE", "", "", "reader 403 stranger 404 nobody 404 owner 204"},
		{"public", "DELETE", "", "", "reader 403 stranger 403 nobody 404 admin 204"},

		{"private", "GET", "/file", "", "admin 204 owner 204 reader 403 stranger 404 nobody 404"},
		{"public", "GET", "/file", "", "stranger 204 guest 403"},
		{"shared", "GET", "/file", "", "sharer 204 guest 403 stranger 404"},
		{"private", "PUT", "/file", "", "reader 403 stranger 404 nobody 404"},
		{"public", "PUT", "/file", "", "stranger 403"},

		{"private", "PUT", "/tags/x", "", "owner 204 reader 403 stranger 404"},
		{"private", "DELETE", "/tags/x", "", "reader 403 stranger 404"},
		{"private", "POST", "/actions/deactivate", "", "reader 403 stranger 404"},
		{"public", "POST", "/actions/reactivate", "", "reader 403 stranger 403"},
		{"private", "GET", "/tasks", "", "admin 200 owner 200 reader 200 stranger 404 nobody 404"},

		{"private", "GET", "/members", "", "owner 403 stranger 404"},
		{"shared", "GET", "/members", "", "admin 200 owner 200 reader 200 sharer 200 guest 200 stranger 404 nobody 404"},
		{"shared", "GET", "/members/p2", "", "admin 200 owner 200 reader 200 sharer 200 guest 200 stranger 404 nobody 404"},
		{"shared", "GET", "/members/p3", "", "owner 404 sharer 404"},
		{"shared", "POST", "/members", `{"member":"p9"}`, "reader 403 sharer 403 stranger 404 owner 200"},
		{"shared", "PUT", "/members/p2", `{"status":"accepted"}`, "owner 403 reader 403 guest 403 stranger 404 sharer 200 admin 200"},
		{"shared", "DELETE", "/members/p2", "", "reader 403 sharer 403 guest 403 stranger 404 owner 204"},
	} {
		s, _ := newServer(t, func(cfg *Config) { cfg.Auth = headerAuth{} })
		words := strings.Fields(c.want)
		for i := 0; i+1 < len(words); i += 2 {
			id := create(t, s, `{"name":"x","visibility":"`+c.visibility+`","disk_format":"raw","container_format":"bare","owner":"p1"}`, people["admin"]...)
			if c.visibility == "shared" {
				if w := do(s, "POST", "/v2/images/"+id+"/members", `{"member":"p2"}`, people["owner"]...); w.Code != 200 {
					t.Fatalf("sharing: %d %s", w.Code, w.Body)
				}
			}
			header := people[words[i]]
			if c.method == "PATCH" {
				header = append([]string{patch}, header...)
			}
			body := c.body
			if c.method == "PUT" && c.path == "/file" {
				body, header = "data", append([]string{octets}, header...)
			}
			if got := itoa(do(s, c.method, "/v2/images/"+id+c.path, body, header...).Code); got != words[i+1] {
				t.Errorf("%s %s %s of a %s image: %s gets %s, want %s", c.method, c.path, c.body, c.visibility, words[i], got, words[i+1])
			}
		}
	}
}

// TestCreateAsks: who may make what, and how a refusal reads.
func TestCreateAsks(t *testing.T) {
	s, _ := newServer(t, func(cfg *Config) { cfg.Auth = headerAuth{} })
	for _, c := range []struct {
		body, roles string
		code        int
		says        string
	}{
		{`{}`, "member,reader", 201, ""},
		{`{}`, "reader", 403, "add_image"},
		{`{"owner":"p1"}`, "member,reader", 201, ""},
		{`{"owner":"p2"}`, "member,reader", 403, "You are not permitted to create images owned by 'p2'."},
		{`{"owner":"p2"}`, "admin", 201, ""},
		{`{"visibility":"public"}`, "member,reader", 403, "publicize_image"},
		{`{"visibility":"community"}`, "member,reader", 201, ""},
		{`{"visibility":"public"}`, "admin", 201, ""},
	} {
		w := do(s, "POST", "/v2/images", c.body, "X-Test-Project: p1", "X-Test-Roles: "+c.roles, "Accept: text/plain")
		if w.Code != c.code || c.code != 201 && !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s as %s: %d %s", c.body, c.roles, w.Code, w.Body)
		}
	}
	for path, rule := range map[string]string{"/v2/tasks": "tasks_api_access", "/v2/images": "get_images"} {
		w := do(s, "GET", path, "", "X-Test-Project: p1", "X-Test-Roles: other", "Accept: text/plain")
		if w.Code != 403 || !strings.Contains(w.Body.String(), rule) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestPolicyFile: a file decides for the API, also who is an administrator.
func TestPolicyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := `
context_is_admin: "role:boss"
get_image: "role:boss or 'yes':%(seen)s"
delete_image: "role:boss or role:member"   # also what one does not see
modify_image: "not is_admin:True"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(policy.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newServer(t, func(cfg *Config) { cfg.Auth, cfg.Policy = headerAuth{}, rules })
	hidden := create(t, s, `{"name":"hidden"}`, "X-Test-Project: p1")
	seen := create(t, s, `{"name":"seen","seen":"yes"}`, "X-Test-Project: p1")
	const boss = "X-Test-Roles: boss"
	for _, c := range []struct {
		method, path string
		code         int
		header       []string
	}{
		{"GET", "/v2/images/" + hidden, 404, []string{"X-Test-Project: p1"}},
		{"GET", "/v2/images/" + seen, 200, []string{"X-Test-Project: p1"}},
		{"GET", "/v2/images/" + seen, 404, []string{"X-Test-Project: p2", "X-Test-Roles: admin"}}, // no administrator here
		{"GET", "/v2/images/" + hidden, 200, []string{"X-Test-Project: p2", boss}},
		{"PUT", "/v2/images/" + hidden + "/tags/x", 204, []string{"X-Test-Project: p1"}},
		{"PUT", "/v2/images/" + hidden + "/tags/x", 403, []string{"X-Test-Project: p2", boss}},
		{"DELETE", "/v2/images/" + hidden, 204, []string{"X-Test-Project: p1"}},
	} {
		if w := do(s, c.method, c.path, "", c.header...); w.Code != c.code {
			t.Errorf("%s %s as %q: %d, want %d: %s", c.method, c.path, c.header, w.Code, c.code, w.Body)
		}
	}
	if w := do(s, "GET", "/v2/images", "", "X-Test-Project: p1", "X-Test-Roles: member,reader"); !strings.Contains(w.Body.String(), seen) || strings.Contains(w.Body.String(), hidden) {
		t.Errorf("the list is %s", w.Body)
	}
}

// nameless lets everybody in as an anonymous reader, but for administrators.
type nameless struct{}

func (nameless) Authenticate(r *http.Request) (wire.Identity, error) {
	if r.Header.Get("X-Test-Project") != "" {
		return headerAuth{}.Authenticate(r)
	}
	return wire.Identity{ReadOnly: true}, nil
}

// TestAnonymous: who has no token reads what is public, and nothing else.
func TestAnonymous(t *testing.T) {
	s, _ := newServer(t, func(cfg *Config) { cfg.Auth = nameless{} })
	admin := []string{"X-Test-Project: p1", "X-Test-Roles: admin"}
	public := create(t, s, `{"name":"public","visibility":"public"}`, admin...)
	private := create(t, s, `{"name":"private","visibility":"private"}`, admin...)
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v2/images", 200}, {"GET", "/v2/images/" + public, 200}, {"GET", "/v2/images/" + public + "/file", 204},
		{"GET", "/v2/images/" + private, 404}, {"GET", "/v2/images/" + private + "/file", 404}, {"GET", "/v2/tasks", 403},
		{"POST", "/v2/images", 403}, {"DELETE", "/v2/images/" + public, 403}, {"PUT", "/v2/images/" + public + "/tags/x", 403},
		{"DELETE", "/v2/images/" + private, 403},
	} {
		if w := do(s, c.method, c.path, ""); w.Code != c.code {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, w.Code, c.code, w.Body)
		}
	}
	if list := do(s, "GET", "/v2/images", "").Body.String(); !strings.Contains(list, public) || strings.Contains(list, private) {
		t.Errorf("the list is %s", list)
	}
}

// TestEveryRouteNamesARule: the rules of the table are rules that there are.
func TestEveryRouteNamesARule(t *testing.T) {
	s, _ := newServer(t, nil)
	known := map[string]bool{"": true}
	for _, r := range policy.Rules() {
		known[r.Name] = true
	}
	for _, r := range s.Routes() {
		if !known[r.Rule] {
			t.Errorf("%s %s asks %q, which is no rule", r.Method, r.Pattern, r.Rule)
		}
	}
}
