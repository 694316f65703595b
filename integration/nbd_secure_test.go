//go:build integration

package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// pki is an authority with a folder of certificates for each name, laid out as
// QEMU, libvirt and libnbd want it.
type pki struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	p := &pki{t: t, dir: t.TempDir()}
	p.cert, p.key = p.sign(x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	p.write("ca-cert.pem", "CERTIFICATE", p.cert.Raw)
	return p
}

func (p *pki) sign(c x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = &c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, &key.PublicKey, signer)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return cert, key
}

func (p *pki) write(name, kind string, der []byte) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// issue returns the folder of a name: a server's on this machine, or a client's.
func (p *pki) issue(name string, server bool) string {
	p.t.Helper()
	c := x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	kind := "client"
	if server {
		kind, c.ExtKeyUsage = "server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	cert, key := p.sign(c)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(filepath.Join(name, "ca-cert.pem"), "CERTIFICATE", p.cert.Raw)
	p.write(filepath.Join(name, kind+"-cert.pem"), "CERTIFICATE", cert.Raw)
	p.write(filepath.Join(name, kind+"-key.pem"), "PRIVATE KEY", der)
	return filepath.Join(p.dir, name)
}

// startSecure starts a gateway whose NBD wants TLS and certificates.
func startSecure(t *testing.T, p *pki) *gateway.Gateway {
	t.Helper()
	server := p.issue("server", true)
	conf := filepath.Join(p.dir, "platter.toml")
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
	p := newPKI(t)
	g := startSecure(t, p)
	platter := gateway.Binary(t, "platter")
	hv, auditor, other := p.issue("hv-1.example.org", false), p.issue("auditor", false), p.issue("other", false)
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
