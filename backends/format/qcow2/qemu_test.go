//go:build integration

package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// run runs a program, which must be there.
func runTool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var text []byte
		if e, ok := err.(*exec.ExitError); ok {
			text = e.Stderr
		}
		t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, text, out)
	}
	return out
}

// guestData is a disk with programs, noise, zeros and a last sector.
func guestData(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	p := make([]byte, n)
	for off := 0; off < n; {
		end := min(n, off+rng.IntN(90<<10))
		what := rng.IntN(4)
		if n < 1<<20 { // for the golden images, which are small
			end = min(n, off+rng.IntN(5000))
		}
		switch {
		case what == 0: // zeros
		case what == 1 && (n >= 1<<20 || off%11 == 0):
			for i := off; i < end; i++ {
				p[i] = byte(rng.Uint32())
			}
		default:
			for i := off; i < end; i++ {
				p[i] = "the quick brown fox\n\x00\x01"[(i*i/7)%22]
			}
		}
		off = end
	}
	if n > 0 {
		p[n-1] = 0x7e
	}
	return p
}

// A qemuCase is an image and how QEMU's tools make it.
type qemuCase struct {
	name   string
	opts   string   // -o of create or convert
	size   string   // create an empty image
	from   int      // or convert so many bytes of guest data
	flags  []string // for convert
	io     []string // commands of qemu-io, run afterwards
	img    []string // commands of qemu-img, FILE standing for the image, mixed with "io: ..." ones
	base   int      // bytes of a backing file
	mangle func(b []byte)
}

var someWrites = []string{
	"write -P 1 0 3k", "write -P 2 70k 200k", "write -P 3 1000k 1k", "write -z 100k 30k", "write -z -u 200k 40k",
	"discard 120k 64k", "write -P 4 640k 512", "write -c -P 5 2M 64k",
}

func qemuCases() []qemuCase {
	var all []qemuCase
	add := func(c qemuCase) { all = append(all, c) }
	for _, compat := range []string{"0.10", "1.1"} {
		for _, cs := range []string{"512", "1k", "4k", "16k", "64k", "256k", "2M"} {
			o := "compat=" + compat + ",cluster_size=" + cs
			add(qemuCase{name: "plain-" + o, opts: o, from: 3 << 20})
			add(qemuCase{name: "zlib-" + o, opts: o, from: 3<<20 + 512, flags: []string{"-c"}})
		}
		add(qemuCase{name: "discard-" + compat, opts: "compat=" + compat, size: "8M", io: []string{
			"write -P 1 0 2M", "discard 64k 128k", "write -z 1M 128k", "write -z -u 1500k 300k", "write -P 9 7M 1M"}})
		add(qemuCase{name: "chain-" + compat, opts: "compat=" + compat, base: 1000123, size: "4M", io: []string{
			"write -P 1 64k 64k", "discard 64k 64k", "write -P 2 900k 1k", "write -z 256k 64k"}})
	}
	for _, cs := range []string{"512", "4k", "64k", "2M"} {
		add(qemuCase{name: "zstd-" + cs, opts: "compression_type=zstd,cluster_size=" + cs, from: 3<<20 + 1024, flags: []string{"-c"}})
	}
	for _, bits := range []string{"1", "2", "4", "8", "16", "32", "64"} {
		add(qemuCase{name: "refcount-" + bits, opts: "refcount_bits=" + bits, size: "64M", io: []string{"write -P 3 0 10M", "write -P 4 63M 1M"}})
	}
	for _, cs := range []string{"16k", "64k", "128k", "2M"} {
		o := "extended_l2=on,cluster_size=" + cs
		add(qemuCase{name: "ext-convert-" + cs, opts: o, from: 3<<20 + 512})
		add(qemuCase{name: "ext-zlib-" + cs, opts: o, from: 3 << 20, flags: []string{"-c"}})
		add(qemuCase{name: "ext-zstd-" + cs, opts: o + ",compression_type=zstd", from: 3 << 20, flags: []string{"-c"}})
		add(qemuCase{name: "ext-writes-" + cs, opts: o, size: "8M", io: someWrites[:7]})
		add(qemuCase{name: "ext-chain-" + cs, opts: o, base: 3 << 20, size: "5M", io: someWrites[:7]})
	}
	for _, p := range []string{"metadata", "falloc", "full"} {
		add(qemuCase{name: "prealloc-" + p, opts: "preallocation=" + p, size: "3M", io: []string{"write -P 1 1M 1M"}})
		add(qemuCase{name: "prealloc-ext-" + p, opts: "extended_l2=on,preallocation=" + p, size: "3M", io: []string{"write -P 1 1M 100k"}})
	}
	for _, size := range []string{"0", "512", "65536", "1000448", "5G", "3T"} {
		add(qemuCase{name: "size-" + size, size: size})
	}
	add(qemuCase{name: "lazy", opts: "lazy_refcounts=on", size: "4M", io: someWrites})
	add(qemuCase{name: "sparse-1T", size: "1T", io: []string{"write -P 1 0 64k", "write -P 2 600G 1M", "write -P 3 1099511562240 65536"}})
	add(qemuCase{name: "sparse-512", opts: "cluster_size=512", size: "1G", io: []string{"write -P 1 0 64k", "write -P 2 600M 100k", "write -P 3 1073741312 512"}})
	add(qemuCase{name: "odd-size", size: "1M", io: []string{"write -P 8 0 1M"}, mangle: func(b []byte) {
		binary.BigEndian.PutUint64(b[24:], 1<<20-77)
	}})
	for _, o := range []string{"compat=0.10", "cluster_size=4k", "extended_l2=on", "refcount_bits=64"} {
		add(qemuCase{name: "snapshots-" + o, opts: o, size: "4M", img: []string{
			"io: write -P 1 0 1M", "snapshot -c one FILE", "io: write -P 2 512k 1M", "snapshot -c two FILE",
			"io: discard 0 256k", "io: write -P 3 3M 512k", "snapshot -c three FILE", "snapshot -d two FILE"}})
	}
	add(qemuCase{name: "snapshots-resized", size: "4M", img: []string{
		"io: write -P 1 3M 1M", "snapshot -c small FILE", "resize -q FILE 700M", "io: write -P 2 699M 1M"}})
	add(qemuCase{name: "shrunk", opts: "cluster_size=4k", size: "64M", img: []string{"io: write -P 1 0 64k", "resize -q --shrink FILE 1M"}})
	return all
}

