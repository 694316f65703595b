//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// randomFile makes a file of n bytes that no compression makes smaller.
func randomFile(t *testing.T, n int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	rng.Read(data)
	path = filepath.Join(t.TempDir(), "random.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("no JSON object: %v\n%s", err, text)
	}
	return m
}

func sameFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not the %d that were uploaded", path, len(got), len(want))
	}
}

// TestOpenStackClient does with Debian's openstack command what its users do.
func TestOpenStackClient(t *testing.T) {
	gateway.Need(t, "openstack")
	g := gateway.Start(t)
	openstack := func(args ...string) string { t.Helper(); return g.Command(t, "openstack", args...) }
	file, data := randomFile(t, 3<<20+17)

	img := decode(t, openstack("image", "create", "-f", "json", "--file", file, "--disk-format", "raw", "--container-format", "bare",
		"--property", "hw_disk_bus=virtio", "--property", "os_distro=debian", "--tag", "red", "--min-disk", "2", "--private", "first"))
	id, _ := img["id"].(string)
	if img["min_disk"] != 2.0 || img["visibility"] != "private" {
		t.Errorf("created: %v", img) // this client shows the state before the upload
	}
	if img = decode(t, openstack("image", "show", "-f", "json", id)); img["status"] != "active" || img["size"] != float64(len(data)) {
		t.Errorf("shown: %v", img)
	}
	openstack("image", "create", "--disk-format", "qcow2", "second") // takes its standard input, which is empty
	if names := strings.Fields(openstack("image", "list", "-f", "value", "-c", "Name", "--sort", "name")); !slices.Equal(names, []string{"first", "second"}) {
		t.Errorf("listed %q", names)
	}
	if names := strings.Fields(openstack("image", "list", "-f", "value", "-c", "Name", "--property", "os_distro=debian", "--tag", "red", "--private")); !slices.Equal(names, []string{"first"}) {
		t.Errorf("listed by property and tag: %q", names)
	}

	openstack("image", "set", "first", "--name", "renamed", "--property", "hw_vif_model=virtio", "--tag", "blue", "--min-ram", "128", "--protected", "--shared")
	img = decode(t, openstack("image", "show", "-f", "json", id))
	tags, _ := img["tags"].([]any)
	props, _ := img["properties"].(map[string]any)
	if img["name"] != "renamed" || img["min_ram"] != 128.0 || img["protected"] != true || len(tags) != 2 || props["hw_vif_model"] != "virtio" {
		t.Errorf("set: %v", img)
	}
	if _, err := g.Try(t.Context(), "openstack", "image", "delete", id); err == nil {
		t.Error("a protected image was deleted")
	}
	openstack("image", "set", id, "--unprotected")
	openstack("image", "unset", id, "--tag", "blue", "--property", "hw_vif_model")
	img = decode(t, openstack("image", "show", "-f", "json", "renamed"))
	if tags, _ := img["tags"].([]any); len(tags) != 1 || tags[0] != "red" {
		t.Errorf("unset left the tags %v", tags)
	}

	project := "5a6f4c9a1d8e4b1c9f0e2d3c4b5a6978"
	openstack("image", "add", "project", id, project)
	if out := openstack("image", "member", "list", "-f", "value", id); !strings.Contains(out, project) || !strings.Contains(out, "pending") {
		t.Errorf("members: %q", out)
	}
	// "image remove project" asks Keystone for the project's name first, so it
	// needs one; the glance command, which does not, removes a member below.
	call(t, g, "DELETE", "/v2/images/"+id+"/members/"+project, "", 204)

	openstack("image", "set", id, "--deactivate")
	if img = decode(t, openstack("image", "show", "-f", "json", id)); img["status"] != "deactivated" {
		t.Errorf("deactivated: %v", img["status"])
	}
	openstack("image", "set", id, "--activate")
	saved := filepath.Join(t.TempDir(), "saved")
	openstack("image", "save", "--file", saved, id)
	sameFile(t, saved, data)

	openstack("image", "delete", "renamed", "second")
	if out := openstack("image", "list", "-f", "value"); strings.TrimSpace(out) != "" {
		t.Errorf("left after delete: %q", out)
	}
}

// TestGlanceClient does the same with Debian's glance command, which checks
// everything against the schemas that it downloads.
func TestGlanceClient(t *testing.T) {
	gateway.Need(t, "glance")
	g := gateway.Start(t)
	glance := func(args ...string) string {
		t.Helper()
		return g.Command(t, "env", append([]string{"-u", "OS_AUTH_TYPE", "glance", "--os-image-url", g.URL, "--os-auth-token", "none"}, args...)...)
	}
	file, data := randomFile(t, 5<<20)
	field := func(table, key string) string {
		for line := range strings.Lines(table) {
			cells := strings.Split(line, "|")
			if len(cells) > 2 && strings.TrimSpace(cells[1]) == key {
				return strings.TrimSpace(cells[2])
			}
		}
		return ""
	}

	out := glance("image-create", "--progress", "--file", file, "--disk-format", "raw", "--container-format", "bare",
		"--name", "one", "--property", "architecture=x86_64", "--tags", "red", "blue")
	id := field(out, "id")
	if field(out, "status") != "active" || field(out, "architecture") != "x86_64" {
		t.Errorf("created:\n%s", out)
	}
	if out = glance("image-show", id); field(out, "checksum") == "" || field(out, "os_hash_algo") != "sha512" {
		t.Errorf("shown:\n%s", out)
	}
	glance("image-update", id, "--property", "os_distro=debian", "--remove-property", "architecture", "--min-ram", "64")
	if out = glance("image-show", id); field(out, "os_distro") != "debian" || field(out, "architecture") != "" || field(out, "min_ram") != "64" {
		t.Errorf("updated:\n%s", out)
	}
	if out = glance("image-list", "--property-filter", "os_distro=debian", "--tag", "red", "--sort-key", "name", "--sort-dir", "asc"); !strings.Contains(out, id) {
		t.Errorf("listed:\n%s", out)
	}
	glance("image-tag-update", id, "green")
	glance("image-tag-delete", id, "red")
	if out = glance("image-show", id); strings.Contains(field(out, "tags"), "red") || !strings.Contains(field(out, "tags"), "green") {
		t.Errorf("tags: %s", field(out, "tags"))
	}
	project := "0123456789abcdef0123456789abcdef"
	glance("member-create", id, project)
	glance("member-update", id, project, "accepted")
	if out = glance("member-list", "--image-id", id); !strings.Contains(out, "accepted") {
		t.Errorf("members:\n%s", out)
	}
	glance("member-delete", id, project)

	saved := filepath.Join(t.TempDir(), "saved")
	glance("image-download", "--progress", "--file", saved, id)
	sameFile(t, saved, data)

	glance("image-create", "--name", "two", "--disk-format", "raw", "--container-format", "bare")
	glance("image-deactivate", id)
	glance("image-reactivate", id)
	glance("image-delete", id)
	if out = glance("image-list"); strings.Contains(out, id) {
		t.Errorf("left after delete:\n%s", out)
	}
}
