//go:build integration

package crashes

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestFio lets fio write with checksums, kills the gateway after the last
// flush, and lets fio read.
func TestFio(t *testing.T) {
	gateway.Need(t, "fio")
	for _, k := range []struct {
		name string
		env  func(t *testing.T, more ...string) []string
		more []string
	}{
		{"log/gateway", inVersity, nil},
		{"log/store", inVersity, []string{"DURABILITY=store"}},
		{"rbd", inPool, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			g := gateway.Start(t, flags(k.env(t, k.more...)...)...)
			r := newRig(t, g, true, "raw")
			for range times(1, 20) {
				r.fio()
			}
		})
	}
}

// fio writes, kills the gateway and verifies.
func (r *rig) fio() {
	t := r.t
	job := []string{"--name=crash", "--ioengine=nbd", "--uri=" + r.g.Export("overlay/"+r.overlay), "--rw=randwrite", "--size=24m", "--io_size=48m",
		"--bsrange=512-64k", "--blockalign=512", "--norandommap", "--iodepth=32", "--serialize_overlap=1", "--fsync=64",
		"--verify=crc32c", fmt.Sprintf("--randseed=%d", r.rng.Uint32()), "--thread", "--aux-path=" + t.TempDir()}
	write := append(slices.Clone(job), "--do_verify=0", "--end_fsync=1", "--verify_state_save=0")
	verify := append(slices.Clone(job), "--verify_only=1", "--verify_state_load=0", "--verify_fatal=1")
	tool(t, "fio", write...)
	r.g.Kill(t)
	r.g.Run(t)
	tool(t, "fio", verify...)

	// It would have seen a block that is wrong.
	c := r.open()
	if err := c.Zero(uint64(r.rng.IntN(20))<<20, 1<<20, nbdtest.FUA); err != nil {
		t.Fatal(err)
	}
	leave(t, c)
	if out, err := exec.CommandContext(t.Context(), "fio", verify...).CombinedOutput(); err == nil {
		t.Fatalf("fio finds no fault with a disk that has one:\n%s", out)
	}
}
