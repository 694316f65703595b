//go:build integration

package delta_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/overlay"
)

// image makes a qcow2 file of 24 MiB, on another if below is not "", and has
// QEMU write and zero here and there.
func image(t *testing.T, rng *rand.Rand, file, below string) block.Reader {
	t.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if below != "" {
		args = append(args, "-b", below, "-F", "qcow2")
	}
	run(t, "qemu-img", append(args, file, "24M")...)
	args = []string{"-f", "qcow2"}
	for range 12 {
		verb := []string{"write -P 5", "write -z"}[rng.IntN(2)]
		args = append(args, "-c", fmt.Sprintf("%s %d %d", verb, rng.IntN(46)<<19, (rng.IntN(120)+1)<<12))
	}
	run(t, "qemu-io", append(args, file)...)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(t.Context(), block.FromReaderAt(f, info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// depths returns the layer of each 4 KiB.
func depths(t *testing.T, r block.Reader) []int {
	t.Helper()
	out := make([]int, r.Size()>>12)
	for off := int64(0); off < r.Size(); {
		run, depth, err := block.DepthAt(t.Context(), r, off, r.Size()-off)
		if err != nil {
			t.Fatal(err)
		}
		for i := off >> 12; i < (off+run)>>12; i++ {
			out[i] = depth
		}
		off += run
	}
	return out
}

// TestDepthAsQEMU compares with what qemu-nbd tells of the same files.
func TestDepthAsQEMU(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	k := newDisk(t, 24<<20, 0)
	dir := filepath.Dir(k.file)
	base, mid := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "mid.qcow2")
	low := image(t, rng, base, "")
	below := overlay.Over(image(t, rng, mid, base), low)
	o := overlay.New(below, k.d)
	for range 25 {
		off, n := int64(rng.IntN(5000))<<12, int64(rng.IntN(60)+1)<<12
		var err error
		if rng.IntN(2) == 0 {
			err = o.WriteAt(t.Context(), make([]byte, n), off)
		} else {
			err = o.Zero(t.Context(), off, n, block.ZeroAny)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	have := depths(t, o)
	if err := k.d.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", mid, k.file)

	socket := filepath.Join(dir, "nbd.sock")
	server := exec.Command("qemu-nbd", "--read-only", "--allocation-depth", "--format=qcow2", "--socket="+socket, k.file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // it ends by itself after the first client
		_ = server.Wait()
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("qemu-nbd does not listen")
		}
	}
	var list []struct {
		Offset, Length int64
		Type           int
	}
	out := run(t, "nbdinfo", "--map=qemu:allocation-depth", "--json", "nbd+unix:///?socket="+socket)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := map[int]int{}
	for _, e := range list {
		for i := e.Offset >> 12; i < (e.Offset+e.Length)>>12; i++ {
			if have[i] != e.Type {
				t.Fatalf("4 KiB at %d are of layer %d, qemu-nbd says %d", i<<12, have[i], e.Type)
			}
			seen[e.Type]++
		}
	}
	if len(seen) != 4 {
		t.Errorf("only some of the layers were compared: %v", seen)
	}
}
