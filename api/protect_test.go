package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/protect"
)

// TestProtectedProperties: who may not read a property does not find it, who
// may not write one is told.
func TestProtectedProperties(t *testing.T) {
	file := filepath.Join(t.TempDir(), "protections.conf")
	text := "[^secret]\ncreate=admin\nread=admin\nupdate=admin\ndelete=admin\n" +
		"[^price]\ncreate=admin,member\nread=@\nupdate=admin\ndelete=!\n[.]\ncreate=@\nread=@\nupdate=@\ndelete=@\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := protect.Open(protect.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newServer(t, func(cfg *Config) { cfg.Auth, cfg.Protect = headerAuth{}, rules })
	admin := []string{"X-Test-Project: p1", "X-Test-Roles: admin,member,reader", "Content-Type: application/openstack-images-v2.1-json-patch"}
	member := []string{"X-Test-Project: p1", "X-Test-Roles: member,reader", "Content-Type: application/openstack-images-v2.1-json-patch"}
	draft4 := append(member[:2:2], "Content-Type: application/openstack-images-v2.0-json-patch")

	id := create(t, s, `{"name":"x","secret":"s1","price":"1","other":"o"}`, admin...)
	url := "/v2/images/" + id
	for _, c := range []struct {
		who    []string
		method string
		path   string
		body   string
		code   int
		holds  string // property=value in the answer; "-property": not there
	}{
		{admin, "GET", url, "", 200, "secret=s1"},
		{member, "GET", url, "", 200, "-secret"},
		{member, "GET", url, "", 200, "price=1"},
		{member, "POST", "/v2/images", `{"secret":"a"}`, 403, ""},
		{member, "POST", "/v2/images", `{"price":"a"}`, 201, "price=a"},
		{member, "PATCH", url, `[{"op":"replace","path":"/secret","value":"x"}]`, 409, ""}, // there is none for them
		{member, "PATCH", url, `[{"op":"remove","path":"/secret"}]`, 409, ""},
		{member, "PATCH", url, `[{"op":"add","path":"/secret","value":"x"}]`, 403, ""},
		{member, "PATCH", url, `[{"op":"replace","path":"/price","value":"2"}]`, 403, ""},
		{member, "PATCH", url, `[{"op":"add","path":"/price","value":"2"}]`, 403, ""},
		{draft4, "PATCH", url, `[{"add":"/price","value":"2"}]`, 409, ""},
		{draft4, "PATCH", url, `[{"add":"/secret","value":"2"}]`, 403, ""},
		{admin, "PATCH", url, `[{"op":"remove","path":"/price"}]`, 403, ""},
		{admin, "PATCH", url, `[{"op":"replace","path":"/price","value":"2"}]`, 200, "price=2"},
		{member, "PATCH", url, `[{"op":"replace","path":"/other","value":"p"}]`, 200, "-secret"},
		{admin, "PATCH", url, `[{"op":"replace","path":"/secret","value":"s2"}]`, 200, "secret=s2"},
		{admin, "PATCH", url, `[{"op":"remove","path":"/secret"},{"op":"add","path":"/secret","value":"s3"}]`, 200, "secret=s3"},
	} {
		w := do(s, c.method, c.path, c.body, c.who...)
		if w.Code != c.code {
			t.Errorf("%s %s %s: %d, want %d: %s", c.method, c.path, c.body, w.Code, c.code, w.Body)
			continue
		}
		if c.holds == "" {
			continue
		}
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix(c.holds, "-"); ok {
			if _, there := got[name]; there {
				t.Errorf("%s %s %s shows %s: %s", c.method, c.path, c.body, name, w.Body)
			}
		} else if name, value, _ := strings.Cut(c.holds, "="); got[name] != value {
			t.Errorf("%s %s %s: %s is %v, want %s", c.method, c.path, c.body, name, got[name], value)
		}
	}
	for who, want := range map[string]bool{"admin,member,reader": true, "member,reader": false} {
		w := do(s, "GET", "/v2/images?secret=s3", "", "X-Test-Project: p1", "X-Test-Roles: "+who)
		if got := strings.Contains(w.Body.String(), id); w.Code != 200 || got != want {
			t.Errorf("list by a property that %s may read or not: %d, found %v", who, w.Code, got)
		}
		w = do(s, "GET", "/v2/images", "", "X-Test-Project: p1", "X-Test-Roles: "+who)
		if got := strings.Contains(w.Body.String(), "s3"); w.Code != 200 || got != want {
			t.Errorf("list as %s: %d, shows the property: %v", who, w.Code, got)
		}
	}
}
