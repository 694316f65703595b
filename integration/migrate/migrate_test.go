//go:build integration

package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

const (
	js    = "application/json"
	bin   = "application/octet-stream"
	patch = "application/openstack-images-v2.1-json-patch"
)

// A side is one of the two that have the images.
type side struct{ url, token string }

func (s side) ask(t *testing.T, method, path, contentType string, body []byte, status int) []byte {
	t.Helper()
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("X-Auth-Token", s.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s%s: %d, want %d, %v\n%.500s", method, s.url, path, resp.StatusCode, status, err, got)
	}
	return got
}

// A kind is an image to make: its record, its data, and what is done to it.
type kind struct {
	record  string
	data    []byte // nil: stays queued
	changes string // a PATCH
	members []string
	act     string
}

func (s side) make(t *testing.T, k kind) string {
	t.Helper()
	var img struct{ ID string }
	if err := json.Unmarshal(s.ask(t, "POST", "/v2/images", js, []byte(k.record), 201), &img); err != nil {
		t.Fatal(err)
	}
	path := "/v2/images/" + img.ID
	if k.data != nil {
		s.ask(t, "PUT", path+"/file", bin, k.data, 204)
	}
	for i, m := range k.members {
		s.ask(t, "POST", path+"/members", js, fmt.Appendf(nil, `{"member":%q}`, m), 200)
		if i > 0 {
			s.ask(t, "PUT", path+"/members/"+m, js, fmt.Appendf(nil, `{"status":%q}`, []string{"accepted", "rejected"}[i%2]), 200)
		}
	}
	if k.act != "" {
		s.ask(t, "POST", path+"/actions/"+k.act, "", nil, 204)
	}
	if k.changes != "" {
		s.ask(t, "PATCH", path, patch, []byte(k.changes), 200)
	}
	return img.ID
}

// noise is n bytes that no format looks like.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// kinds are twenty images of all kinds.
func kinds(t *testing.T) []kind {
	t.Helper()
	qcow := filepath.Join(t.TempDir(), "disk.qcow2")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", qcow, "64M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk, err := os.ReadFile(qcow)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(more string) string { return `{"disk_format":"raw","container_format":"bare"` + more + `}` }
	list := []kind{
		{record: `{"name":"queued"}`},
		{record: `{}`},
		{record: raw(`,"name":"hidden","os_hidden":true`), data: noise(1000)},
		{record: raw(`,"name":"public","visibility":"public","tags":["b","a","ö"]`), data: noise(2000)},
		{record: raw(`,"name":"community","visibility":"community"`), data: noise(3000)},
		{record: raw(`,"name":"private","visibility":"private","owner":"4fd7e1a1c7d94e8d8b8cf6bb2c8bb7a0"`), data: noise(4000)},
		{record: raw(`,"name":"shared"`), data: noise(5000), members: []string{"m1", "m2", "m3"}},
		{record: raw(`,"name":"deactivated"`), data: noise(6000), act: "deactivate"},
		{record: raw(`,"name":"protected","protected":true,"min_disk":3,"min_ram":512`), data: noise(7000)},
		{record: `{"name":"qcow2","disk_format":"qcow2","container_format":"bare","os_distro":"debian","hw_disk_bus":"virtio","empty":""}`, data: disk},
		{record: `{"name":"iso","disk_format":"raw","container_format":"ovf"}`, data: noise(9000)},
		{record: raw(`,"name":"日本 \"quoted\" / name","k1":"v1","os_version":"12"`), data: noise(10000)},
		{record: raw(`,"name":"changed"`), data: noise(11000), changes: `[{"op":"replace","path":"/name","value":"changed later"},{"op":"add","path":"/p","value":"q"}]`},
		{record: raw(`,"name":"protected and hidden","protected":true,"os_hidden":true`), data: noise(12000), act: "deactivate"},
	}
	for n := len(list); n < 20; n++ {
		list = append(list, kind{record: raw(fmt.Sprintf(`,"name":"big %d"`, n)), data: noise(8<<20 + n)})
	}
	return list
}

