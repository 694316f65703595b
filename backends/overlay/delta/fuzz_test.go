package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// sample is the file of a small overlay with two snapshots.
func sample(t testing.TB) []byte {
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: 2 << 30, Backing: "nbd:unix:x:exportname=y"})
	ctx := context.Background()
	must := func(_ any, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(3) {
		must(nil, d.WriteAt(ctx, bytes.Repeat([]byte{1}, 9000), 1<<30-5000+i*clusterSize))
		if i < 2 {
			must(d.Snapshot(ctx, "snap"))
		}
	}
	must(nil, d.Zero(ctx, 0, 1<<20, 0))
	must(nil, d.Close())
	return slurp(t, fsys)
}

func slurp(t testing.TB, fsys *crashfs.FS) []byte {
	f, err := fsys.Open(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := localfs.Size(f)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return p
}

// patch applies edits of 12 bytes: where in multiples of 8, and what. The
// place is chosen among the words of the metadata that are not zero, or next
// to them, so that few edits miss.
func patched(file []byte, words []int, edits []byte) []byte {
	out := bytes.Clone(file)
	for ; len(edits) >= 12; edits = edits[12:] {
		at := words[int(binary.LittleEndian.Uint16(edits))%len(words)] + int(int8(edits[2]))/32*8
		if at < 0 || at+8 > len(out) {
			continue
		}
		v := binary.LittleEndian.Uint64(edits[4:])
		switch edits[3] % 4 {
		case 0:
			binary.BigEndian.PutUint64(out[at:], v)
		case 1:
			binary.BigEndian.PutUint64(out[at:], binary.BigEndian.Uint64(out[at:])^1<<(v%64))
		case 2: // what stands elsewhere
			copy(out[at:at+8], file[words[int(v%uint64(len(words)))]:])
		case 3:
			out = out[:min(len(out), max(at, 4096))]
		}
	}
	return out
}

func metadataWords(file []byte) (words []int) {
	for i := 0; i+8 <= len(file); i += 8 {
		if w := binary.BigEndian.Uint64(file[i:]); w != 0 && w != 0x0101010101010101 {
			words = append(words, i)
		}
	}
	return words
}

// FuzzOpen: a damaged file is refused, or is a good one after Open.
func FuzzOpen(f *testing.F) {
	file := sample(f)
	words := metadataWords(file)
	f.Add([]byte{})
	for i := range len(words) {
		e := make([]byte, 12)
		binary.LittleEndian.PutUint16(e, uint16(i))
		for _, k := range []byte{0, 1, 2, 3} {
			e[3] = k
			binary.LittleEndian.PutUint64(e[4:], uint64(i)*7919)
			f.Add(bytes.Clone(e))
		}
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		if len(edits) > 12*8 {
			return
		}
		fsys := newFS(t)
		w, err := fsys.Open(path, os.O_RDWR|os.O_CREATE, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(patched(file, words, edits), 0); err != nil {
			t.Fatal(err)
		}
		d, err := Open(t.Context(), Config{FS: fsys, Path: path})
		if err != nil {
			if !errors.Is(err, decode.ErrCorrupt) && !errors.Is(err, errors.ErrUnsupported) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		useAll(t, fsys, d)
	})
}

// useAll uses a Delta in every way and looks at the file.
func useAll(t *testing.T, fsys *crashfs.FS, d *Delta) {
	ctx := t.Context()
	if err := sound(fsys, path, 0); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off+1<<20 <= d.Size() && off < 4<<30; off += 100 << 20 {
		if err := d.ReadAt(ctx, p, off); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(ctx, p[:5000], off+77); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range d.Snapshots() {
		r, err := d.OpenSnapshot(ctx, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() > 4096 {
			if err := r.ReadAt(ctx, p[:4096], r.Size()/2-2048); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(r.Close(), d.DeleteSnapshot(ctx, s.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Snapshot(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sound(fsys, path, 0); err != nil {
		t.Fatal(err)
	}
}
