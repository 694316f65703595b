//go:build integration

package keystone

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// admin is the administrator of the cloud.
var admin = user{"admin", "admin"}

// A desk is where somebody sits who types commands: a world whose gateway has
// two stores and may download from one web server.
type desk struct {
	*world
	t    *testing.T
	file string // a disk of size bytes
	size int
	web  string // where the web server has it
	dir  string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), size: 1<<20 + 512}
	d.file = d.path("disk.raw")
	data := make([]byte, d.size)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	d.write(d.file, string(data))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(data) }))
	t.Cleanup(server.Close)
	d.web = server.URL + "/disk.raw"
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	conf := d.path("platter.toml")
	d.write(conf, fmt.Sprintf("default_store = \"fast\"\n[import]\nallowed_hosts = [\"127.0.0.1\"]\nallowed_ports = [%q]\n"+
		"[stores.fast]\ntype = \"file\"\ndir = %q\n[stores.slow]\ntype = \"file\"\ndescription = \"for later\"\ndir = %q\n", u.Port(), d.path("fast"), d.path("slow")))
	d.world = newWorld(t, "--config", conf)
	return d
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// openstack runs a command of OpenStack's client that answers with an object.
func (d *desk) openstack(u user, words string, more ...string) map[string]any {
	d.t.Helper()
	out := d.must(d.t, u, "openstack", append(append(strings.Fields(words), more...), "-f", "json")...)
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		d.t.Fatalf("openstack %s: %v\n%s", words, err, out)
	}
	return m
}

// names runs a command that lists, and returns the column of names, sorted.
func (d *desk) names(u user, words string, more ...string) []string {
	d.t.Helper()
	list := strings.Fields(d.must(d.t, u, "openstack", append(append(strings.Fields(words), more...), "-f", "value", "-c", "Name")...))
	slices.Sort(list)
	return list
}

// list checks what a list has.
func (d *desk) list(want string, u user, words string, more ...string) {
	d.t.Helper()
	if got := strings.Join(d.names(u, words, more...), " "); got != want {
		d.t.Errorf("openstack %s %v as %s: %q, want %q", words, more, u.name, got, want)
	}
}

// glance runs a command of the glance client and returns its table.
func (d *desk) glance(u user, words string, more ...string) string {
	d.t.Helper()
	return d.must(d.t, u, "glance", append(strings.Fields(words), more...)...)
}

// cell returns the value beside a key in a table of the glance client.
func cell(table, key string) string {
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.TrimSpace(cells[1]) == key {
			return strings.TrimSpace(cells[2])
		}
	}
	return ""
}

// has checks that a table has the values, "key=value" each.
func (d *desk) has(what, table string, want ...string) {
	d.t.Helper()
	for _, w := range want {
		if key, value, _ := strings.Cut(w, "="); cell(table, key) != value {
			d.t.Errorf("%s: %s is %q, want %q\n%s", what, key, cell(table, key), value, table)
		}
	}
}

// queued makes an image without data. The clients cannot: they take what is
// not a terminal on their standard input for the image.
func (d *desk) queued(u user, fields string) string {
	d.t.Helper()
	return expect(d.t, d.gateway, 201, d.token(d.t, u), "POST", "/v2/images", "{"+fields+"}").field("id")
}

// active waits until an image is active.
func (d *desk) active(u user, id string) {
	d.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		a := expect(d.t, d.gateway, 200, d.token(d.t, u), "GET", "/v2/images/"+id, "")
		if a.field("status") == "active" && a.field("os_glance_import_task") == "" {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("image %s does not become active: %s", id, a.body)
		}
	}
}

// TestCommands runs every command on images, members, tasks, stores and metadefs that
// the two clients of OpenStack have, with every option that a server can feel.
// What needs a service besides, as volumes and certificates do, is left out.
func TestCommands(t *testing.T) {
	gateway.Need(t, "openstack", "glance")
	d := newDesk(t)
	for name, run := range map[string]func(d *desk){
		"openstack-create": (*desk).openstackCreate, "openstack-change": (*desk).openstackChange, "openstack-share": (*desk).openstackShare,
		"openstack-list": (*desk).openstackList, "glance-images": (*desk).glanceImages, "glance-import": (*desk).glanceImport,
		"glance-members": (*desk).glanceMembers, "glance-stores": (*desk).glanceStores, "glance-tasks": (*desk).glanceTasks, "platter": (*desk).platterCommands,
		"glance-md": (*desk).glanceMetadefs,
	} {
		t.Run(name, func(t *testing.T) {
			one := *d
			one.t = t
			run(&one)
		})
	}
}

