//go:build integration

package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/port"
)

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestRefusedStarts wants every start that cannot work to say what is wrong
// and what to do, and to hurt nobody.
func TestRefusedStarts(t *testing.T) {
	g := gateway.Start(t)
	file := filepath.Join(t.TempDir(), "platter.toml")
	if err := os.WriteFile(file, []byte("data_dir = \"/tmp\"\n[api]\nlissten = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	off := []string{"--api-listen", "off", "--nbd-listen", "off", "--debug-listen", "off", "--mount", "off"}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"locked":       {append([]string{"--data-dir", g.Dir}, off...), 1, fmt.Sprintf("in use by another platterd (process %d)", g.PID())},
		"port":         {[]string{"--data-dir", other, "--api-listen", strings.TrimPrefix(g.URL, "http://"), "--nbd-listen", "off", "--debug-listen", "off", "--mount", "off"}, 1, "choose another with --api-listen"},
		"socket":       {append([]string{"--data-dir", other, "--nbd-socket", g.Socket}, off...), 1, "choose another with --nbd-socket"},
		"config":       {[]string{"--config", file}, 2, file + ":3: api.lissten: unknown key; did you mean listen?"},
		"check-config": {[]string{"check-config", file}, 2, file + ":3: api.lissten: unknown key; did you mean listen?"},
		"flag":         {[]string{"--nbd-listen", "0.0.0.0:10809"}, 2, "nbd.allow_plain_tcp = true"},
		"etcd away":    {append([]string{"--data-dir", other, "--etcd", "http://127.0.0.1:1"}, off...), 1, "127.0.0.1:1"},
		"keystone":     {[]string{"--auth", "keystone"}, 2, "auth.auth_url: auth mode keystone needs the address"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), gateway.Binary(t, "platterd"), c.args...)
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.want) {
				t.Errorf("%v, want exit code %d and %q\n%s", err, c.code, c.want, out)
			}
		})
	}
	if code, _ := get(t, g.URL+"/v2/images"); code != 200 {
		t.Errorf("the running gateway answers %d afterwards", code)
	}
}