// record is an image as a side shows it, without what is each side's own.
func (s side) record(t *testing.T, id string) string {
	t.Helper()
	var img map[string]any
	if err := json.Unmarshal(s.ask(t, "GET", "/v2/images/"+id, "", nil, 200), &img); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"self", "file", "schema", "stores", "locations", "direct_url"} {
		delete(img, key)
	}
	if tags, ok := img["tags"].([]any); ok {
		set := map[string]bool{}
		for _, tag := range tags {
			set[fmt.Sprint(tag)] = true
		}
		img["tags"] = set
	}
	if img["visibility"] == "shared" {
		var out struct{ Members []map[string]any }
		if err := json.Unmarshal(s.ask(t, "GET", "/v2/images/"+id+"/members", "", nil, 200), &out); err != nil {
			t.Fatal(err)
		}
		members := map[string]any{}
		for _, m := range out.Members {
			members[fmt.Sprint(m["member_id"])] = m
		}
		img["members"] = members
	}
	text, err := json.MarshalIndent(img, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const namespace = `{"namespace":"My::Own","display_name":"d","description":"of all kinds","visibility":"public","protected":true,
	"resource_type_associations":[{"name":"OS::Glance::Image","prefix":"p_"}],"properties":{"p1":{"title":"t","type":"integer","minimum":1}},
	"objects":[{"name":"o1","required":["q"],"properties":{"q":{"title":"t","type":"string","enum":["a","b"]}}}],"tags":[{"name":"t1"},{"name":"t2"}]}`

// definition is the namespace as a side shows it, without what is each side's
// own.
func (s side) definition(t *testing.T) string {
	t.Helper()
	var n map[string]any
	if err := json.Unmarshal(s.ask(t, "GET", "/v2/metadefs/namespaces/My::Own", "", nil, 200), &n); err != nil {
		t.Fatal(err)
	}
	own := func(o map[string]any) {
		for _, key := range []string{"created_at", "updated_at", "self", "schema"} {
			delete(o, key)
		}
	}
	own(n)
	for _, key := range []string{"objects", "resource_type_associations"} {
		parts, _ := n[key].([]any)
		for _, part := range parts {
			own(part.(map[string]any))
		}
	}
	text, err := json.MarshalIndent(n, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMigrate takes the images of a Glance over, is killed in the midst, and
// runs again. Then every record and every byte is what it was.
func TestMigrate(t *testing.T) {
	gateway.Need(t, "qemu-img")
	k := servers.StartKeystone(t)
	glance := servers.StartSecureGlance(t, servers.SecureGlanceConfig{Keystone: k, Stores: []string{"fast"}})
	from := side{glance.URL, k.Token(t, "admin", k.AdminPassword, "admin")}
	var ids []string
	list := kinds(t)
	for _, kind := range list {
		ids = append(ids, from.make(t, kind))
	}
	from.ask(t, "POST", "/v2/metadefs/namespaces", js, []byte(namespace), 201)
	g := gateway.Start(t, "--mount", "off", "--nbd-listen", "off")
	to := side{url: g.URL}

	migrate := func(more ...string) *exec.Cmd {
		cmd := exec.Command(gateway.Binary(t, "platter"), append([]string{"--url", g.URL, "migrate", "--from", from.url}, more...)...)
		cmd.Env = append(os.Environ(), "PLATTER_FROM_TOKEN="+from.token)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	out, err := migrate("--dry-run").CombinedOutput()
	if n := strings.Count(string(out), "would be copied"); err != nil || n != len(list)+1 {
		t.Fatalf("--dry-run names %d of %d images, %v:\n%s", n, len(list), err, out)
	}
	if count := strings.Count(string(to.ask(t, "GET", "/v2/images?visibility=all", "", nil, 200)), `"id"`); count != 0 {
		t.Fatalf("--dry-run has made %d images", count)
	}

	first := migrate("--parallel", "2")
	var said bytes.Buffer
	first.Stdout, first.Stderr = &said, &said
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		some := to.ask(t, "GET", "/v2/images?visibility=all&status=active", "", nil, 200)
		if bytes.Count(some, []byte(`"id"`)) >= 3 {
			break
		}
		if time.Now().After(deadline) {
			first.Process.Kill()
			first.Wait()
			t.Fatalf("nothing comes: %s\n%s", some, &said)
		}
	}
	first.Process.Kill()
	first.Wait()

	out, err = migrate("--parallel", "3").CombinedOutput()
	if err != nil {
		t.Fatalf("the second run: %v\n%s", err, out)
	}
	t.Logf("the second run:\n%s", out)
	for i, id := range ids {
		if got, want := to.record(t, id), from.record(t, id); got != want {
			t.Errorf("image %d %s is\n%s\nand was\n%s", i, id, got, want)
		}
		if data := list[i].data; data != nil && !bytes.Equal(to.ask(t, "GET", "/v2/images/"+id+"/file", "", nil, 200), data) {
			t.Errorf("image %d %s has other bytes", i, id)
		}
	}
	if got, want := to.definition(t), from.definition(t); got != want {
		t.Errorf("the definitions are\n%s\nand were\n%s", got, want)
	}
	out, err = migrate().CombinedOutput()
	if n := strings.Count(string(out), "already here"); err != nil || n != len(list)+1 {
		t.Errorf("the third run finds %d of %d images, %v:\n%s", n, len(list), err, out)
	}

	// What is not as its record says is not taken.
	bad := from.make(t, kind{record: `{"name":"rotten","disk_format":"raw","container_format":"bare"}`, data: noise(5000)})
	rot(t, filepath.Dir(glance.Process.LogFile()), bad)
	out, err = migrate(bad).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "its record says") {
		t.Errorf("a rotten image was taken: %v\n%s", err, out)
	}
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(to.record(t, bad), `"status": "queued"`); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a rotten image is %s", to.record(t, bad))
		}
	}
}