func (d *desk) openstackCreate() {
	id := "0d7f5f6c-7e0b-4b0a-9d53-1b1c5b0f7a22"
	d.openstack(alice, "image create --disk-format raw --container-format bare --min-disk 1 --min-ram 64 --protected --community --property os_distro=debian --tag red --id", id, "--file", d.file, "full")
	img := d.openstack(alice, "image show", id)
	props, _ := img["properties"].(map[string]any)
	if img["status"] != "active" || img["protected"] != true || img["visibility"] != "community" || props["os_distro"] != "debian" || img["size"] != float64(d.size) {
		d.t.Errorf("created: %v", img)
	}
	if size := d.openstack(alice, "image show --human-readable", id)["size"]; fmt.Sprint(size) != "1M" && fmt.Sprint(size) != "1.0M" && !strings.HasPrefix(fmt.Sprint(size), "1") {
		d.t.Errorf("human-readable size %v", size)
	}
	d.refused(d.t, "409", alice, "openstack", "image", "create", "--id", id, "again")
	d.refused(d.t, "403", alice, "openstack", "image", "create", "--public", "mine")
	saved := d.path("saved")
	d.must(d.t, alice, "openstack", "image", "save", "--file", saved, "full")
	d.same(saved)
	d.refused(d.t, "Failed to delete", alice, "openstack", "image", "delete", id)
	d.must(d.t, alice, "openstack", "image", "set", "--unprotected", id)
	d.must(d.t, alice, "openstack", "image", "delete", id)
	d.refused(d.t, "409", alice, "openstack", "image", "create", "--id", id, "the id of one that was deleted")

	imported, _ := d.openstack(alice, "image create --import --disk-format raw --container-format bare --private --file", d.file, "imported")["id"].(string)
	d.active(alice, imported)
	other, _ := d.openstack(admin, "image create --project two --shared of-bob")["id"].(string)
	if d.openstack(bob, "image show", other)["name"] != "of-bob" {
		d.t.Error("bob has no image")
	}
	d.must(d.t, bob, "openstack", "image", "delete", other)
	d.must(d.t, alice, "openstack", "image", "delete", imported)
}

// same compares a file with the disk.
func (d *desk) same(file string) {
	d.t.Helper()
	got, err := os.ReadFile(file)
	want, wantErr := os.ReadFile(d.file)
	if err != nil || wantErr != nil || string(got) != string(want) {
		d.t.Errorf("%s has %d bytes and not the %d of the image: %v, %v", file, len(got), len(want), err, wantErr)
	}
}

func (d *desk) openstackChange() {
	id, _ := d.openstack(alice, "image create --disk-format raw --container-format bare --file", d.file, "before")["id"].(string)
	kernel := "5e0d5b3a-0b3a-4b57-9d0c-6b8f6f1d2c3b"
	d.must(d.t, alice, "openstack", strings.Fields("image set --name after --min-disk 2 --min-ram 128 --protected --community --property hw_disk_bus=virtio --tag red --tag blue"+
		" --architecture x86_64 --instance-id "+kernel+" --kernel-id "+kernel+" --ramdisk-id "+kernel+" --os-distro debian --os-version 12 "+id)...)
	img := d.openstack(alice, "image show", "after")
	props, _ := img["properties"].(map[string]any)
	for key, want := range map[string]string{"hw_disk_bus": "virtio", "architecture": "x86_64", "kernel_id": kernel, "ramdisk_id": kernel, "os_distro": "debian", "os_version": "12"} {
		if fmt.Sprint(props[key]) != want {
			d.t.Errorf("%s is %v, want %s", key, props[key], want)
		}
	}
	if img["min_disk"] != 2.0 || img["min_ram"] != 128.0 || img["protected"] != true || img["visibility"] != "community" {
		d.t.Errorf("set: %v", img)
	}
	d.refused(d.t, "403", alice, "openstack", "image", "set", "--disk-format", "qcow2", id)
	d.refused(d.t, "403", alice, "openstack", "image", "set", "--public", id)
	d.refused(d.t, "403", rita, "openstack", "image", "set", "--name", "of-rita", id)
	d.must(d.t, alice, "openstack", "image", "unset", "--tag", "blue", "--property", "hw_disk_bus", id)
	d.must(d.t, alice, "openstack", "image", "set", "--hidden", "--unprotected", "--private", id)
	d.list("after", alice, "image list --hidden")
	d.must(d.t, alice, "openstack", "image", "set", "--unhidden", "--deactivate", id)
	if status := d.openstack(alice, "image show", id)["status"]; status != "deactivated" {
		d.t.Errorf("deactivated: %v", status)
	}
	d.refused(d.t, "Unable to download", alice, "openstack", "image", "save", "--file", d.path("no"), id)
	d.must(d.t, alice, "openstack", "image", "set", "--activate", id)
	img = d.openstack(alice, "image show", id)
	tags, _ := img["tags"].([]any)
	props, _ = img["properties"].(map[string]any)
	if len(tags) != 1 || tags[0] != "red" || props["hw_disk_bus"] != nil || img["status"] != "active" {
		d.t.Errorf("unset: %v", img)
	}
	empty := d.queued(alice, `"name": "empty"`)
	d.must(d.t, alice, "openstack", "image", "set", "--disk-format", "qcow2", "--container-format", "ovf", empty)
	if img := d.openstack(alice, "image show", empty); img["disk_format"] != "qcow2" || img["container_format"] != "ovf" {
		d.t.Errorf("formats: %v", img)
	}
	d.must(d.t, admin, "openstack", "image", "set", "--project", "two", empty)
	if name := d.openstack(bob, "image show", empty)["name"]; name != "empty" {
		d.t.Errorf("what was given to bob: %v", name)
	}
	d.must(d.t, admin, "openstack", "image", "delete", empty, id)
}