// TestKillAndStartAgain wants a start after kill -9 to need no hand: the lock,
// the socket file and the dead FUSE mount are taken over.
func TestKillAndStartAgain(t *testing.T) {
	g := gateway.Start(t)
	file, data := randomFile(t, 1<<20)
	id := upload(t, g, "kept", "raw", file)
	inside := filepath.Join(g.Mount, "by-id", id, "disk.raw")
	held, err := os.Open(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	g.Kill(t)
	start := time.Now()
	g.Run(t)
	t.Logf("ready %v after the start", time.Since(start).Round(time.Millisecond))
	sameFile(t, inside, data)
	tool(t, "nbdinfo", g.Export(id))
	g.Stop(t)
	if out, _ := exec.Command("findmnt", "-n", g.Mount).Output(); len(out) > 0 {
		t.Errorf("a stopped gateway left its mount: %s", out)
	}
	if _, err := os.Stat(g.Socket); err == nil {
		t.Error("a stopped gateway left its socket")
	}
	g.Run(t)
}

// TestGracefulStop wants a download that is under way to end whole while the
// gateway stops.
func TestGracefulStop(t *testing.T) {
	g := gateway.Start(t)
	file, data := randomFile(t, 64<<20)
	id := upload(t, g, "big", "raw", file)
	resp, err := http.Get(g.URL + "/v2/images/" + id + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { g.Stop(t); close(stopped) }()
	time.Sleep(300 * time.Millisecond)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || len(head)+len(rest) != len(data) {
		t.Errorf("the download ended after %d of %d bytes: %v", len(head)+len(rest), len(data), err)
	}
	<-stopped
	g.Run(t)
}

// TestOperatorsView looks at health, metrics and profiles.
func TestOperatorsView(t *testing.T) {
	g := gateway.Start(t)
	file, _ := randomFile(t, 1<<20)
	tool(t, "nbdinfo", g.Export(upload(t, g, "seen", "raw", file)))
	if code, body := get(t, g.URL+"/healthz"); code != 200 {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, body := get(t, g.URL+"/readyz"); code != 200 || !strings.Contains(body, "ready") {
		t.Errorf("readyz: %d %s", code, body)
	}
	_, text := get(t, g.Debug+"/metrics")
	for _, want := range []string{"platter_http_request_seconds_count", `platter_uploads_total{result="active",store="local"} 1`,
		"platter_upload_bytes_total 1.048576e+06", "platter_nbd_connections", "platter_catalog_ready 1", "go_goroutines"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if code, body := get(t, g.Debug+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d", code)
	}
	if code, body := get(t, g.Debug+"/debug/nbd"); code != 200 || !strings.Contains(body, "NBD connections") {
		t.Errorf("connections: %d", code)
	}
}

// TestBackupRestoreAndMove backs the catalog up while the gateway runs, brings
// it back after the loss of the database, and moves it to an etcd outside.
func TestBackupRestoreAndMove(t *testing.T) {
	gateway.Need(t, "etcd")
	g := gateway.Start(t)
	file, data := randomFile(t, 1<<20)
	id := upload(t, g, "kept", "raw", file)
	saved := filepath.Join(t.TempDir(), "catalog.backup")
	platterd := gateway.Binary(t, "platterd")
	tool(t, platterd, "--data-dir", g.Dir, "backup", saved)
	_, before := get(t, g.URL+"/v2/images/"+id)

	g.Stop(t)
	if err := os.RemoveAll(filepath.Join(g.Dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	tool(t, platterd, "--data-dir", g.Dir, "restore", saved)
	if out, err := exec.Command(platterd, "--data-dir", g.Dir, "restore", saved).CombinedOutput(); err == nil {
		t.Errorf("a catalog that is not empty was overwritten:\n%s", out)
	}
	g.Run(t)
	if _, after := get(t, g.URL+"/v2/images/"+id); after != before {
		t.Errorf("restored as\n%s\nwant\n%s", after, before)
	}
	sameFile(t, filepath.Join(g.Mount, "by-id", id, "disk.raw"), data)
	g.Stop(t)

	url := startEtcd(t)
	tool(t, platterd, "--data-dir", g.Dir, "--etcd", url, "restore", saved)
	moved := gateway.Start(t, "--etcd", url, "PLATTER_STORES_LOCAL_DIR="+filepath.Join(g.Dir, "images"), "PLATTER_STORES_LOCAL_TYPE=file")
	if _, after := get(t, moved.URL+"/v2/images/"+id); after != before {
		t.Errorf("moved as\n%s\nwant\n%s", after, before)
	}
	sameFile(t, filepath.Join(moved.Mount, "by-id", id, "disk.raw"), data)
	if out := tool(t, "etcdctl", "--endpoints", url, "get", "--prefix", "--keys-only", "/platter"); !strings.Contains(out, id) {
		t.Errorf("the etcd outside does not hold the image:\n%s", out)
	}
}

// startEtcd starts one real etcd and returns its client URL.
func startEtcd(t testing.TB) string {
	t.Helper()
	client, peer := "http://"+port.Addr(t), "http://"+port.Addr(t)
	cmd := exec.Command("etcd", "--name", "one", "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "one="+peer, "--log-level", "error")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 3000 {
		if resp, err := http.Get(client + "/health"); err == nil {
			resp.Body.Close()
			return client
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("etcd does not answer")
	return ""
}

// TestWithoutFUSE hides /dev/fuse from the gateway, which warns and goes on.
func TestWithoutFUSE(t *testing.T) {
	gateway.Need(t, "unshare")
	g := gateway.New(t)
	g.Wrap = []string{"unshare", "-m", "sh", "-c", `mount -t tmpfs tmpfs /mnt && cp -a /dev/null /dev/zero /dev/random /dev/urandom /mnt &&
		mount --bind /mnt /dev && exec "$0" "$@"`}
	g.Run(t)
	warned := func() bool { return strings.Contains(g.Log(), "level=WARN") && strings.Contains(g.Log(), "/dev/fuse") }
	for i := 0; i < 1000 && !warned(); i++ { // the log comes through a pipe
		time.Sleep(20 * time.Millisecond)
	}
	if !warned() {
		t.Errorf("no warning about /dev/fuse:\n%s", g.Log())
	}
	file, _ := randomFile(t, 1<<20)
	tool(t, "nbdinfo", g.Export(upload(t, g, "without-files", "raw", file)))
}
