//go:build integration

package delta_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// run runs a program that must be there and must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// check is qemu-img check, also of a file that is open: 0 good, 3 leaks, 2
// corruption.
func check(t *testing.T, file string, leaks bool) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "-U", "-f", "qcow2", file).CombinedOutput()
	code := 0
	if err != nil {
		code = -1
		if e, ok := err.(*exec.ExitError); ok {
			code = e.ExitCode()
		}
	}
	if code != 0 && !(code == 3 && leaks) {
		t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
}

type disk struct {
	file, base string
	cfg        delta.Config
	below      []byte
	want       []byte
	d          *delta.Delta
}

// scribble writes, zeroes and discards at random, on the disk and on what it
// should be.
func (k *disk) scribble(t *testing.T, rng *rand.Rand, n int) {
	t.Helper()
	o := overlay.New(reader(k.below), k.d)
	for range n {
		off := rng.IntN(len(k.want))
		size := min(rng.IntN(1<<uint(rng.IntN(20)))+1, len(k.want)-off)
		if rng.IntN(2) == 0 {
			off = off &^ 4095
		}
		p := make([]byte, size)
		var err error
		switch rng.IntN(4) {
		case 0:
			err = o.Zero(t.Context(), int64(off), int64(size), block.ZeroMode(rng.IntN(3)))
		default:
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			err = o.WriteAt(t.Context(), p, int64(off))
		}
		if err != nil {
			t.Fatal(err)
		}
		copy(k.want[off:], p)
	}
}

// compare has qemu-img compare the file, which names its base, with want.
func (k *disk) compare(t *testing.T, file string, want []byte, opts ...string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "want.raw")
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	conv := filepath.Join(t.TempDir(), "have.raw")
	run(t, "qemu-img", slices.Concat([]string{"convert", "-f", "qcow2", "-O", "raw"}, opts, []string{file, conv})...)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", conv, raw)
}

