//go:build integration

package bench

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

const perSecond, mibPerSecond = "1/s", "MiB/s"

// benchRaw reads a raw image.
func benchRaw(b *testing.B, goals *table) {
	image := diskFile(b, "raw")
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off")
	kit, _ := nbdkit(b, kitName+" file", "-r", "file", image)
	rivals := append(qemus(b, image, "-r", "-f", "raw"), always(kitName, kit), always(ourName, exported(g, g.Upload(b, "raw", "raw", image))))
	warm(b, rivals)
	c := newContest("raw", "A raw image, read", goals, rivals...)
	c.race(b, load{name: "random-depth-1", unit: perSecond, qemu: 1.8, nbdkit: 1.2, cpu: 0.7, run: randomReads("1")})
	c.race(b, load{name: "random-depth-32", unit: perSecond, qemu: 2.5, nbdkit: 1.3, cpu: 0.7, run: randomReads("32")})
	c.race(b, load{name: "random-4-connections-of-8", unit: perSecond, qemu: 3.5, nbdkit: 1.0, cpu: 0.7,
		run: lasting(false, "--rw=randread", "--bs=4k", "--iodepth=8", "--numjobs=4", "--group_reporting")})
	c.race(b, load{name: "1-MiB-in-order", unit: mibPerSecond, qemu: 2, nbdkit: 1, run: inOrder("read")})
	c.race(b, load{name: "nbdcopy", unit: mibPerSecond, run: whole})
}

// benchRawWrite writes to disks that have all their space. An image never
// changes, so what is written to here is an overlay that has been filled,
// beside raw files.
func benchRawWrite(b *testing.B, goals *table) {
	image := diskFile(b, "raw")
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off")
	s, done := ours(b, ourName, g, g.Upload(b, "raw", "raw", image)).fresh()
	b.Cleanup(done)
	s.name = ourName
	file := copyOf(b, image)
	kit, _ := nbdkit(b, kitName+" file", "file", copyOf(b, image))
	rivals := append(qemus(b, file, "-f", "raw"), always(kitName, kit), always(ourName, s))
	for _, r := range rivals {
		s, _ := r.fresh()
		fioAmount(b, s, true, "--rw=write", "--bs=1m", "--iodepth=4", "--size=512m")
	}
	c := newContest("raw", "Writes to raw files, and to an overlay that has been filled", goals, rivals...)
	c.race(b, load{name: "random-writes-depth-32", unit: perSecond, qemu: 1.7, nbdkit: 1, writes: true,
		run: lasting(false, "--rw=randwrite", "--bs=4k", "--iodepth=32")})
	c.race(b, load{name: "1-MiB-writes-in-order", unit: mibPerSecond, qemu: 2, nbdkit: 1, writes: true, run: inOrder("write")})
}

// benchFormat reads a qcow2 image, which may be compressed. The aims are those
// of a gateway that may keep all its clusters and has read each once, as
// happens on a machine of 16 GiB and more. Beside it is one that may keep a
// sixteenth of them.
func benchFormat(b *testing.B, goals *table, kind string) {
	image := diskFile(b, kind)
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off", "PLATTER_CACHE_MEMORY=1GiB")
	us := exported(g, g.Upload(b, kind, "qcow2", image))
	rivals := append(qemus(b, image, "-r", "-f", "qcow2"), always(ourName, us))
	if kind != "qcow2" {
		small := gateway.Start(b, "--log-level", "warn", "--mount", "off", "PLATTER_CACHE_MEMORY=32MiB")
		s := exported(small, small.Upload(b, kind, "qcow2", image))
		s.name += ", 32 MiB of clusters"
		rivals = append(rivals, always("", s))
		fioAmount(b, us, false, "--rw=read", "--bs=4k", "--iodepth=32", "--size=512m")
	}
	warm(b, rivals)
	c := newContest(kind, "An image of kind "+kind+", read", goals, rivals...)
	c.race(b, load{name: "random-depth-32", unit: perSecond, qemu: 3, run: randomReads("32")})
	c.race(b, load{name: "1-MiB-in-order", unit: mibPerSecond, qemu: 2, run: inOrder("read")})
	aim := 0.0
	if kind != "qcow2" {
		aim = 1.5
	}
	c.race(b, load{name: "nbdcopy", unit: mibPerSecond, qemu: aim, run: whole})
}

