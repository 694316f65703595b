//go:build integration

package interop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// secure starts a gateway that wants certificates of ca.
func secure(t *testing.T, ca *nbdtest.Authority, more string) *gateway.Gateway {
	t.Helper()
	server := ca.Folder(t, "server", nbdtest.Subject{Name: "gateway"})
	conf := filepath.Join(t.TempDir(), "platter.toml")
	text := fmt.Sprintf(`
[nbd]
tls = "required"
tls_cert = "%[1]s/server-cert.pem"
tls_key = "%[1]s/server-key.pem"
tls_client_ca = "%[1]s/ca-cert.pem"
%[2]s
[[nbd.clients]]
name = "hv-*.example.org"
exports = ["overlay/*"]
mode = "rw"

[[nbd.clients]]
name = "reader"
exports = ["*"]
`, server, more)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return gateway.Start(t, "--config", conf, "--mount", "off", "--log-level", "warn")
}

// move puts a file of one folder into another.
func move(t *testing.T, name, from, to string) {
	t.Helper()
	if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
		t.Fatal(err)
	}
}

// TestCertificates has clients come with every kind of certificate, and without
// one, to a gateway that has rules for them.
func TestCertificates(t *testing.T) {
	ca, other := nbdtest.NewAuthority(t, "authority"), nbdtest.NewAuthority(t, "another authority")
	g := secure(t, ca, "")
	raw, _ := disk(t)
	image := g.Upload(t, "base", "raw", raw)
	overlay := "overlay/" + g.NewOverlay(t, image, `,"name":"o"`)
	folder := func(a *nbdtest.Authority, s nbdtest.Subject) string { return a.Folder(t, "client", s) }
	hv := folder(ca, nbdtest.Subject{Name: "a hypervisor", DNS: []string{"hv-1.example.org"}})
	reader := folder(ca, nbdtest.Subject{Name: "reader"})
	stranger := folder(ca, nbdtest.Subject{Name: "stranger"})
	almost := folder(ca, nbdtest.Subject{Name: "hv-1.example.org.evil.example"})
	expired := folder(ca, nbdtest.Subject{Name: "hv-2.example.org", Expired: time.Minute})
	forged := folder(other, nbdtest.Subject{Name: "hv-1.example.org"})
	doubter := folder(ca, nbdtest.Subject{Name: "hv-1.example.org"})
	move(t, "ca-cert.pem", folder(other, nbdtest.Subject{Name: "x"}), doubter)
	move(t, "ca-cert.pem", folder(ca, nbdtest.Subject{Name: "x"}), forged)
	none := t.TempDir()
	move(t, "ca-cert.pem", folder(ca, nbdtest.Subject{Name: "x"}), none)

	for _, with := range []tools{debian12(t), debian13(t)} {
		for _, c := range []struct {
			name, certs, export string
			door                string
			allowed, write      bool
		}{
			{"a hypervisor, an overlay", hv, overlay, "tls", true, true},
			{"a hypervisor, an image", hv, image, "tls", false, false},
			{"a reader, an overlay", reader, overlay, "tls", true, false},
			{"a reader, an image", reader, image, "tls", true, false},
			{"no rule", stranger, image, "tls", false, false},
			{"a name that begins like one of a rule", almost, overlay, "tls", false, false},
			{"expired", expired, overlay, "tls", false, false},
			{"of another authority", forged, overlay, "tls", false, false},
			{"none", none, overlay, "tls", false, false},
			{"the client does not believe the server", doubter, overlay, "tls", false, false},
			{"plain TCP", "", overlay, "tcp", false, false},
			{"the socket", "", overlay, "unix", true, true},
		} {
			t.Run(with.name+" "+c.name, func(t *testing.T) {
				d := door{c.door, g, c.certs}
				out, err := with.try(t, "nbdinfo", "--json", "--no-content", d.uri(c.export))
				if (err == nil) != c.allowed || c.allowed && strings.Contains(out, `"is_read_only": true`) == c.write {
					t.Errorf("nbdinfo: %v, want allowed %v and writable %v\n%s", err, c.allowed, c.write, out)
				}
				before, at := d.qemu(c.export)
				if _, err = with.try(t, "qemu-img", append(append([]string{"info"}, before...), at)...); (err == nil) != c.allowed {
					t.Errorf("qemu-img: %v, want allowed %v", err, c.allowed)
				}
				if _, err = with.try(t, "qemu-io", append(before, "-c", "write 0 4096", at)...); (err == nil) != c.write {
					t.Errorf("qemu-io: %v, want allowed to write: %v", err, c.write)
				}
			})
		}
	}
	if log := g.Log(); strings.Contains(log, "panic") {
		t.Error("panic")
	}
}

// TestDowngrade has a client, or who sits between, try for less than TLS of
// the version that is wanted.
func TestDowngrade(t *testing.T) {
	ca := nbdtest.NewAuthority(t, "authority")
	for least, more := range map[uint16]string{tls.VersionTLS12: "", tls.VersionTLS13: `tls_min = "1.3"`} {
		t.Run(tls.VersionName(least), func(t *testing.T) {
			g := secure(t, ca, more)
			raw, _ := disk(t)
			image := g.Upload(t, "base", "raw", raw)
			dir := ca.Folder(t, "client", nbdtest.Subject{Name: "reader"})
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
				c, err := nbdtest.Dial("tcp", g.NBD)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				cfg := ca.Client(t, "")
				cfg.Certificates, cfg.MinVersion, cfg.MaxVersion = []tls.Certificate{pair}, tls.VersionTLS10, v
				if err = c.StartTLS(cfg); err == nil {
					err = c.Enter(image)
				}
				if (err == nil) != (v >= least) {
					t.Errorf("%s: %v", tls.VersionName(v), err)
				}
			}
			c, err := nbdtest.Dial("tcp", g.NBD)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, list := c.List()
			_, info := c.Info(image)
			_, open := c.Go(image)
			for what, err := range map[string]error{"LIST": list, "INFO": info, "GO": open, "STRUCTURED_REPLY": c.StructuredReplies(), "EXTENDED_HEADERS": c.ExtendedHeaders()} {
				var no *nbdtest.OptError
				if !errors.As(err, &no) || no.Type != 1<<31+5 {
					t.Errorf("%s before TLS: %v", what, err)
				}
			}
			if err := c.ExportName(image); err == nil {
				t.Error("EXPORT_NAME is served before TLS")
			}
		})
	}
}
