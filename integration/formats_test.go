//go:build integration

package integration

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/corpus"
	"github.com/seed-478a8fee/platter/integration/gateway"
)

// upload makes an active image of a file through the API and returns its id.
func upload(t testing.TB, g *gateway.Gateway, name, format, path string) string {
	t.Helper()
	body := fmt.Sprintf(`{"name":%q,"disk_format":%q,"container_format":"bare"}`, name, format)
	resp, err := http.Post(g.URL+"/v2/images", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var img struct{ ID string }
	if err := json.Unmarshal(text, &img); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("create %s: %s %v\n%s", name, resp.Status, err, text)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, g.URL+"/v2/images/"+img.ID+"/file", f)
	req.Header.Set("Content-Type", "application/octet-stream")
	put, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer put.Body.Close()
	if text, _ := io.ReadAll(put.Body); put.StatusCode != http.StatusNoContent {
		t.Fatalf("upload %s: %s\n%s", name, put.Status, text)
	}
	return img.ID
}

func sumFile(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestEveryPathServesTheSameBytes sends each specimen's disk bytes through
// NBD, through FUSE and through platter convert and compares with qemu-img.
func TestEveryPathServesTheSameBytes(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io", "nbdcopy", "cp", "sha256sum")
	g := gateway.Start(t)
	all := corpus.Make(t)
	if len(all) < 40 {
		t.Fatalf("%d specimens, fewer than 40", len(all))
	}
	t.Logf("%d specimens", len(all))
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			id := upload(t, g, s.Name, s.Format, s.Path)
			checkPaths(t, g, s, id)
		})
	}
}

func checkPaths(t *testing.T, g *gateway.Gateway, s corpus.Specimen, id string) {
	uri, tree := g.Export(id), filepath.Join(g.Mount, "by-id", id)
	if s.Name == "thin-1t" { // too large to read whole
		tool(t, "qemu-img", "compare", "-f", s.Format, "-F", "raw", s.Path, uri)
		checkMap(t, s, uri)
		return
	}
	dir := t.TempDir()
	want := filepath.Join(dir, "want")
	tool(t, "qemu-img", "convert", "-f", s.Format, "-O", "raw", s.Path, want)
	sum := sumFile(t, want)
	got := func(how, path string) {
		t.Helper()
		if other := sumFile(t, path); other != sum {
			t.Errorf("%s: other bytes than qemu-img's", how)
		}
	}
	if info, _ := os.Stat(want); info.Size() > 0 { // nbdcopy refuses a disk of no bytes
		tool(t, "nbdcopy", uri, filepath.Join(dir, "nbdcopy"))
		got("nbdcopy", filepath.Join(dir, "nbdcopy"))
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, filepath.Join(dir, "convert"))
	got("qemu-img convert over NBD", filepath.Join(dir, "convert"))
	tool(t, "qemu-img", "compare", "-f", s.Format, "-F", "raw", s.Path, uri)
	checkMap(t, s, uri)

	got("FUSE", filepath.Join(tree, "disk.raw"))
	tool(t, "cp", "--sparse=always", filepath.Join(tree, "disk.raw"), filepath.Join(dir, "cp"))
	got("cp from FUSE", filepath.Join(dir, "cp"))
	if native := filepath.Join(tree, "native."+s.Format); sumFile(t, native) != sumFile(t, s.Path) {
		t.Error("the native file has other bytes than were uploaded")
	}
	tool(t, gateway.Binary(t, "platter"), "convert", "--from", s.Format, "--to", "raw", s.Path, filepath.Join(dir, "platter"))
	got("platter convert", filepath.Join(dir, "platter"))
	back := filepath.Join(dir, "back.qcow2")
	tool(t, gateway.Binary(t, "platter"), "convert", "--from", s.Format, "--to", "qcow2", s.Path, back)
	tool(t, "qemu-img", "check", "-q", back)
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", back, want)
}

// run is one entry of qemu-img map.
type run struct {
	Start, Length int64
	Data, Zero    bool
}

func mapOf(t *testing.T, format, path string) []run {
	t.Helper()
	var runs []run
	if err := json.Unmarshal([]byte(tool(t, "qemu-img", "map", "--output=json", "-f", format, path)), &runs); err != nil {
		t.Fatal(err)
	}
	return runs
}

// checkMap wants every hole of the image to be a hole over NBD. The store
// finds more of them, where long zeros were written; and short holes inside
// preallocated clusters, which are holes of the file alone, it fills.
func checkMap(t *testing.T, s corpus.Specimen, uri string) {
	t.Helper()
	served := mapOf(t, "raw", uri)
	if s.Format == "raw" { // the store keeps holes of its own; the bytes are compared elsewhere
		var holes int64
		for _, r := range served {
			if r.Zero {
				holes += r.Length
			}
		}
		if s.Name == "raw-sparse" && holes < 12<<20 {
			t.Errorf("only %d bytes of a sparse file are holes over NBD", holes)
		}
		return
	}
	zeroAt := func(off int64) (bool, int64) {
		for _, r := range served {
			if off >= r.Start && off < r.Start+r.Length {
				return r.Zero, r.Start + r.Length
			}
		}
		return false, off + 1<<40
	}
	for _, r := range mapOf(t, s.Format, s.Path) {
		for off := r.Start; off < r.Start+r.Length; {
			zero, end := zeroAt(off)
			if r.Zero && !zero && !(strings.HasPrefix(s.Name, "prealloc") && min(end, r.Start+r.Length)-off < 128<<10) {
				t.Errorf("at %d: qemu-img map has zeros until %d, over NBD there is data", off, r.Start+r.Length)
				return
			}
			off = end
		}
	}
}

// TestLoopMount mounts a served disk as a file system with the kernel's loop
// device, while it stays a qcow2 in the store.
func TestLoopMount(t *testing.T) {
	gateway.Need(t, "mke2fs", "mount", "umount")
	g := gateway.Start(t)
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	os.MkdirAll(content, 0o755)
	if err := os.WriteFile(filepath.Join(content, "hello"), []byte("from inside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	raw, qcow2 := filepath.Join(dir, "fs.raw"), filepath.Join(dir, "fs.qcow2")
	tool(t, "mke2fs", "-q", "-t", "ext4", "-d", content, raw, "32M")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	id := upload(t, g, "fs", "qcow2", qcow2)
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Log("no loop devices here: compared the bytes only")
		sameFile(t, filepath.Join(g.Mount, "by-id", id, "disk.raw"), readAll(t, raw))
		return
	}
	point := filepath.Join(dir, "mnt")
	os.Mkdir(point, 0o755)
	tool(t, "mount", "-o", "loop,ro,noload", filepath.Join(g.Mount, "by-id", id, "disk.raw"), point)
	defer tool(t, "umount", point)
	sameFile(t, filepath.Join(point, "hello"), []byte("from inside\n"))
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tool runs a program that must succeed, and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
