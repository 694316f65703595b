//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// startSecure starts a gateway whose NBD wants TLS and certificates.
func startSecure(t *testing.T, ca *nbdtest.Authority) *gateway.Gateway {
	t.Helper()
	server := ca.Folder(t, "server", nbdtest.Subject{Name: "server"})
	conf := filepath.Join(server, "platter.toml")
	text := fmt.Sprintf(`
[nbd]
tls = "required"
tls_cert = "%[1]s/server-cert.pem"
tls_key = "%[1]s/server-key.pem"
tls_client_ca = "%[1]s/ca-cert.pem"

[[nbd.clients]]
name = "hv-*.example.org"
exports = ["attach/*"]
mode = "rw"

[[nbd.clients]]
name = "auditor"
exports = ["overlay/*", "attach/*"]
`, server)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return gateway.Start(t, "--config", conf)
}

// TestAttachOverTLS takes the words that an attachment over TLS prints, and gives
// them to QEMU, libnbd and platter.
func TestAttachOverTLS(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io", "nbdinfo", "nbdcopy")
	ca := nbdtest.NewAuthority(t, "authority")
	g := startSecure(t, ca)
	platter := gateway.Binary(t, "platter")
	client := func(name string) string { return ca.Folder(t, "client", nbdtest.Subject{Name: name}) }
	hv, auditor, other := client("hv-1.example.org"), client("auditor"), client("other")
	path, data := randomFile(t, 1<<20)
	overlay := newOverlay(t, g, upload(t, g, "base", "raw", path), "")
	words := strings.Fields(g.Command(t, platter, "attach", "overlay/"+overlay, "--transport", "tls", "--tls-dir", hv, "--print", "qemu"))
	if len(words) != 6 || words[0] != "-object" || words[2] != "-blockdev" {
		t.Fatalf("printed: %q", words)
	}
	qemu := func(dir, command string) (string, error) {
		return g.Try(t.Context(), "qemu-io", "--object", strings.Replace(words[1], hv, dir, 1), "--image-opts", words[3], "-c", command)
	}
	if out, err := qemu(hv, "write -P 0x5a 4096 4096"); err != nil || !strings.Contains(out, "wrote 4096/4096") {
		t.Errorf("qemu-io: %v\n%s", err, out)
	}
	if out, err := qemu(other, "read 0 512"); err == nil && !strings.Contains(out, "can't open") {
		t.Errorf("a certificate that no rule knows opens an attachment:\n%s", out)
	}
	_, token, _ := strings.Cut(words[3], "export=attach/")
	token, _, _ = strings.Cut(token, ",")
	uri := func(name, dir string) string { return "nbds://" + g.NBD + "/" + name + "?tls-certificates=" + dir }
	var info struct {
		Exports []struct {
			ReadOnly bool  `json:"is_read_only"`
			Size     int64 `json:"export-size"`
		}
	}
	for dir, readOnly := range map[string]bool{hv: false, auditor: true} {
		if err := json.Unmarshal([]byte(g.Command(t, "nbdinfo", "--json", uri("attach/"+token, dir))), &info); err != nil || len(info.Exports) != 1 || info.Exports[0].ReadOnly != readOnly {
			t.Errorf("%s: %+v, %v", filepath.Base(dir), info, err)
		}
	}
	back := filepath.Join(t.TempDir(), "back")
	g.Command(t, "nbdcopy", uri("attach/"+token, auditor), back)
	copy(data[4096:], bytes.Repeat([]byte{0x5a}, 4096))
	if !bytes.Equal(readAll(t, back), data) {
		t.Error("what comes back is not what was written")
	}
	// What each may see: the rules, and nothing over plain TCP.
	if out, err := g.Try(t.Context(), "nbdinfo", "--list", uri("", auditor)); err != nil || strings.Count(out, "export=") != 1 || !strings.Contains(out, "overlay/"+overlay) {
		t.Errorf("the auditor is shown: %v\n%s", err, out)
	}
	if _, err := nbdtest.Open("tcp", g.NBD, "attach/"+token); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("over plain TCP: %v", err)
	}
	if out, err := g.Try(t.Context(), platter, "attach", "base", "--transport", "tcp"); err == nil || !strings.Contains(err.Error(), "transport tls") {
		t.Errorf("attached for plain TCP: %v\n%s", err, out)
	}
	out := g.Command(t, platter, "bench", "nbds://"+g.NBD+"/attach/"+token, "--tls-dir", auditor, "--seconds", "0.1")
	if !strings.Contains(out, "4 KiB random read") {
		t.Errorf("bench: %s", out)
	}
	if strings.Contains(g.Log(), token) {
		t.Error("the token is in the log")
	}
}

// TestKick cuts a client that copies, by what platter nbd list says of it, and
// sees what changed since a snapshot through the eyes of libnbd.
func TestKick(t *testing.T) {
	gateway.Need(t, "nbdinfo", "qemu-io")
	g := gateway.Start(t)
	platter := gateway.Binary(t, "platter")
	path, _ := randomFile(t, 1<<20)
	overlay := newOverlay(t, g, upload(t, g, "base", "raw", path), "")
	g.Command(t, "qemu-io", "-f", "raw", "-c", "write 0 4096", g.Export("overlay/"+overlay))
	g.Command(t, platter, "overlay", "snapshot", overlay, "--name", "monday")
	g.Command(t, "qemu-io", "-f", "raw", "-c", "write 524288 4096", g.Export("overlay/"+overlay))
	dirty := g.Command(t, "nbdinfo", "--map=qemu:dirty-bitmap:monday", g.Export("overlay/"+overlay))
	want := [][]string{{"0", "524288", "0"}, {"524288", "4096", "1"}, {"528384", "520192", "0"}}
	lines := strings.Split(strings.TrimSpace(dirty), "\n")
	for i, w := range want {
		if i >= len(lines) || strings.Join(strings.Fields(lines[i])[:3], " ") != strings.Join(w, " ") {
			t.Errorf("changed since monday:\n%s", dirty)
			break
		}
	}
	c, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(0, 4096, 0); err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(g.Command(t, platter, "nbd", "list", "-f", "json")), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if r := list[0]; r["export"] != "overlay/"+overlay || r["writable"] != true || r["read"] != 4096.0 || r["headers"] == nil {
		t.Errorf("listed: %v", r)
	}
	g.Command(t, platter, "nbd", "kick", fmt.Sprint(list[0]["id"]))
	if _, err := c.Read(0, 4096, 0); err == nil {
		t.Error("a client that was cut reads on")
	}
	g.Command(t, "qemu-io", "-f", "raw", "-c", "write 0 4096", g.Export("overlay/"+overlay)) // the overlay is free again
}
