//go:build integration

package far

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestImages brings images into every kind of store and reads them by every
// door.
func TestImages(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io", "nbdcopy", "cmp", "sha256sum")
	raw, qcow2 := disk(t, 64<<20)
	each(t, func(t *testing.T, k kind) {
		g := start(t, k)
		for format, path := range map[string]string{"raw": raw, "qcow2": qcow2} {
			for _, announced := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/length %v", format, announced), func(t *testing.T) {
					id := g.NewImage(t, format, format)
					n := size(t, path)
					f, err := os.Open(path)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if !announced {
						n = -1
					}
					if err := g.Put(id, f, n); err != nil {
						t.Fatal(err)
					}
					readEverywhere(t, g, id, format, path, raw)
					g.Call(t, "DELETE", "/v2/images/"+id, "", 204)
					g.Call(t, "GET", "/v2/images/"+id, "", 404)
				})
			}
		}
	})
}

// readEverywhere compares an image with the file that it was made of, and its
// disk with the raw one.
func readEverywhere(t *testing.T, g *gateway.Gateway, id, format, path, raw string) {
	t.Helper()
	whole := size(t, path)
	if sum, n := download(t, g, id, ""); n != whole || sum != digest(t, path, 0, whole) {
		t.Errorf("the download has %d bytes of %d, or others", n, whole)
	}
	for _, r := range [][2]int64{{0, 1}, {65535, 2}, {1 << 20, 3<<20 + 17}, {whole - 1, 1}} {
		sum, n := download(t, g, id, fmt.Sprintf("bytes=%d-%d", r[0], r[0]+r[1]-1))
		if want := min(r[1], whole-r[0]); n != want || sum != digest(t, path, r[0], want) {
			t.Errorf("range of %d at %d: %d bytes, or others", r[1], r[0], n)
		}
	}
	same(t, g.Export(id), raw, "raw")
	copied := filepath.Join(t.TempDir(), "copy")
	tool(t, "nbdcopy", g.Export(id+"/native"), copied)
	tool(t, "cmp", copied, path)

	dir := filepath.Join(g.Mount, "by-id", id)
	tool(t, "cmp", filepath.Join(dir, "disk.raw"), raw)
	tool(t, "cmp", filepath.Join(dir, "native."+format), path)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", filepath.Join(dir, "disk.raw"), raw)
}

// TestOverlays writes over images in every kind of store, snapshots and
// captures them.
func TestOverlays(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io")
	raw, qcow2 := disk(t, 64<<20)
	each(t, func(t *testing.T, k kind) {
		g := start(t, k, "--mount", "off")
		for format, path := range map[string]string{"raw": raw, "qcow2": qcow2} {
			t.Run(format, func(t *testing.T) { overlay(t, g, k, format, path, raw) })
		}
	})
}

func overlay(t *testing.T, g *gateway.Gateway, k kind, format, path, raw string) {
	image := g.Upload(t, format, format, path)
	id := g.NewOverlay(t, image, `,"size":100663296`)
	if got := g.Command(t, gateway.Binary(t, "platter"), "overlay", "show", id, "-f", "value", "-c", "engine"); got != k.engine+"\n" {
		t.Errorf("the engine is %q", got)
	}
	model := filepath.Join(t.TempDir(), "model")
	tool(t, "cp", "--sparse=always", raw, model)
	tool(t, "truncate", "-s", "100663296", model)
	write := func(target string, cmds ...string) {
		args := []string{"-f", "raw", "-d", "unmap"}
		for _, c := range cmds {
			args = append(args, "-c", c)
		}
		tool(t, "qemu-io", append(args, target)...)
	}
	first := []string{"write -P 0x11 0 4096", "write -P 0x22 70144 3584", "write -P 0x33 9000000 1024", "write -z 65536 65536",
		"write -P 0x44 66000000 3000000", "discard 1048576 1048576", "write -P 0x55 1048576 512", "flush"}
	// A disk may forget of a discarded range what it likes; the model has zeros.
	forModel := append([]string{}, first...)
	forModel[5] = "write -z 1048576 1048576"
	first[5] = "write -z -u 1048576 1048576"
	write(g.Export("overlay/"+id), first...)
	write(model, forModel...)
	same(t, g.Export("overlay/"+id), model, "raw")

	snap := g.Call(t, "POST", "/platter/v1/overlays/"+id+"/snapshots", `{"name":"one"}`, 201)
	if !bytes.Contains(snap, []byte(`"one"`)) {
		t.Errorf("snapshot: %s", snap)
	}
	second := []string{"write -P 0x66 4096 8192", "write -P 0x77 50000000 2000000", "flush"}
	write(g.Export("overlay/"+id), second...)
	write(model, second...)
	for _, into := range []string{"raw", "qcow2"} {
		captured := g.Capture(t, id, fmt.Sprintf(`{"name":"captured","disk_format":%q}`, into))
		same(t, g.Export(captured), model, "raw")
		g.Call(t, "DELETE", "/v2/images/"+captured, "", 204)
	}

	// The image has a user, and a restart changes nothing.
	g.Call(t, "DELETE", "/v2/images/"+image, "", 409)
	g.Stop(t)
	g.Run(t)
	same(t, g.Export("overlay/"+id), model, "raw")
	tool(t, gateway.Binary(t, "platter"), "--url", g.URL, "overlay", "resize", id, "128MiB")
	tool(t, "truncate", "-s", "128M", model)
	same(t, g.Export("overlay/"+id), model, "raw")

	// A second overlay of the same image knows nothing of the first.
	other := g.NewOverlay(t, image, "")
	same(t, g.Export("overlay/"+other), raw, "raw")
	g.Call(t, "DELETE", "/platter/v1/overlays/"+other, "", 204)
	g.Call(t, "DELETE", "/platter/v1/overlays/"+id, "", 204)
	g.Call(t, "DELETE", "/v2/images/"+image, "", 204)
	if out, err := exec.Command("qemu-img", "info", g.Export("overlay/"+id)).CombinedOutput(); err == nil {
		t.Errorf("a deleted overlay can be opened: %s", out)
	}
}

// TestFlatten makes overlays in Ceph stand alone: a clone, and one that began
// as an image over another store's bytes.
func TestFlatten(t *testing.T) {
	gateway.Need(t, "qemu-img", "qemu-io")
	raw, qcow2 := disk(t, 64<<20)
	g := start(t, kinds()[0], "--mount", "off")
	for format, path := range map[string]string{"raw": raw, "qcow2": qcow2} {
		t.Run(format, func(t *testing.T) {
			id := g.NewOverlay(t, g.Upload(t, format, format, path), "")
			model := filepath.Join(t.TempDir(), "model")
			tool(t, "cp", "--sparse=always", raw, model)
			for _, target := range []string{g.Export("overlay/" + id), model} {
				tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x11 5000000 3000000", "-c", "write -P 0x22 40000000 70000", "-c", "flush", target)
			}
			task := g.Call(t, "POST", "/platter/v1/overlays/"+id+"/flatten", "", 202)
			g.WaitTask(t, task)
			same(t, g.Export("overlay/"+id), model, "raw")
			tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x33 9000000 4096", "-c", "flush", g.Export("overlay/"+id))
			tool(t, "qemu-io", "-f", "raw", "-c", "write -P 0x33 9000000 4096", model)
			same(t, g.Export("overlay/"+id), model, "raw")
		})
	}
}
