//go:build integration

package keystone

import (
	"fmt"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

func (d *desk) glanceImages() {
	kernel := "5e0d5b3a-0b3a-4b57-9d0c-6b8f6f1d2c3b"
	out := d.glance(alice, "image-create --name g --visibility private --protected True --min-disk 1 --min-ram 64 --disk-format raw --container-format bare"+
		" --architecture x86_64 --os-distro debian --os-version 12 --description words --kernel-id "+kernel+" --ramdisk-id "+kernel+" --instance-uuid "+kernel+
		" --hidden True --property color=red --tags red blue --store slow --progress --file", d.file)
	id := cell(out, "id")
	d.has("image-create", out, "name=g", "visibility=private", "protected=True", "min_disk=1", "min_ram=64", "architecture=x86_64", "os_distro=debian",
		"os_version=12", "description=words", "kernel_id="+kernel, "os_hidden=True", "color=red", "status=active", "stores=slow", "os_hash_algo=sha512")
	d.has("image-show", d.glance(alice, "image-show --human-readable", id), "id="+id)
	out = d.glance(alice, "image-update --name h --protected False --hidden False --min-disk 2 --property color=blue --property new=x --remove-property os_version", id)
	d.has("image-update", out, "name=h", "protected=False", "os_hidden=False", "min_disk=2", "color=blue", "new=x", "os_version=")
	d.refused(d.t, "403", alice, "glance", "image-update", "--owner", "somebody", id)
	d.refused(d.t, "403", alice, "glance", "image-update", "--visibility", "public", id)
	d.has("another owner", d.glance(admin, "image-update --visibility community", id), "visibility=community")
	for _, words := range []string{"--property-filter color=blue", "--visibility community --page-size 1", "--tag red --tag blue", "--sort name:asc --limit 1 --visibility community",
		"--sort-key name --sort-dir desc --visibility community", "--checksum " + cell(out, "checksum"), "--hash " + d.hash(id), "--include-stores --visibility community", "--owner " + cell(out, "owner")} {
		if list := d.glance(alice, "image-list "+words); !strings.Contains(list, id) {
			d.t.Errorf("image-list %s:\n%s", words, list)
		}
	}
	if list := d.glance(alice, "image-list --hidden True"); strings.Contains(list, id) {
		d.t.Errorf("hidden:\n%s", list)
	}
	d.glance(alice, "image-tag-update", id, "green")
	d.glance(alice, "image-tag-delete", id, "red")
	d.has("tags", d.glance(alice, "image-show", id), "tags=[\"blue\", \"green\"]")
	saved := d.path("g.raw")
	d.glance(alice, "image-download --progress --file", saved, id)
	d.same(saved)
	d.glance(alice, "image-deactivate", id)
	d.has("deactivated", d.glance(alice, "image-show", id), "status=deactivated")
	d.glance(alice, "image-reactivate", id)
	empty := d.queued(alice, `"name": "empty", "disk_format": "raw", "container_format": "bare"`)
	d.glance(alice, "image-upload --progress --store fast --file", d.file, empty)
	d.has("uploaded", d.glance(alice, "image-show", empty), "status=active", "stores=fast", fmt.Sprintf("size=%d", d.size))
	d.refused(d.t, "409", alice, "glance", "image-upload", "--file", d.file, empty)
	if out := d.glance(alice, "explain image"); !strings.Contains(out, "os_hash_algo") {
		d.t.Errorf("explain:\n%s", out)
	}
	d.glance(alice, "usage")
	d.refused(d.t, "caching API", admin, "glance", "--os-image-url", d.gateway.URL, "cache-list")
	d.glance(alice, "image-delete", id, empty)
}

// hash returns an image's hash, which tables break.
func (d *desk) hash(id string) string {
	d.t.Helper()
	return expect(d.t, d.gateway, 200, d.token(d.t, alice), "GET", "/v2/images/"+id, "").field("os_hash_value")
}

// closed runs a command of the glance client that looks whether there is
// anything on its standard input.
func (d *desk) closed(u user, words string, more ...string) string {
	d.t.Helper()
	return d.must(d.t, u, "sh", append([]string{"-c", `exec glance "$@" <&-`, "glance"}, append(strings.Fields(words), more...)...)...)
}

func (d *desk) glanceImport() {
	if out := d.glance(alice, "import-info"); !strings.Contains(out, "web-download") || !strings.Contains(out, "copy-image") {
		d.t.Errorf("import-info:\n%s", out)
	}
	const formats = "--disk-format raw --container-format bare --name i "
	direct := cell(d.closed(alice, "image-create-via-import "+formats+"--import-method glance-direct --store slow --file", d.file), "id")
	d.active(alice, direct)
	web := cell(d.closed(alice, "image-create-via-import "+formats+"--import-method web-download --all-stores True --uri", d.web), "id")
	d.active(alice, web)
	if out := d.glance(alice, "image-show", web); cell(out, "stores") != "fast,slow" && cell(out, "stores") != "slow,fast" || cell(out, "size") != fmt.Sprint(d.size) {
		d.t.Errorf("downloaded:\n%s", out)
	}
	staged := d.queued(alice, `"disk_format": "raw", "container_format": "bare"`)
	d.glance(alice, "image-stage --progress --file", d.file, staged)
	d.has("staged", d.glance(alice, "image-show", staged), "status=uploading")
	d.glance(alice, "image-import --import-method glance-direct --stores fast,slow --allow-failure True", staged)
	d.active(alice, staged)
	d.glance(admin, "image-import --import-method copy-image --stores fast", direct)
	for deadline := time.Now().Add(2 * time.Minute); cell(d.glance(alice, "image-show", direct), "stores") == "slow"; {
		if time.Now().After(deadline) {
			d.t.Fatal("the image is not copied")
		}
	}
	d.active(alice, direct)
	if out := d.glance(alice, "image-tasks", direct); strings.Count(out, " success ") != 2 {
		d.t.Errorf("image-tasks:\n%s", out)
	}
	d.glance(admin, "stores-delete --store slow", direct)
	d.has("a copy less", d.glance(alice, "image-show", direct), "stores=fast")
	d.refused(d.t, "403", admin, "glance", "stores-delete", "--store", "fast", direct)
	saved := d.path("i.raw")
	d.glance(alice, "image-download --file", saved, staged)
	d.same(saved)
	empty := d.queued(alice, `"disk_format": "raw", "container_format": "bare"`)
	d.refused(d.t, "400", alice, "glance", "image-import", "--import-method", "web-download", "--uri", "http://127.0.0.1:1/", empty)
	d.glance(alice, "image-delete", direct, web, staged, empty)
}

func (d *desk) glanceMembers() {
	id := d.queued(alice, `"name": "m", "visibility": "shared"`)
	two := d.must(d.t, admin, "openstack", "project", "show", "two", "-f", "value", "-c", "id")
	if out := d.glance(alice, "member-create", id, two); !strings.Contains(out, "pending") {
		d.t.Errorf("member-create:\n%s", out)
	}
	d.refused(d.t, "409", alice, "glance", "member-create", id, two)
	d.refused(d.t, "403", alice, "glance", "member-update", id, two, "accepted")
	for _, status := range []string{"accepted", "rejected", "pending", "accepted"} {
		if out := d.glance(bob, "member-update", id, two, status); !strings.Contains(out, status) {
			d.t.Errorf("member-update:\n%s", out)
		}
		if list := d.glance(bob, "image-list --visibility shared --member-status", status); !strings.Contains(list, id) {
			d.t.Errorf("%s:\n%s", status, list)
		}
	}
	d.has("member-get", d.glance(bob, "member-get", id, two), "status=accepted", "image_id="+id, "member_id="+two)
	if out := d.glance(alice, "member-list --image-id", id); !strings.Contains(out, "accepted") {
		d.t.Errorf("member-list:\n%s", out)
	}
	d.glance(alice, "member-delete", id, two)
	d.refused(d.t, "404", bob, "glance", "image-show", id)
	d.glance(alice, "image-delete", id)
}

func (d *desk) glanceStores() {
	if out := d.glance(alice, "stores-info"); !strings.Contains(out, "fast") || !strings.Contains(out, "for later") || strings.Contains(out, d.dir) {
		d.t.Errorf("stores-info:\n%s", out)
	}
	if out := d.glance(admin, "stores-info --detail"); !strings.Contains(out, d.path("slow")) {
		d.t.Errorf("stores-info --detail:\n%s", out)
	}
	d.refused(d.t, "403", alice, "glance", "stores-info", "--detail")
}

func (d *desk) glanceTasks() {
	out := d.glance(admin, "task-create --type import --input", `{"import_from": "`+d.web+`", "import_from_format": "raw", "image_properties": {"name": "by-task", "disk_format": "raw", "container_format": "bare"}}`)
	id := cell(out, "id")
	for deadline := time.Now().Add(2 * time.Minute); cell(out, "status") != "success"; out = d.glance(admin, "task-show", id) {
		if cell(out, "status") == "failure" || time.Now().After(deadline) {
			d.t.Fatalf("task-show:\n%s", out)
		}
	}
	for _, words := range []string{"", "--type import", "--status success", "--sort-key type --sort-dir asc --page-size 1"} {
		if list := d.glance(admin, "task-list "+words); !strings.Contains(list, id) {
			d.t.Errorf("task-list %s:\n%s", words, list)
		}
	}
	d.refused(d.t, "403", alice, "glance", "task-list")
	d.must(d.t, admin, "openstack", "image", "delete", "by-task")
}

// platterCommands are ours for the same.
func (d *desk) platterCommands() {
	platter := gateway.Binary(d.t, "platter")
	run := func(u user, words string, more ...string) string {
		d.t.Helper()
		return d.must(d.t, u, platter, append(strings.Fields(words), more...)...)
	}
	id := run(alice, "image create p -f value -c id --disk-format raw --container-format bare --visibility shared --file", d.file)
	two := d.must(d.t, admin, "openstack", "project", "show", "two", "-f", "value", "-c", "id")
	run(alice, "member create p", two)
	if out := run(bob, "member set --accept -f value "+id, two); !strings.Contains(out, "accepted") {
		d.t.Errorf("member set: %q", out)
	}
	if out := run(alice, "member show -f value p", two); !strings.Contains(out, "accepted") {
		d.t.Errorf("member show: %q", out)
	}
	if out := run(alice, "member list -f value p"); !strings.Contains(out, two) {
		d.t.Errorf("member list: %q", out)
	}
	run(alice, "member delete p", two)
	d.glance(admin, "image-import --import-method copy-image --stores slow", id)
	d.active(alice, id)
	task := run(alice, "task list --image p -f value -c id")
	if out := run(admin, "task show -f value", task); !strings.Contains(out, "api_image_import") {
		d.t.Errorf("task show %s: %q", task, out)
	}
	if out := run(admin, "task list -f value --type api_image_import --limit 1"); strings.Count(out, "api_image_import") != 1 {
		d.t.Errorf("task list: %q", out)
	}
	run(alice, "image delete p")
}
