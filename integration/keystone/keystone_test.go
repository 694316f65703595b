//go:build integration

package keystone

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestKeystone uses one Keystone for everything: it takes long to start.
func TestKeystone(t *testing.T) {
	gateway.Need(t, "openstack", "glance", "nbdinfo")
	w := newWorld(t)
	t.Run("clients", w.clients)
	t.Run("tokens", w.tokens)
	t.Run("doors", w.doors)
	t.Run("platter", w.platter)
	t.Run("revoked", w.revoked)
	t.Run("outage", w.outage)
}

// clients has people of two projects use the clients of OpenStack, which find
// the gateway in the catalog.
func (w *world) clients(t *testing.T) {
	admin := user{"admin", "admin"}
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	id := w.must(t, alice, "openstack", "image", "create", "--file", file, "--disk-format", "raw", "--private", "-f", "value", "-c", "id", "of-alice")
	owner := w.keystone.Grant(t, alice.name, password, alice.project)
	if got := w.must(t, alice, "openstack", "image", "show", id, "-f", "value", "-c", "owner"); got != owner {
		t.Errorf("the owner is %q, want alice's project %s", got, owner)
	}
	for _, u := range []user{alice, rita, admin} {
		if list := w.must(t, u, "glance", "image-list"); !strings.Contains(list, id) {
			t.Errorf("%s does not see the image:\n%s", u.name, list)
		}
	}
	if list := w.must(t, bob, "glance", "image-list"); strings.Contains(list, id) {
		t.Errorf("bob sees an image of another project:\n%s", list)
	}
	w.refused(t, "404", bob, "glance", "image-show", id)
	w.refused(t, "404", bob, "glance", "image-download", "--file", filepath.Join(t.TempDir(), "x"), id)
	w.refused(t, "403", rita, "glance", "image-update", "--name", "of-rita", id)
	w.refused(t, "403", rita, "glance", "image-download", "--file", filepath.Join(t.TempDir(), "x"), id)
	w.refused(t, "403", alice, "glance", "image-update", "--visibility", "public", id)
	w.must(t, admin, "openstack", "image", "set", "--public", id)
	if list := w.must(t, bob, "openstack", "image", "list", "-f", "value", "-c", "ID"); !strings.Contains(list, id) {
		t.Errorf("bob does not see a public image:\n%s", list)
	}
	w.refused(t, "not permitted", bob, "glance", "image-delete", id)
	w.must(t, alice, "openstack", "image", "delete", id)
}

// tokens looks at what clients are told who have no token, or no good one.
func (w *world) tokens(t *testing.T) {
	g := w.gateway
	for name, token := range map[string]string{"none": "", "made up": "gAAAAABmade-up", "long": strings.Repeat("x", 9000)} {
		a := ask(t, g, token, "GET", "/v2/images", "")
		if want := `Keystone uri="` + w.keystone.URL + `"`; a.status != 401 || a.header.Get("Www-Authenticate") != want {
			t.Errorf("%s: %d, WWW-Authenticate %q, want %q", name, a.status, a.header.Get("Www-Authenticate"), want)
		}
	}
	token := w.token(t, alice)
	expect(t, g, 200, token, "GET", "/v2/images", "")
	expect(t, g, 200, token, "GET", "/v2/images", "", "X-Service-Token: "+w.token(t, nova))
	expect(t, g, 401, token, "GET", "/v2/images", "", "X-Service-Token: made-up")
	expect(t, g, 200, "", "GET", "/versions", "")
	expect(t, g, 401, "", "GET", "/platter/v1/overlays", "")
	if log := g.Log(); strings.Contains(log, token) || strings.Contains(log, password) {
		t.Error("a secret is in the log")
	}
}

// doors checks that every door knows the same people.
func (w *world) doors(t *testing.T) {
	g := w.gateway
	token, other := w.token(t, alice), w.token(t, bob)
	id := expect(t, g, 201, token, "POST", "/v2/images", `{"disk_format": "raw", "container_format": "bare", "visibility": "private"}`).field("id")
	expect(t, g, 204, token, "PUT", "/v2/images/"+id+"/file", strings.Repeat("platter!", 512), "Content-Type: application/octet-stream")

	order := `{"image_id": "` + id + `", "transport": "unix"}`
	expect(t, g, 401, "", "POST", "/platter/v1/attachments", order)
	expect(t, g, 404, other, "POST", "/platter/v1/attachments", order)
	a := expect(t, g, 201, token, "POST", "/platter/v1/attachments", order)
	expect(t, g, 404, other, "GET", "/platter/v1/attachments/"+a.field("id"), "")
	if out, err := g.Try(t.Context(), "nbdinfo", "--size", a.field("uri")); err != nil || strings.TrimSpace(out) != "4096" {
		t.Errorf("nbdinfo: %q, %v", out, err)
	}
	for _, name := range []string{id, id + "/native", "ephemeral/" + id, "attach/made-up", ""} {
		if out, err := g.Try(t.Context(), "nbdinfo", "--size", g.Export(name)); err == nil {
			t.Errorf("NBD gives %q to everybody: %s", name, out)
		}
	}
	expect(t, g, 404, other, "DELETE", "/platter/v1/attachments/"+a.field("id"), "")
	expect(t, g, 404, other, "POST", "/platter/v1/overlays", `{"image_id": "`+id+`"}`)
	overlay := expect(t, g, 201, token, "POST", "/platter/v1/overlays", `{"image_id": "`+id+`"}`).field("id")
	expect(t, g, 404, other, "GET", "/platter/v1/overlays/"+overlay, "")
	expect(t, g, 404, other, "POST", "/platter/v1/overlays/"+overlay+"/capture", `{"image": {"name": "stolen"}}`)
	expect(t, g, 204, token, "DELETE", "/platter/v1/attachments/"+a.field("id"), "")
	expect(t, g, 204, token, "DELETE", "/platter/v1/overlays/"+overlay, "")
	expect(t, g, 204, token, "DELETE", "/v2/images/"+id, "")
}

