//go:build integration

package tempest

import (
	"bufio"
	_ "embed" // run-tempest.py
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/proxy"
	"github.com/seed-478a8fee/platter/integration/servers"
)

//go:embed run-tempest.py
var runTempest []byte

// TestTempest runs all that Tempest has for image services, with two gateways.
func TestTempest(t *testing.T) {
	gateway.Need(t, "tempest", "/usr/bin/python3")
	k := servers.StartKeystone(t)
	image := serveImage(t)
	env := append(stores(t), "--auth", "keystone", "--mount", "off", "--etcd", servers.StartEtcd(t, 1).Endpoints[0],
		"PLATTER_AUTH_AUTH_URL="+k.URL, "PLATTER_AUTH_USERNAME=admin", "PLATTER_AUTH_PASSWORD="+k.AdminPassword, "PLATTER_AUTH_PROJECT_NAME=admin",
		"PLATTER_IMAGES_SHOW_MULTIPLE_LOCATIONS=true", "PLATTER_IMPORT_ALLOWED_HOSTS=127.0.0.1,does-not.exist", "PLATTER_IMPORT_GLANCE_DOWNLOAD=true")
	for service, name := range map[string]string{"image": "glance", "image_remote": "glance_remote"} {
		g := gateway.New(t, env...)
		g.Wrap = []string{"env", "PLATTER_IMPORT_SELF_URL=" + g.URL, "PLATTER_IMPORT_ALLOWED_PORTS=80," + portOf(image) + "," + portOf(g.URL)}
		g.Run(t)
		k.AddService(t, service, name, g.URL)
		if service == "image" {
			g.Command(t, gateway.Binary(t, "platter"), "--token", k.Token(t, "admin", k.AdminPassword, "admin"), "md", "import", "/usr/share/glance-common/metadefs")
		}
	}
	k.Grant(t, "tempest", "a-password", "tempest", "member", "reader")

	judge(t, run(t, configure(t, k, image)))
}

// stores are two buckets, which gateways share and which are cached, and the
// web. Tempest has to see an image in the cache's queue before it is fetched,
// so reading takes a while.
func stores(t *testing.T) []string {
	t.Helper()
	v := servers.StartVersity(t, servers.VersityConfig{})
	far := proxy.Start(t, v.S3.URL, proxy.Config{})
	far.Add(proxy.Rule{Match: func(r *http.Request) bool { return r.Method == http.MethodGet && r.Header.Get("Range") != "" }}, proxy.Delay(time.Second))
	env := []string{"PLATTER_DEFAULT_STORE=cold", "PLATTER_STORES_WEB_TYPE=http", "PLATTER_STORES_WEB_ALLOW_PRIVATE=true"}
	for _, name := range []string{"cold", "colder"} {
		v.MakeBucket(t, name)
		for _, kv := range gateway.S3Store(v.S3.At("http://"+far.Host()), name) {
			env = append(env, strings.Replace(kv, "STORES_COLD_", "STORES_"+strings.ToUpper(name)+"_", 1))
		}
	}
	return env
}

// portOf returns the port in a URL.
func portOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Port()
}

// serveImage serves what Tempest imports from the web, and returns its URL.
func serveImage(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("an image from the web\n", 50000)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "image.raw", time.Time{}, strings.NewReader(body))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String() + "/image.raw"
}

// configure writes Tempest's configuration and returns its directory.
func configure(t *testing.T, k *servers.Keystone, image string) string {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf(config, dir, k.URL, k.Region, k.AdminPassword, image)
	if err := os.WriteFile(filepath.Join(dir, "tempest.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "run-tempest.py"), runTempest, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Tempest uploads random bytes in the disk formats that are told it, the first
// of them most often; they are those whose content nobody can check.
const config = `[DEFAULT]
log_dir = %[1]s
log_file = tempest.log
[oslo_concurrency]
lock_path = %[1]s
[auth]
use_dynamic_credentials = true
create_isolated_networks = false
tempest_roles = member,reader
admin_username = admin
admin_password = %[4]s
admin_project_name = admin
admin_domain_name = Default
[identity]
uri_v3 = %[2]s
auth_version = v3
region = %[3]s
[service_available]
glance = true
neutron = false
nova = false
cinder = false
swift = false
[image]
http_image = %[5]s
disk_formats = raw,ami,ari,aki,ploop
container_formats = bare,ovf
image_caching_enabled = true
alternate_image_endpoint = image_remote
build_interval = 1
build_timeout = 60
[image-feature-enabled]
import_image = true
os_glance_reserved = true
manage_locations = true
`

// An outcome is what became of one test.
type outcome struct {
	Test, Outcome, Why string
}

// run runs the tests. Whole classes that skip or fail are named after the
// class, as "setUpClass (…)".
func run(t *testing.T, dir string) (all []outcome) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", filepath.Join(dir, "run-tempest.py"), "tempest.api.image.v2")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TEMPEST_CONFIG_DIR="+dir, "TEMPEST_CONFIG=tempest.conf", "HOME="+dir, "PYTHONWARNINGS=ignore")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var o outcome
		if json.Unmarshal(lines.Bytes(), &o) == nil {
			all = append(all, o)
		}
	}
	if err := cmd.Wait(); err != nil || len(all) == 0 {
		t.Fatalf("tempest: %v\n%s", err, said.String())
	}
	return all
}

// judge compares what happened with what is known. A test that was found and
// not heard of went with its class.
func judge(t *testing.T, outcomes []outcome) {
	t.Helper()
	result := map[string]outcome{}
	for _, o := range outcomes {
		name := nameOf(o.Test)
		if _, heard := result[name]; o.Outcome != "found" || !heard {
			result[name] = o
		}
	}
	passed, waited := 0, map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(result)) {
		o, entry := result[name], waitsFor(name)
		if o.Outcome == "ok" {
			passed++
		}
		switch {
		case o.Outcome == "ok" && entry != "":
			t.Errorf("%s passes; take %s out of the list", name, entry)
		case entry != "":
			waited[entry]++
		case o.Outcome != "ok" && o.Outcome != "found":
			t.Errorf("%s: %s %s", name, o.Outcome, o.Why)
		case o.Outcome == "found":
			t.Errorf("%s did not run", name)
		}
	}
	for entry := range waiting {
		if waited[entry] == 0 {
			t.Errorf("there is no test %s", entry)
		}
	}
	t.Logf("%d of %d tests pass", passed, len(result))
}

// nameOf shortens the name of a test to module.class.test.
func nameOf(id string) string {
	id, _, _ = strings.Cut(id, "[")
	if class, ok := strings.CutPrefix(id, "setUpClass ("); ok {
		id = strings.TrimSuffix(class, ")") + ".setUpClass"
	}
	return strings.TrimPrefix(id, "tempest.api.image.v2.")
}

// waitsFor returns the entry of the list that a test belongs to, or "".
func waitsFor(name string) string {
	for entry := range waiting {
		if name == entry || strings.HasPrefix(name, entry+".") {
			return entry
		}
	}
	return ""
}
