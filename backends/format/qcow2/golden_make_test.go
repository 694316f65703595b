//go:build integration

package qcow2

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "make the golden images of testdata anew, with QEMU's tools")

// TestMakeGolden wants testdata/golden whole, and with -update makes what is
// missing. Images of a release stay as they are
// for ever: it never overwrites one.
func TestMakeGolden(t *testing.T) {
	writes := []string{"write -P 1 0 3k", "write -P 2 70k 100k", "write -z 100k 30k", "discard 140k 16k", "write -P 4 255k 512"}
	for _, c := range []qemuCase{
		{name: "v2-zlib-512", opts: "compat=0.10,cluster_size=512", from: 70000, flags: []string{"-c"}},
		{name: "v2-discard", opts: "compat=0.10,cluster_size=4k", size: "256k", io: writes},
		{name: "v3-discard", opts: "cluster_size=4k", size: "256k", io: writes},
		{name: "v3-zlib-64k", from: 200000, flags: []string{"-c"}},
		{name: "v3-zlib-2M", opts: "cluster_size=2M", from: 200000, flags: []string{"-c"}},
		{name: "v3-zstd-4k", opts: "compression_type=zstd,cluster_size=4k", from: 70000, flags: []string{"-c"}},
		{name: "v3-plain-512", opts: "cluster_size=512", from: 30000},
		{name: "v3-refcount-1", opts: "cluster_size=4k,refcount_bits=1", size: "256k", io: writes},
		{name: "ext-writes", opts: "extended_l2=on,cluster_size=16k", size: "256k", io: writes},
		{name: "ext-chain", opts: "extended_l2=on,cluster_size=32k", base: 100000, size: "256k", io: writes},
		{name: "ext-zstd", opts: "extended_l2=on,cluster_size=64k,compression_type=zstd", from: 100000, flags: []string{"-c"}},
		{name: "prealloc", opts: "extended_l2=on,cluster_size=16k,preallocation=metadata", size: "256k", io: writes[:1]},
		{name: "snapshots", opts: "cluster_size=4k", size: "256k", img: []string{
			"io: write -P 1 0 64k", "snapshot -c one FILE", "io: write -P 2 32k 64k", "snapshot -c two FILE", "io: discard 0 16k"}},
		{name: "resized", opts: "cluster_size=512", size: "64k", img: []string{
			"io: write -P 1 32k 16k", "snapshot -c small FILE", "resize -q FILE 700k", "io: write -P 2 699k 1k"}},
	} {
		file := filepath.Join("testdata", "golden", c.name+".qcow2.gz")
		if _, err := os.Stat(file); err == nil {
			continue
		}
		if !*update {
			t.Errorf("%s is missing; make it with -update", file)
			continue
		}
		path := c.make(t, t.TempDir())
		im, err := Open(t.Context(), openFile(t, path))
		if err != nil {
			t.Fatal(err)
		}
		if c.base == 0 {
			sameBytes(t, im, path, "")
			sameExtents(t, im, path)
		}
		raw, _ := os.ReadFile(path)
		if c.base > 0 {
			// The name of the backing file is that of a folder long gone.
			raw = bytes.ReplaceAll(raw, []byte(filepath.Dir(path)), bytes.Repeat([]byte("/"), len(filepath.Dir(path))))
		}
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		z.Write(raw)
		z.Close()
		os.MkdirAll(filepath.Dir(file), 0o755)
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		text, _ := json.MarshalIndent(describeAll(t, im), "", "\t")
		if err := os.WriteFile(filepath.Join("testdata", "golden", c.name+".json"), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