func (c qemuCase) make(t *testing.T, dir string) string {
	path := filepath.Join(dir, "image.qcow2")
	opts := c.opts
	if opts == "" {
		opts = "compat=1.1"
	}
	switch {
	case c.base > 0:
		base := filepath.Join(dir, "base.raw")
		os.WriteFile(base, guestData(c.base), 0o600)
		runTool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", opts, "-b", base, "-F", "raw", path, c.size)
	case c.size != "":
		runTool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", opts, path, c.size)
	default:
		raw := filepath.Join(dir, "guest.raw")
		os.WriteFile(raw, guestData(c.from), 0o600)
		args := append([]string{"convert", "-f", "raw", "-O", "qcow2", "-o", opts}, c.flags...)
		runTool(t, "qemu-img", append(args, raw, path)...)
	}
	qemuIO := func(commands ...string) {
		args := []string{"-f", "qcow2", "-d", "unmap", path}
		for _, cmd := range commands {
			args = append(args, "-c", cmd)
		}
		runTool(t, "qemu-io", args...)
	}
	if len(c.io) > 0 {
		qemuIO(c.io...)
	}
	for _, cmd := range c.img {
		if io, ok := strings.CutPrefix(cmd, "io: "); ok {
			qemuIO(io)
			continue
		}
		runTool(t, "qemu-img", strings.Fields(strings.ReplaceAll(cmd, "FILE", path))...)
	}
	if c.mangle != nil {
		b, _ := os.ReadFile(path)
		c.mangle(b)
		os.WriteFile(path, b, 0o600)
	}
	return path
}

func openFile(t *testing.T, path string) block.Reader {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return block.FromReaderAt(f, st.Size())
}

// overBase is a disk with a raw file where it is Absent, as the layer above
// will do it.
type overBase struct {
	im   *Image
	base block.Reader
}

func (o overBase) Size() int64 { return o.im.Size() }

func (o overBase) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := o.im.ReadAt(ctx, p, off); err != nil || o.base == nil || len(p) == 0 {
		return err
	}
	for e, err := range block.Extents(ctx, o.im, off, int64(len(p))) {
		if err != nil {
			return err
		}
		if n := min(e.End(), o.base.Size()) - e.Off; e.Kind == block.Absent && n > 0 {
			if err := o.base.ReadAt(ctx, p[e.Off-off:e.Off-off+n], e.Off); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestAgainstQEMU(t *testing.T) {
	for _, c := range qemuCases() {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := c.make(t, dir)
			r := openFile(t, path)
			im, err := Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			disk := overBase{im: im}
			if c.base > 0 {
				disk.base = openFile(t, filepath.Join(dir, "base.raw"))
			}
			sameBytes(t, disk, path, "")
			if c.base == 0 {
				sameExtents(t, im, path)
			}
			if err := Verify(t.Context(), r); err != nil && c.base == 0 {
				t.Errorf("a good image is refused: %v", err)
			}
			snaps, err := im.Snapshots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.name, "snapshots") && len(snaps) == 0 {
				t.Fatal("no snapshots")
			}
			for _, s := range snaps {
				old, err := im.Snapshot(t.Context(), s.ID)
				if err != nil {
					t.Fatal(err)
				}
				sameBytes(t, old, path, s.Name)
			}
			encodeAndCompare(t, im, dir)
		})
	}
}