// benchOverlay reads and writes overlays of a qcow2 image. nbdkit's cow filter
// stands on a raw file of the same bytes: it has no qcow2.
func benchOverlay(b *testing.B, goals *table) {
	image, raw := diskFile(b, "qcow2"), diskFile(b, "raw")
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off")
	id := g.Upload(b, "base", "qcow2", image)
	writers := []rival{
		{qemuName, local(b, qemuName+", threads", image, "qcow2", "--cache=writeback", "--aio=threads")},
		{qemuName, local(b, qemuName+", io_uring", image, "qcow2", "--cache=writeback", "--aio=io_uring")},
		{kitName, writer{kitName + " cow", func() (side, func()) {
			return nbdkit(b, kitName+" cow", "--filter=cow", "file", raw)
		}}},
		{ourName, ours(b, ourName, g, id)},
	}
	var readers []rival
	for _, w := range writers {
		s, done := w.fresh()
		b.Cleanup(done)
		s.name = w.name
		writeEveryOther(b, s)
		readers = append(readers, always(w.who, s))
	}
	warm(b, readers)
	c := newContest("overlay", "Overlays of a qcow2 image, half of them written", goals, readers...)
	c.race(b, load{name: "random-depth-32", unit: perSecond, qemu: 4, nbdkit: 1, run: randomReads("32")})
	c = newContest("overlay", "First writes to a new overlay of a qcow2 image", goals, writers...)
	c.race(b, load{name: "first-4-KiB-writes", unit: perSecond, qemu: 2, nbdkit: 1, writes: true,
		run: amount(false, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=512m", "--io_size=32m")})
	c.race(b, load{name: "first-64-KiB-writes", unit: mibPerSecond, qemu: 1.3, nbdkit: 1, writes: true,
		run: amount(true, "--rw=randwrite", "--bs=64k", "--iodepth=8", "--size=512m")})
}

// writeEveryOther writes every second cluster.
func writeEveryOther(b *testing.B, s side) {
	b.Helper()
	c, err := nbdtest.Open("unix", s.socket, s.export)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	for off := uint64(0); off < diskSize; off += 128 << 10 {
		noise(p, off)
		if err := c.WriteAt(p, off, 0); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		b.Fatal(err)
	}
}

// diskFile returns the disk of all contests in a file of its kind: raw, qcow2,
// or qcow2 with its clusters compressed. It is kept beside what else make
// fetched and built.
func diskFile(b *testing.B, kind string) string {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "disks")
	if kept := os.Getenv("PLATTER_CACHE"); kept != "" {
		dir = filepath.Join(kept, "bench")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d", kind, diskSize>>20))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	args := []string{"convert", "-f", "raw", "-O", "qcow2"}
	switch kind {
	case "raw":
		filesDisk(b, path+"+")
	case "qcow2":
	default:
		args = append(args, "-c", "-o", "compression_type="+kind)
	}
	if kind != "raw" {
		tool(b, "qemu-img", append(args, diskFile(b, "raw"), path+"+")...)
	}
	if err := os.Rename(path+"+", path); err != nil {
		b.Fatal(err)
	}
	return path
}

// filesDisk makes a file of diskSize bytes of what this machine has in /usr,
// each file at a multiple of 4 KiB as in a file system: what guests' disks hold,
// and compressors do about as well with.
func filesDisk(b *testing.B, path string) {
	b.Helper()
	disk, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(diskSize); err != nil {
		b.Fatal(err)
	}
	at := int64(0)
	err = filepath.WalkDir("/usr", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := disk.WriteAt(data[:min(int64(len(data)), diskSize-at)], at); err != nil {
			return err
		}
		if at += (int64(len(data)) + 4095) &^ 4095; at >= diskSize {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if at < diskSize {
		b.Fatalf("/usr has %d bytes, and the disk of the benchmark %d", at, diskSize)
	}
}

// copyOf copies a file.
func copyOf(b *testing.B, path string) string {
	b.Helper()
	to := filepath.Join(b.TempDir(), filepath.Base(path))
	tool(b, "cp", path, to)
	return to
}