// platter has our own command line find the gateway and get a token.
func (w *world) platter(t *testing.T) {
	platter := gateway.Binary(t, "platter")
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, alice, platter, "image", "create", "by-platter", "--file", file, "--disk-format", "raw")
	if out := w.must(t, alice, platter, "image", "list", "-f", "value", "-c", "name"); !strings.Contains(out, "by-platter") {
		t.Errorf("alice sees %q", out)
	}
	// The gateway's address alone is enough, too.
	if out := w.must(t, bob, platter, "--url", w.gateway.URL, "image", "list", "-f", "value", "-c", "name"); strings.Contains(out, "by-platter") {
		t.Errorf("bob sees %q", out)
	}
	w.refused(t, "exit status 3", bob, platter, "image", "show", "by-platter")
	// What else it finds is this machine's affair.
	if out, _ := w.run(t, user{"admin", "admin"}, platter, "doctor", "-f", "value"); !strings.Contains(out, "keystone ok ") || !strings.Contains(out, "image api ok ") {
		t.Errorf("doctor finds:\n%s", out)
	}
	w.refused(t, "exit status 4", user{"nobody", "one"}, platter, "image", "list")
	w.must(t, alice, platter, "image", "delete", "by-platter")
}

// revoked has a token revoked that the gateway has just seen. It may go on for
// the time that the configuration says, and no longer.
func (w *world) revoked(t *testing.T) {
	token := w.token(t, alice)
	expect(t, w.gateway, 200, token, "GET", "/v2/images", "")
	w.keystone.Revoke(t, token)
	time.Sleep(2 * time.Second)
	expect(t, w.gateway, 401, token, "GET", "/v2/images", "")
}

// outage kills Keystone and starts it again.
func (w *world) outage(t *testing.T) {
	g := w.newGateway(t, "5m")
	g.Run(t)
	known, fresh := w.token(t, alice), w.token(t, bob)
	expect(t, g, 200, known, "GET", "/v2/images", "")
	w.keystone.Process.Kill(t)
	expect(t, g, 200, known, "GET", "/v2/images", "")
	a := expect(t, g, 503, fresh, "GET", "/v2/images", "", "Accept: application/json")
	if a.header.Get("Retry-After") == "" || !strings.Contains(a.field("message"), "Keystone") {
		t.Errorf("503 says %v\n%s", a.header, a.body)
	}
	if a := expect(t, g, 200, "", "GET", "/readyz", ""); !strings.Contains(a.body, "ailing: auth: tokens cannot be checked: keystone at "+w.keystone.URL) {
		t.Errorf("/readyz says %s", a.body)
	}
	if !strings.Contains(metrics(t, g), "platter_auth_ok 0") {
		t.Error("the metrics do not show that Keystone is away")
	}

	if out, _ := g.Try(t.Context(), gateway.Binary(t, "platter"), "--token", known, "doctor", "--read-only", "-f", "value"); !strings.Contains(out, "keystone WRONG tokens cannot be checked") {
		t.Errorf("doctor finds:\n%s", out)
	}

	// A gateway starts without it, too.
	late := w.newGateway(t, "5m")
	late.Run(t)
	expect(t, late, 503, known, "GET", "/v2/images", "")

	w.keystone.Process.Start(t)
	for _, g := range []*gateway.Gateway{g, late} {
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			a := ask(t, g, fresh, "GET", "/v2/images", "")
			if a.status == 200 {
				break
			}
			if a.status != 503 || time.Now().After(deadline) {
				t.Fatalf("with Keystone back: %d\n%s", a.status, a.body)
			}
		}
	}
	if text := metrics(t, g); !strings.Contains(text, "platter_auth_ok 1") || !strings.Contains(text, `platter_auth_total{kind="remembered",result="good"}`) {
		t.Errorf("the metrics do not show that Keystone is back:\n%s", text)
	}
}

func metrics(t *testing.T, g *gateway.Gateway) string {
	t.Helper()
	resp, err := http.Get(g.Debug + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