func newDisk(t *testing.T, size, base int) *disk {
	dir := t.TempDir()
	k := &disk{file: filepath.Join(dir, "a.qcow2"), base: filepath.Join(dir, "base.raw"), below: pattern(base)}
	if err := os.WriteFile(k.base, k.below, 0o600); err != nil {
		t.Fatal(err)
	}
	k.want = make([]byte, size)
	copy(k.want, k.below)
	k.cfg = delta.Config{Path: k.file, Size: int64(size), Backing: k.base}
	var err error
	if k.d, err = delta.Create(t.Context(), k.cfg); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestQEMUReads(t *testing.T) {
	for _, base := range []int{24 << 20, 10<<20 + 512, 30 << 20} {
		t.Run(fmt.Sprint(base), func(t *testing.T) {
			k := newDisk(t, 24<<20, base)
			rng := rand.New(rand.NewPCG(uint64(base), 1))
			check(t, k.file, false)
			snaps := map[string][]byte{}
			for range 4 {
				k.scribble(t, rng, 60)
				if err := k.d.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				check(t, k.file, true)
				k.compare(t, k.file, k.want, "-U") // while it is open here
				id, err := k.d.Snapshot(t.Context(), "snapshot of a test")
				if err != nil {
					t.Fatal(err)
				}
				check(t, k.file, false)
				snaps[id] = slices.Clone(k.want)
			}
			if err := k.d.DeleteSnapshot(t.Context(), "2"); err != nil {
				t.Fatal(err)
			}
			delete(snaps, "2")
			k.scribble(t, rng, 60)
			if err := k.d.Close(); err != nil {
				t.Fatal(err)
			}
			check(t, k.file, false)
			k.compare(t, k.file, k.want)
			if out := run(t, "qemu-img", "snapshot", "-l", k.file); !strings.Contains(out, "snapshot of a test") {
				t.Error(out)
			}
			for id, want := range snaps {
				k.compare(t, k.file, want, "-l", "snapshot.id="+id)
			}
			k.mapped(t)
		})
	}
}

// mapped compares what qemu-img map says to Extent.
func (k *disk) mapped(t *testing.T) {
	t.Helper()
	var list []struct {
		Start, Length, Depth int64
		Present, Zero, Data  bool
	}
	out := run(t, "qemu-img", "map", "-f", "qcow2", "--output=json", k.file)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	d, err := delta.Open(t.Context(), k.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, e := range list {
		for x, err := range block.Extents(t.Context(), d, e.Start, e.Length) {
			if err != nil {
				t.Fatal(err)
			}
			want := block.Absent
			if e.Depth == 0 && e.Data {
				want = block.Data
			} else if e.Depth == 0 && e.Zero && e.Present {
				want = block.Zero
			}
			if x.Kind != want {
				t.Fatalf("extent %+v, qemu-img says %+v", x, e)
			}
		}
	}
}

// TestQEMUWrites has QEMU write to our file, make snapshots in its way, and
// die with the dirty bit set; then it is ours again.
func TestQEMUWrites(t *testing.T) {
	k := newDisk(t, 24<<20, 20<<20)
	rng := rand.New(rand.NewPCG(3, 1))
	qemu := func(cmds ...string) {
		args := []string{"-f", "qcow2"}
		for _, c := range cmds {
			args = append(args, "-c", c)
		}
		run(t, "qemu-io", append(args, k.file)...)
	}
	fill := func(off, n int, b byte) {
		for i := off; i < off+n; i++ {
			k.want[i] = b
		}
	}
	reopen := func() {
		t.Helper()
		var err error
		if k.d, err = delta.Open(t.Context(), k.cfg); err != nil {
			t.Fatal(err)
		}
		check(t, k.file, false)
		got := make([]byte, len(k.want))
		if err := overlay.New(reader(k.below), k.d).ReadAt(t.Context(), got, 0); err != nil {
			t.Fatal(err)
		}
		if i := slices.Compare(got, k.want); i != 0 {
			t.Fatal("not what QEMU wrote")
		}
	}
	closeDelta := func() {
		t.Helper()
		if err := k.d.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, k.file, false)
	}
	k.scribble(t, rng, 50)
	closeDelta()
	qemu("write -P 7 1M 3M", "write -P 8 5000000 70000", "write -z -u 9M 1M", "discard 11M 256k")
	fill(1<<20, 3<<20, 7)
	fill(5000000, 70000, 8)
	fill(9<<20, 1<<20, 0)
	fill(11<<20, 256<<10, 0)
	reopen()
	k.scribble(t, rng, 50)
	closeDelta()

	run(t, "qemu-img", "snapshot", "-c", "by qemu", k.file)
	before := slices.Clone(k.want)
	qemu("write -P 9 2M 1M")
	fill(2<<20, 1<<20, 9)
	reopen()
	k.scribble(t, rng, 50)
	s := k.d.Snapshots()
	if len(s) != 1 || s[0].Name != "by qemu" {
		t.Fatal(s)
	}
	r, err := k.d.OpenSnapshot(t.Context(), s[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(before))
	if err := overlay.Over(r, reader(k.below)).ReadAt(context.Background(), got, 0); err != nil || !slices.Equal(got, before) {
		t.Fatal("QEMU's snapshot is not what it was: ", err)
	}
	r.Close()
	closeDelta()
	k.compare(t, k.file, k.want)
	reopen()
	if err := k.d.DeleteSnapshot(t.Context(), s[0].ID); err != nil {
		t.Fatal(err)
	}
	closeDelta()
	k.compare(t, k.file, k.want)

	// Refcounts that QEMU has not written when it dies are counted anew.
	run(t, "qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=on", k.file)
	_ = exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 3 12M 2M", "-c", "flush", "-c", "abort", k.file).Run()
	fill(12<<20, 2<<20, 3)
	reopen()
	closeDelta()
	k.compare(t, k.file, k.want)
}