// rot changes a byte of an image in Glance's store.
func rot(t *testing.T, dir, id string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "fast", id), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1, 2, 3, 4}, 100); err != nil {
		t.Fatal(err)
	}
}

// TestAdopt takes the images of a Glance over without a copy: the gateway has
// the Glance's folder as a store. What it does not adopt it leaves alone.
func TestAdopt(t *testing.T) {
	gateway.Need(t, "qemu-img")
	k := servers.StartKeystone(t)
	glance := servers.StartSecureGlance(t, servers.SecureGlanceConfig{Keystone: k, Stores: []string{"fast"}})
	from := side{glance.URL, k.Token(t, "admin", k.AdminPassword, "admin")}
	dir := filepath.Join(filepath.Dir(glance.Process.LogFile()), "fast")
	var ids []string
	list := kinds(t)
	for _, kind := range list {
		ids = append(ids, from.make(t, kind))
	}
	later := from.make(t, kind{record: `{"name":"later","disk_format":"raw","container_format":"bare"}`, data: noise(5000)})
	rot(t, filepath.Dir(dir), later)
	g := gateway.Start(t, "--mount", "off", "--nbd-listen", "off", "PLATTER_STORES_LOCAL_TYPE=file", "PLATTER_STORES_LOCAL_DIR=images",
		"PLATTER_DEFAULT_STORE=local", "PLATTER_STORES_OLD_TYPE=file", "PLATTER_STORES_OLD_DIR="+dir, "PLATTER_STORES_OLD_SHARED=true",
		"PLATTER_LIMITS_ORPHAN_GRACE=1s")
	to := side{url: g.URL}
	old := time.Now().Add(-48 * time.Hour)
	for _, id := range append(ids, later) {
		os.Chtimes(filepath.Join(dir, id), old, old) // those that are queued have no file
	}
	cmd := exec.Command(gateway.Binary(t, "platter"), append([]string{"--url", g.URL, "migrate", "--from", from.url, "--adopt", "old"}, ids...)...)
	cmd.Env = append(os.Environ(), "PLATTER_FROM_TOKEN="+from.token)
	out, err := cmd.CombinedOutput()
	if n := strings.Count(string(out), "adopted"); err != nil || n != len(list)-2 {
		t.Fatalf("%d adopted, %v\n%s", n, err, out)
	}
	for i, id := range ids {
		if got, want := to.record(t, id), from.record(t, id); got != want {
			t.Errorf("image %d %s is\n%s\nand was\n%s", i, id, got, want)
		}
		if data := list[i].data; data != nil && !bytes.Equal(to.ask(t, "GET", "/v2/images/"+id+"/file", "", nil, 200), data) {
			t.Errorf("image %d %s has other bytes", i, id)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(g.Dir, "images")); err != nil || len(entries) > 1 { // +partial
		t.Errorf("bytes were copied: %v, %v", entries, err)
	}
	cmd = exec.Command(gateway.Binary(t, "platter"), "--url", g.URL, "migrate", "--from", from.url, "--adopt", "old", later)
	cmd.Env = append(os.Environ(), "PLATTER_FROM_TOKEN="+from.token)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "checksums are not those") {
		t.Errorf("a rotten image was adopted: %v\n%s", err, out)
	}
	// Two rounds of the sweeper pass, as two orphans of our own show.
	for range 2 {
		orphan := filepath.Join(g.Dir, "images", "orphan")
		if err := os.WriteFile(orphan, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(orphan, old, old)
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(orphan); os.IsNotExist(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing is swept")
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, later)); err != nil {
		t.Errorf("a file of the Glance that was not adopted: %v", err)
	}
}
