//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// definitions is where Debian's Glance has its definitions.
const definitions = "/etc/glance/metadefs"

// TestMetadefs imports all definitions that Glance comes with; Glance's own
// command line sees them, and they come out as they went in.
func TestMetadefs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(definitions, "*.json"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d definitions in %s, %v: install glance-common", len(files), definitions, err)
	}
	g := gateway.Start(t)
	platter := gateway.Binary(t, "platter")
	said := g.Command(t, platter, "md", "import", definitions)
	if n := strings.Count(said, ": imported"); n != len(files) {
		t.Fatalf("%d of %d files are imported:\n%s", n, len(files), said)
	}
	seen := g.Command(t, "env", "-u", "OS_AUTH_TYPE", "glance", "--os-image-url", g.URL, "--os-auth-token", "none", "md-namespace-list", "--page-size", "10")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		name := want["namespace"].(string)
		if !strings.Contains(seen, name) {
			t.Errorf("the glance command does not see %s", name)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(g.Command(t, platter, "md", "export", name)), &got); err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			if (key == "properties" || key == "description" || key == "display_name" || key == "protected") && !reflect.DeepEqual(got[key], value) {
				t.Errorf("%s: %s came out as\n%v, not\n%v", name, key, got[key], value)
			}
		}
	}
	if again := g.Command(t, platter, "md", "import", definitions); strings.Count(again, "is there already") != len(files) {
		t.Errorf("imported again:\n%s", again)
	}
	glance := func(args ...string) string {
		return g.Command(t, "env", append([]string{"-u", "OS_AUTH_TYPE", "glance", "--os-image-url", g.URL, "--os-auth-token", "none"}, args...)...)
	}
	glance("md-namespace-create", "My::Own", "--description", "words")
	glance("md-property-create", "My::Own", "--name", "p", "--title", "P", "--schema", `{"type":"integer","minimum":1}`)
	glance("md-object-create", "My::Own", "--name", "o", "--schema", `{"description":"d","properties":{"q":{"title":"Q","type":"string"}}}`)
	glance("md-tag-create-multiple", "My::Own", "--names", "u,v")
	glance("md-tag-create", "My::Own", "--name", "t")
	glance("md-resource-type-associate", "My::Own", "--name", "OS::Glance::Image", "--prefix", "x_")
	for _, show := range [][]string{{"md-property-show", "My::Own", "p"}, {"md-object-show", "My::Own", "o"}, {"md-tag-show", "My::Own", "t"},
		{"md-property-list", "My::Own"}, {"md-object-list", "My::Own"}, {"md-tag-list", "My::Own"}, {"md-resource-type-list"},
		{"md-namespace-resource-type-list", "My::Own"}, {"md-object-property-show", "My::Own", "o", "q"}, {"md-namespace-show", "My::Own"}} {
		glance(show...)
	}
	glance("md-property-update", "My::Own", "p", "--name", "p2", "--title", "P", "--schema", `{"type":"string"}`)
	glance("md-object-update", "My::Own", "o", "--name", "o2", "--schema", `{"description":"e"}`)
	glance("md-tag-update", "My::Own", "t", "--name", "t2")
	glance("md-namespace-update", "My::Own", "--visibility", "public")
	for _, drop := range [][]string{{"md-resource-type-deassociate", "My::Own", "OS::Glance::Image"}, {"md-property-delete", "My::Own", "p2"},
		{"md-object-delete", "My::Own", "o2"}, {"md-tag-delete", "My::Own", "t2"}, {"md-namespace-tags-delete", "My::Own"},
		{"md-namespace-properties-delete", "My::Own"}, {"md-namespace-objects-delete", "My::Own"}, {"md-namespace-delete", "My::Own"}} {
		glance(drop...)
	}
}
