//go:build integration

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestHostileUploads sends what a format must not contain, as an attacker
// would make it with the real tools. Each is refused with 415 and a reason,
// the image is queued again, and nothing is left behind.
func TestHostileUploads(t *testing.T) {
	gateway.Need(t, "qemu-img")
	g := gateway.Start(t, "--mount", "off")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	secret := at("secret.raw")
	os.WriteFile(secret, []byte(strings.Repeat("secret", 20000)), 0o600)

	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", at("backing"))
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+at("outside.raw")+",data_file_raw=on", at("datafile"), "4M")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", at("plain"), "64M")
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", at("plain"))
	plain := readAll(t, at("plain"))
	os.WriteFile(at("truncated"), plain[:len(plain)/2], 0o600)
	os.WriteFile(at("header"), plain[:60], 0o600)
	luks := make([]byte, 2<<20) // qemu-img measures the processor to make one, which fails on a busy machine
	copy(luks, "LUKS\xba\xbe\x00\x01aes\x00")
	os.WriteFile(at("luks"), luks, 0o600)
	tool(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", at("flat.vmdk"), "4M")
	tool(t, "qemu-img", "create", "-q", "-f", "qed", at("qed"), "4M")
	os.WriteFile(at("noise"), []byte(strings.Repeat("no image at all ", 4096)), 0o600)

	for _, c := range []struct{ name, file, format, reason string }{
		{"backing file", "backing", "qcow2", "backing"},
		{"data file", "datafile", "qcow2", "data"},
		{"truncated", "truncated", "qcow2", "end"},
		{"header only", "header", "qcow2", ""},
		{"raw qcow2 with backing", "backing", "raw", "backing"},
		{"flat vmdk", "flat.vmdk", "vmdk", ""},
		{"qed", "qed", "raw", "qed"},
		{"not what it says", "noise", "qcow2", "qcow2"},
		{"luks as qcow2", "luks", "qcow2", "luks"},
		{"vmdk as qcow2", "flat.vmdk", "qcow2", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := newImage(t, g, c.format)
			f, err := os.Open(at(c.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, g.URL+"/v2/images/"+id+"/file", f)
			req.Header.Set("Content-Type", "application/octet-stream")
			req.Header.Set("Accept", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text := make([]byte, 4096)
			n, _ := resp.Body.Read(text)
			if resp.StatusCode != 415 || !strings.Contains(strings.ToLower(string(text[:n])), c.reason) {
				t.Errorf("%s %s, want 415 and %q", resp.Status, text[:n], c.reason)
			}
			if status := field(t, call(t, g, "GET", "/v2/images/"+id, "", 200), "status"); status != "queued" {
				t.Errorf("the image is %s", status)
			}
		})
	}
	if files := objects(t, g.Dir); len(files) > 0 {
		t.Errorf("left in the store: %v", files)
	}
	if id := upload(t, g, "plain", "qcow2", at("plain")); id == "" {
		t.Error("a good image was refused")
	}
}