func (d *desk) openstackShare() {
	id := d.queued(alice, `"name": "offer", "visibility": "shared"`)
	two, _ := d.openstack(admin, "project show two")["id"].(string)
	d.openstack(alice, "image add project offer", two)
	d.list("", bob, "image list --shared")
	d.list("offer", bob, "image list --shared --member-status pending")
	for _, step := range []struct{ flag, status string }{{"--accept", "accepted"}, {"--pending", "pending"}, {"--reject", "rejected"}, {"--accept", "accepted"}} {
		d.must(d.t, bob, "openstack", "image", "set", step.flag, id)
		if out := d.must(d.t, alice, "openstack", "image", "member", "list", "-f", "value", "offer"); !strings.Contains(out, two+" "+step.status) {
			d.t.Errorf("after %s: %q", step.flag, out)
		}
	}
	d.list("offer", bob, "image list --shared")
	d.must(d.t, admin, "openstack", "image", "remove", "project", id, two)
	d.list("", bob, "image list --shared")
	d.must(d.t, alice, "openstack", "image", "delete", "offer")
}

func (d *desk) openstackList() {
	var ids []string
	for _, fields := range []string{`"name": "one", "visibility": "private", "tags": ["t1"], "color": "red"`,
		`"name": "two", "visibility": "community", "tags": ["t1", "t2"]`, `"name": "three", "visibility": "shared"`} {
		ids = append(ids, d.queued(alice, fields))
	}
	d.list("one three two", alice, "image list")
	d.list("one", alice, "image list --private")
	d.list("two", alice, "image list --community")
	d.list("three", alice, "image list --shared")
	d.list("", alice, "image list --public")
	d.list("one three two", alice, "image list --all")
	d.list("one", alice, "image list --property color=red")
	d.list("two", alice, "image list --name two")
	d.list("one three two", alice, "image list --status queued")
	d.list("one two", alice, "image list --tag t1")
	d.list("two", alice, "image list --tag t1 --tag t2")
	d.list("one three two", admin, "image list --project one --all")
	d.list("", bob, "image list")
	d.list("two", bob, "image list --community")
	// This client sorts by itself what it gets, which are the newest ones.
	if out := d.must(d.t, alice, "openstack", "image", "list", "--long", "--sort", "name:desc", "--limit", "2", "-f", "value", "-c", "Name"); strings.Join(strings.Fields(out), " ") != "two three" {
		d.t.Errorf("sorted and cut: %q", out)
	}
	if out := d.must(d.t, alice, "openstack", "image", "list", "--sort", "name:asc", "--marker", ids[2], "-f", "value", "-c", "Name"); strings.Join(strings.Fields(out), " ") != "one two" {
		d.t.Errorf("behind a marker: %q", out)
	}
	d.must(d.t, alice, "openstack", append([]string{"image", "delete"}, ids...)...)
}
