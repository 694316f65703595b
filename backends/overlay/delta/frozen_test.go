package delta

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the sample of this release anew")

// TestFrozen opens the file that the first release made. Every later one must
// be able to, for ever.
func TestFrozen(t *testing.T) {
	const name = "testdata/v1.qcow2.gz"
	if *update {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if _, err := z.Write(sample(t)); err != nil || z.Close() != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	fsys := newFS(t)
	w, err := fsys.Open(path, os.O_RDWR|os.O_CREATE, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(file, 0); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, Config{FS: fsys, Size: 2 << 30})
	want := make([]byte, 1<<20)
	for i := range 3 {
		copy(want[1<<19-5000+i*clusterSize:], bytes.Repeat([]byte{1}, 9000))
	}
	got := make([]byte, 1<<20)
	if err := d.ReadAt(t.Context(), got, 1<<30-1<<19); err != nil || !bytes.Equal(got, want) {
		t.Fatal("the disk is not what it was: ", err)
	}
	if s := d.Snapshots(); len(s) != 2 || s[1].Name != "snap" || s[1].Size != 2<<30 {
		t.Fatal(s)
	}
	useAll(t, fsys, d)
}

// TestHuge uses a thin disk of 64 TiB here and there.
func TestHuge(t *testing.T) {
	const size = 64 << 40
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: size})
	for _, off := range []int64{0, 1<<40 - 3000, 33<<40 + 77, size - 6000} {
		if err := d.WriteAt(t.Context(), bytes.Repeat([]byte{7}, 6000), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, Config{FS: fsys})
	p := make([]byte, 6000)
	for _, off := range []int64{0, 1<<40 - 3000, 33<<40 + 77, size - 6000} {
		if err := d.ReadAt(t.Context(), p, off); err != nil || bytes.Count(p, []byte{7}) != len(p) {
			t.Fatal(off, err)
		}
	}
	e, err := d.Extent(t.Context(), 2<<40, 31<<40)
	if err != nil || e.Len != 31<<40 {
		t.Fatal(e, err)
	}
	if used := d.Usage(); used > 2<<20 {
		t.Errorf("%d bytes used", used)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
