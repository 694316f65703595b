//go:build integration

package nbd_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// tlsServer serves "rw" and "ro" with TLS, required on TCP, to clients of an
// authority.
func tlsServer(t *testing.T) (a *aServer, ca *nbdtest.Authority, addr string) {
	ca = nbdtest.NewAuthority(t, "an authority")
	a = serve(t, func(cfg *nbd.Config) { cfg.TLS, cfg.TLSRequired = ca.Server(t, tls.RequireAndVerifyClientCert), true })
	mem := newMemory(clientsSize)
	for off := int64(1 << 20); off < clientsSize; off += 7 << 20 {
		if err := mem.WriteAt(t.Context(), pattern(1<<20, byte(off>>20)), off); err != nil {
			t.Fatal(err)
		}
	}
	a.exports.byName["rw"] = nbd.Export{Disk: mem, MultiConn: true}
	a.exports.byName["ro"] = nbd.Export{Disk: readOnly{mem}, MultiConn: true}
	a.disk = mem
	return a, ca, a.listenTCP(t)
}

// fails runs a program that must not succeed, and returns what it says.
func fails(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err == nil {
		t.Errorf("%s %s succeeds:\n%s", name, strings.Join(args, " "), out)
	}
	return string(out)
}

func TestLibnbdTLS(t *testing.T) {
	a, ca, addr := tlsServer(t)
	dir, out := ca.Folder(t, "client", nbdtest.Subject{Name: "a guest"}), filepath.Join(t.TempDir(), "out")
	for _, uri := range []string{
		"nbds://" + strings.Replace(addr, "127.0.0.1", "localhost", 1) + "/%s?tls-certificates=" + dir,
		"nbds://" + addr + "/%s?tls-certificates=" + dir,
		"nbds+unix:///%s?socket=" + a.socket + "&tls-verify-peer=false&tls-certificates=" + dir, // it does not know a name to verify
	} {
		var info struct {
			TLS     bool
			Exports []struct {
				Size int64 `json:"export-size"`
			}
		}
		text := run(t, "nbdinfo", "--json", fmt.Sprintf(uri, "rw"))
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !info.TLS || info.Exports[0].Size != clientsSize {
			t.Errorf("nbdinfo %s says\n%s", uri, text)
		}
		os.Remove(out)
		run(t, "nbdcopy", fmt.Sprintf(uri, "ro"), out)
		mustEqualFile(t, out, a.disk.data)
		image := append(pattern(20<<20, byte(len(uri))), make([]byte, clientsSize-20<<20)...)
		if err := os.WriteFile(out, image, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "nbdcopy", "--flush", out, fmt.Sprintf(uri, "rw"))
		mustEqual(t, a.disk.data, image)
	}
	fails(t, "nbdinfo", "nbd://"+addr+"/rw")
	stranger := nbdtest.NewAuthority(t, "an authority").Folder(t, "client", nbdtest.Subject{Name: "a stranger"})
	fails(t, "nbdinfo", "nbds://"+addr+"/rw?tls-verify-peer=false&tls-certificates="+stranger)
	run(t, "nbdinfo", "nbd+unix:///rw?socket="+a.socket)
}

func TestQemuTLS(t *testing.T) {
	a, ca, addr := tlsServer(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	creds := func(dir string) string { return "tls-creds-x509,id=tls0,endpoint=client,verify-peer=on,dir=" + dir }
	image := func(export string) string {
		return "driver=nbd,host=" + host + ",port=" + port + ",tls-creds=tls0,export=" + export
	}
	mine := creds(ca.Folder(t, "client", nbdtest.Subject{Name: "a guest"}))
	if info := run(t, "qemu-img", "info", "--object", mine, "--image-opts", image("ro")); !strings.Contains(info, fmt.Sprintf("(%d bytes)", clientsSize)) {
		t.Errorf("qemu-img info says\n%s", info)
	}
	dir := t.TempDir()
	raw, qcow2 := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	if err := os.WriteFile(raw, a.disk.data, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "--object", mine, "--image-opts", image("ro"), "-O", "qcow2", qcow2)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow2)
	run(t, "qemu-io", "--object", mine, "--image-opts", "-c", "write -P 0x11 0 32M", "-c", "aio_write -P 0x22 33M 3M", "-c", "aio_flush",
		"-c", "write -z 1M 1M", "-c", "read -P 0x11 2M 30M", "-c", "read -P 0 1M 1M", "-c", "read -P 0x22 33M 3M", "-c", "flush", image("rw"))
	if a.disk.data[33<<20] != 0x22 || a.disk.data[1<<20] != 0 {
		t.Error("what qemu-io wrote is not there")
	}
	fails(t, "qemu-img", "info", "--image-opts", strings.Replace(image("ro"), "tls-creds=tls0,", "", 1))
	fails(t, "qemu-img", "info", "--object", creds(nbdtest.NewAuthority(t, "an authority").Folder(t, "client", nbdtest.Subject{Name: "a stranger"})), "--image-opts", image("ro"))
}
