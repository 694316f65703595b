//go:build integration

package differ

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// people send the requests. Who may do least is first.
var people = []string{"none", "bad", "otherreader", "other", "reader", "member", "admin"}

const password = "a-password"

// A world is Glance and a gateway with the same people.
type world struct {
	sides  [2]*side // Glance, the gateway
	tokens map[string]string
	fixed  map[string]string // ids of projects: one, two, adm; and a web server

	statuses map[int]int // how often Glance has answered so
}

// A side is one of the two servers.
type side struct {
	name, url string
	client    *http.Client
}

// A cloud is a Keystone with people in it.
type cloud struct {
	keystone *servers.Keystone
	tokens   map[string]string
	projects map[string]string // ids of one, two, adm
}

var (
	keeper servers.Keeper
	shared = servers.Share(&keeper, startCloud)
)

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

func startCloud(t servers.TB) *cloud {
	t.Helper()
	k := servers.StartKeystone(t)
	c := &cloud{k, map[string]string{"bad": "gAAAAABnot-a-token"}, map[string]string{}}
	for name, of := range map[string]struct{ project, role string }{
		"member": {"one", "member"}, "reader": {"one", "reader"}, "other": {"two", "member"}, "otherreader": {"two", "reader"},
		"service": {"three", "service"}, "stranger": {"three", "stranger"},
	} {
		c.projects[of.project] = k.Grant(t, name, password, of.project, of.role)
		c.tokens[name] = k.Token(t, name, password, of.project)
	}
	k.GrantDomain(t, "admin", "admin")
	c.projects["adm"] = k.Grant(t, "admin", k.AdminPassword, "admin", "admin")
	c.tokens["admin"] = k.Token(t, "admin", k.AdminPassword, "admin")
	c.tokens["system"] = k.ScopedToken(t, "admin", k.AdminPassword, map[string]any{"system": map[string]any{"all": true}})
	c.tokens["domain"] = k.ScopedToken(t, "admin", k.AdminPassword, map[string]any{"domain": map[string]any{"id": "default"}})
	c.tokens["unscoped"] = k.ScopedToken(t, "admin", k.AdminPassword, "unscoped")
	return c
}

// serve has every path on a web server but /missing, and returns its URL.
func serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "image", time.Unix(0, 0), strings.NewReader(strings.Repeat("web ", 1000)))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

// newWorld starts the two. glance is lines of its section DEFAULT, ours is
// NAME=value for the gateway's environment.
func newWorld(t *testing.T, glance string, ours ...string) *world {
	t.Helper()
	c := shared(t)
	k := c.keystone
	w := &world{tokens: c.tokens, fixed: maps.Clone(c.projects), statuses: map[int]int{}}
	w.fixed["web"] = serve(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(w.fixed["web"], "http://"), ":")
	glance += "\n[import_filtering_opts]\nallowed_hosts = [127.0.0.1]\nallowed_ports = [" + port + "]\n"
	g := servers.StartSecureGlance(t, servers.SecureGlanceConfig{Keystone: k, Stores: []string{"fast", "slow"}, Web: true, More: glance})
	p := gateway.Start(t, append([]string{"--mount", "off", "--auth", "keystone", "PLATTER_CACHE_DIR=off", "PLATTER_AUTH_AUTH_URL=" + k.URL, "PLATTER_AUTH_USERNAME=admin",
		"PLATTER_AUTH_PASSWORD=" + k.AdminPassword, "PLATTER_AUTH_PROJECT_NAME=admin", "PLATTER_AUTH_CACHE_TIME=5m",
		"PLATTER_DEFAULT_STORE=fast", "PLATTER_STORES_FAST_TYPE=file", "PLATTER_STORES_FAST_DIR=fast",
		"PLATTER_STORES_SLOW_TYPE=file", "PLATTER_STORES_SLOW_DIR=slow", "PLATTER_STORES_WEB_TYPE=http", "PLATTER_STORES_WEB_ALLOW_PRIVATE=true",
		"PLATTER_IMPORT_ALLOWED_HOSTS=127.0.0.1", "PLATTER_IMPORT_ALLOWED_PORTS=" + port}, ours...)...)
	w.sides = [2]*side{newSide("glance", g.URL), newSide("platter", p.URL)}
	return w
}

func newSide(name, url string) *side {
	return &side{name, url, &http.Client{
		Timeout:       2 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableCompression: true},
	}}
}

// An answer is what one side says.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

// do has a side do a step.
func (s *side) do(w *world, st step, n names) answer {
	switch st.method {
	case "WAIT":
		return s.wait(w, st, n)
	case "PAGES":
		return s.pages(w, st, n)
	}
	return s.ask(w, st, n)
}

// pages asks for a list page by page. What it returns tells the ids on each.
func (s *side) pages(w *world, st step, n names) answer {
	st.method = "GET"
	var all [][]string
	for range 50 {
		a := s.ask(w, st, n)
		var page struct {
			Images []struct{ ID string }
			Next   string
		}
		if a.err != nil || a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &page) != nil {
			return a
		}
		ids := []string{}
		for _, image := range page.Images {
			ids = append(ids, image.ID)
		}
		if all = append(all, ids); page.Next == "" {
			body, _ := json.Marshal(all) // strings always encode
			a.body = string(body)
			return a
		}
		st.path = page.Next
	}
	return answer{err: fmt.Errorf("the list has no end")}
}

// wait asks until something is so, at most a minute.
func (s *side) wait(w *world, st step, n names) answer {
	field, value, _ := strings.Cut(st.body, "=")
	st.method, st.body = "GET", ""
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		a := s.ask(w, st, n)
		switch {
		case a.field(field) == value && a.field("os_glance_import_task") == "":
			return a
		case a.err != nil || a.status != http.StatusOK || time.Now().After(end):
			a.err = fmt.Errorf("%s never was %s but %d %s", field, value, a.status, a.body)
			return a
		}
	}
}

// ask sends a step to a side.
func (s *side) ask(w *world, st step, n names) answer {
	body := n.fill(st.body)
	if size, ok := strings.CutPrefix(body, "@"); ok {
		if n, err := strconv.Atoi(size); err == nil {
			body = strings.Repeat("0123456789abcdef", n/16+1)[:n]
		}
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return answer{err: err}
	}
	u.Opaque = n.fill(st.path) // as it stands
	req := &http.Request{Method: st.method, URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	if body == "" {
		req.Body = http.NoBody
	}
	if token := w.tokens[st.who]; token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	if kind := contentType(st); kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "application/json")
	for _, h := range st.header {
		k, v, _ := strings.Cut(n.fill(h), ": ")
		switch k {
		case "Transfer-Encoding":
			req.ContentLength = -1
		default:
			req.Header[http.CanonicalHeaderKey(k)] = append(without(req.Header, k), v)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(got), err}
}

// without returns the values of a header, without what was only a default.
func without(h http.Header, key string) []string {
	switch key = http.CanonicalHeaderKey(key); key {
	case "Content-Type", "Accept", "X-Auth-Token":
		h.Del(key)
	}
	return h[key]
}

// contentType is what a step has unless it says something else.
func contentType(st step) string {
	switch {
	case st.method == "PATCH":
		return "application/openstack-images-v2.1-json-patch"
	case st.method == "PUT" && (strings.HasSuffix(st.path, "/file") || strings.HasSuffix(st.path, "/stage")):
		return "application/octet-stream"
	case st.body != "":
		return "application/json"
	}
	return ""
}

// field returns a text of a JSON object.
func (a answer) field(name string) string {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	dec.Decode(&fields) // what is no object has no fields
	text, _ := fields[name].(string)
	return text
}