// sameBytes compares a disk with what qemu-img convert makes of it.
func sameBytes(t *testing.T, disk block.Reader, path, snapshot string) {
	t.Helper()
	raw := path + ".raw"
	args := []string{"convert", "-f", "qcow2", "-O", "raw"}
	if snapshot != "" {
		args = append(args, "-l", "snapshot.name="+snapshot)
	}
	runTool(t, "qemu-img", append(args, path, raw)...)
	defer os.Remove(raw)
	st, err := os.Stat(raw)
	if err == nil && snapshot != "" && st.Size() > disk.Size() {
		// QEMU gives every snapshot the size of the active disk.
		err = os.Truncate(raw, disk.Size())
		st, _ = os.Stat(raw)
	}
	if err != nil || st.Size() != disk.Size() {
		t.Fatalf("size %d, QEMU's %d: %v", disk.Size(), st.Size(), err)
	}
	if st.Size() <= 16<<20 {
		want, _ := os.ReadFile(raw)
		if len(want) <= 4<<20+4096 {
			blocktest.TestReader(t, disk, want)
		}
	}
	f, _ := os.Open(raw)
	defer f.Close()
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	pieces := func(yield func(block.Extent, error) bool) { block.Extents(t.Context(), disk, 0, disk.Size())(yield) }
	if o, ok := disk.(overBase); ok && o.base == nil {
		pieces = block.Extents(t.Context(), o.im, 0, o.im.Size())
	}
	for e, err := range pieces {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != block.Data { // looked at in samples: terabytes of nothing take too long
			e.Len = min(e.Len, 4<<20)
		}
		for off := e.Off; off < e.End(); off += int64(len(got)) {
			n := min(int64(len(got)), e.End()-off)
			if err := disk.ReadAt(t.Context(), got[:n], off); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(want[:n], off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[:n], want[:n]) {
				t.Fatalf("bytes differ from QEMU's in [%d, %d)", off, off+n)
			}
		}
	}
}

type qemuExtent struct {
	Start, Length       int64
	Present, Zero, Data bool
}

// sameExtents compares extents with those of qemu-img map.
func sameExtents(t *testing.T, im *Image, path string) {
	t.Helper()
	var theirs []qemuExtent
	if err := json.Unmarshal(runTool(t, "qemu-img", "map", "-f", "qcow2", "--output=json", path), &theirs); err != nil {
		t.Fatal(err)
	}
	for _, q := range theirs {
		for e, err := range block.Extents(t.Context(), im, q.Start, min(q.Length, im.Size()-q.Start)) {
			if err != nil {
				t.Fatal(err)
			}
			var want string
			switch {
			case q.Data && q.Zero: // preallocated: QEMU asked the file system
				continue
			case q.Data:
				want = "data"
			case !q.Present:
				want = "absent"
			default:
				want = "zero"
			}
			if e.Kind.String() != want {
				t.Fatalf("extent %+v, QEMU's %+v", e, q)
			}
		}
	}
}

// encodeAndCompare writes the disk anew, in both ways, and lets QEMU judge.
func encodeAndCompare(t *testing.T, im *Image, dir string) {
	t.Helper()
	raw := filepath.Join(dir, "want.raw")
	if im.Size() > 1<<30 {
		return
	}
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(raw)
	f.Truncate(im.Size())
	for e, err := range block.Extents(t.Context(), im, 0, im.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == block.Data {
			b := make([]byte, e.Len)
			if err := im.ReadAt(t.Context(), b, e.Off); err != nil {
				t.Fatal(err)
			}
			f.WriteAt(b, e.Off)
		}
	}
	f.Close()
	for _, opts := range []EncodeOptions{{}, {ClusterBits: 9}, {ClusterBits: 21}, {Compression: "zlib"}, {Compression: "zstd"}, {Compression: "zlib", ClusterBits: 12}} {
		out := filepath.Join(dir, "again.qcow2")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		if opts.Compression == "" {
			err = Encode(t.Context(), f, im, opts)
			if want, _ := EncodedSize(t.Context(), im, opts); err == nil {
				if st, _ := f.Stat(); st.Size() != want {
					t.Fatalf("encoded to %d bytes, announced %d", st.Size(), want)
				}
			}
		} else {
			err = EncodeCompressed(t.Context(), f, im, opts)
		}
		f.Close()
		if err != nil {
			t.Fatalf("%+v: %v", opts, err)
		}
		check, err := exec.Command("qemu-img", "check", "-f", "qcow2", out).CombinedOutput()
		if err != nil {
			t.Fatalf("%+v: qemu-img check: %v: %s", opts, err, check)
		}
		runTool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, out)
		if err := Verify(t.Context(), openFile(t, out)); err != nil {
			t.Fatalf("%+v: our own is refused: %v", opts, err)
		}
		os.Remove(out)
	}
}
