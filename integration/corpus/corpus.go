// Package corpus makes disk images with qemu-img and qemu-io, over all
// dimensions of the formats, for tests that serve them.
package corpus

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Specimen is one image that qemu-img and qemu-io made.
type Specimen struct {
	Name   string
	Path   string
	Format string // qcow2 or raw
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

// writes is what qemu-io does to every specimen: data that is aligned and not,
// over cluster borders, zeros of each kind, a discard, and data again.
func writes(size int64) []string {
	cmds := []string{
		"write -P 0x11 0 65536", "write -P 0x22 70144 3584", "write -P 0x33 1048064 1024", "write -P 0x44 2097152 300000",
		"write -z 2162688 65536", "write -z -u 2293760 4096", "discard 2228224 65536", "write -P 0x55 3145728 131072",
		"write -P 0x66 3150336 512", "write -z 3211264 8192", "write -P 0x77 4194304 1048576", "discard 4456448 262144",
	}
	if size > 7<<20 {
		cmds = append(cmds, fmt.Sprintf("write -P 0x88 %d 512", size&^511-512))
	}
	return cmds
}

// QemuIO runs commands of qemu-io on an image.
func QemuIO(t testing.TB, path, format string, cmds []string) {
	t.Helper()
	args := []string{"-f", format, "-d", "unmap"}
	for _, c := range cmds {
		args = append(args, "-c", c)
	}
	tool(t, "qemu-io", append(args, path)...)
}

// Make makes at least 40 images over all dimensions of the format: version,
// cluster size, refcount width, compression, extended L2, preallocation,
// snapshots, sizes.
func Make(t testing.TB) []Specimen {
	t.Helper()
	dir := t.TempDir()
	var all []Specimen
	add := func(name, options string, size int64) string {
		path := filepath.Join(dir, name+".qcow2")
		tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, fmt.Sprint(size))
		if size > 6<<20 {
			QemuIO(t, path, "qcow2", writes(size))
		}
		all = append(all, Specimen{name, path, "qcow2"})
		return path
	}
	for _, compat := range []string{"0.10", "1.1"} {
		for _, cluster := range []string{"512", "1k", "4k", "64k", "256k", "2M"} {
			add("v"+compat+"-"+cluster, "compat="+compat+",cluster_size="+cluster, 16<<20)
		}
	}
	for _, bits := range []int{1, 2, 4, 8, 16, 32, 64} {
		add(fmt.Sprintf("refcount-%d", bits), fmt.Sprintf("refcount_bits=%d", bits), 8<<20)
	}
	for _, cluster := range []string{"16k", "64k", "128k", "2M"} {
		add("extl2-"+cluster, "extended_l2=on,cluster_size="+cluster, 16<<20)
	}
	for _, pre := range []string{"metadata", "falloc", "full"} {
		add("prealloc-"+pre, "preallocation="+pre, 8<<20)
		add("prealloc-extl2-"+pre, "extended_l2=on,preallocation="+pre, 8<<20)
	}
	add("lazy", "lazy_refcounts=on", 8<<20)
	add("empty", "cluster_size=64k", 0)
	add("thin-1t", "cluster_size=64k", 1<<40)
	add("odd-sectors", "cluster_size=4k", 9<<20+512)
	add("odd-small", "cluster_size=64k", 1536)
	return append(all, morePaths(t, dir, add)...)
}

// morePaths makes what needs more than qemu-img create: compressed images,
// snapshots, changed sizes, raw files.
func morePaths(t testing.TB, dir string, add func(name, options string, size int64) string) []Specimen {
	t.Helper()
	snap := add("snapshots", "cluster_size=64k", 8<<20)
	tool(t, "qemu-img", "snapshot", "-c", "before", snap)
	QemuIO(t, snap, "qcow2", []string{"write -P 0x99 0 131072", "discard 4194304 1048576"})
	tool(t, "qemu-img", "snapshot", "-c", "after", snap)
	QemuIO(t, snap, "qcow2", []string{"write -P 0xaa 65536 4096"})
	tool(t, "qemu-img", "resize", "-q", add("grown", "cluster_size=64k", 7<<20), "12M")
	tool(t, "qemu-img", "resize", "-q", "--shrink", add("shrunk", "cluster_size=64k", 12<<20), "7M")

	raw := filepath.Join(dir, "sparse.raw")
	tool(t, "qemu-img", "create", "-q", "-f", "raw", raw, "16M")
	QemuIO(t, raw, "raw", writes(16<<20))
	text := filepath.Join(dir, "text.raw") // compresses well, unlike a pattern of one byte
	if err := os.WriteFile(text, []byte(strings.Repeat("All work and no play makes a dull image.\n", 1<<17)[:5<<20]), 0o600); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(dir, "odd.raw")
	if err := os.WriteFile(odd, []byte(strings.Repeat("x", 1<<20+512)), 0o600); err != nil {
		t.Fatal(err)
	}
	all := []Specimen{{"raw-sparse", raw, "raw"}, {"raw-full", text, "raw"}, {"raw-odd", odd, "raw"}}
	for _, kind := range []string{"zlib", "zstd"} {
		for _, cluster := range []string{"512", "4k", "64k", "2M"} {
			for _, src := range []string{raw, text} {
				name := fmt.Sprintf("%s-%s-%s", kind, cluster, strings.TrimSuffix(filepath.Base(src), ".raw"))
				path := filepath.Join(dir, name+".qcow2")
				tool(t, "qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type="+kind+",cluster_size="+cluster, src, path)
				QemuIO(t, path, "qcow2", []string{"write -P 0x5a 1000448 512", "write -z 2048 2048"})
				all = append(all, Specimen{name, path, "qcow2"})
			}
		}
	}
	return all
}
