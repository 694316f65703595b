//go:build integration

package format

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInspectQEMU looks at what QEMU's tools make of one disk in every format
// that they know.
func TestInspectQEMU(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	disk := sampleMBR(make([]byte, 20<<20))
	for i := 4096; i < len(disk); i += 7 {
		disk[i] = byte(i >> 12)
	}
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		declared, args string
		size           int64 // -1: refused; 0: whatever QEMU rounds to
	}{
		{"raw", "-O raw", 20 << 20},
		{"gpt", "-O raw", 20 << 20},
		{"qcow2", "-O qcow2", 20 << 20},
		{"qcow2", "-O qcow2 -o compat=0.10 -c", 20 << 20},
		{"qcow2", "-O qcow2 -o extended_l2=on,cluster_size=2M", 20 << 20},
		{"qcow2", "-O qcow2 -o compression_type=zstd -c", 20 << 20},
		{"vmdk", "-O vmdk", 20 << 20},
		{"vmdk", "-O vmdk -o subformat=streamOptimized", 20 << 20},
		{"vmdk", "-O vmdk -o subformat=monolithicFlat", -1},
		{"vmdk", "-O vmdk -o subformat=twoGbMaxExtentSparse", -1},
		{"vhd", "-O vpc", 0},
		{"vhd", "-O vpc -o force_size=on", 20 << 20},
		{"vhd", "-O vpc -o subformat=fixed,force_size=on", 20 << 20},
		{"vhdx", "-O vhdx", 20 << 20},
		{"vhdx", "-O vhdx -o subformat=fixed,block_size=1M", 20 << 20},
		{"vdi", "-O vdi", 20 << 20},
		{"vdi", "-O vdi -o static=on", 20 << 20},
		{"ploop", "-O parallels", 20 << 20},
		{"raw", "-O qed", -1},
		{"raw", "-O qcow", -1},
	} {
		t.Run(c.declared+" "+c.args, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "image")
			args := append([]string{"convert", "-f", "raw"}, strings.Fields(c.args)...)
			if text, err := exec.Command("qemu-img", append(args, raw, out)...).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v: %s", err, text)
			}
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			v, err := inspect(b, InspectorConfig{Declared: c.declared, RequireMatch: true}, 32<<10)
			var r *Refusal
			switch {
			case c.size < 0 && !errors.As(err, &r):
				t.Errorf("%+v, %v: not refused", v, err)
			case c.size >= 0 && err != nil:
				t.Error(err)
			case c.size > 0 && v.VirtualSize != c.size:
				t.Errorf("%+v, want %d", v, c.size)
			case c.size == 0 && v.VirtualSize < 20<<20:
				t.Errorf("%+v", v)
			}
			if c.declared == "raw" || c.declared == "gpt" {
				return
			}
			for _, wrong := range []string{"qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt", "aki"} {
				if wrong == c.declared {
					continue
				}
				if _, err := inspect(b, InspectorConfig{Declared: wrong, RequireMatch: true}, 32<<10); !errors.As(err, &r) {
					t.Errorf("as %s: %v", wrong, err)
				}
			}
		})
	}
}
