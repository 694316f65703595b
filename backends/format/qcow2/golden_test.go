package qcow2

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// A golden says what is in an image that QEMU's tools made.
type golden struct {
	Size      int64
	SHA256    string
	Extents   []string
	Snapshots map[string]golden `json:",omitempty"`
}

func describe(t *testing.T, im *Image) golden {
	t.Helper()
	g := golden{Size: im.Size()}
	b := make([]byte, im.Size())
	if err := im.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	g.SHA256 = hex.EncodeToString(sum[:])
	for e, err := range block.Extents(t.Context(), im, 0, im.Size()) {
		if err != nil {
			t.Fatal(err)
		}
		g.Extents = append(g.Extents, fmt.Sprintf("%s %d+%d", e.Kind, e.Off, e.Len))
	}
	return g
}

func describeAll(t *testing.T, im *Image) golden {
	g := describe(t, im)
	snaps, err := im.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range snaps {
		old, err := im.Snapshot(t.Context(), s.Name)
		if err != nil {
			t.Fatal(err)
		}
		if g.Snapshots == nil {
			g.Snapshots = map[string]golden{}
		}
		g.Snapshots[s.Name] = describe(t, old)
	}
	return g
}

func goldenImages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.qcow2.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden images: %v", err)
	}
	all := map[string][]byte{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[strings.TrimSuffix(name, ".qcow2.gz")] = b
	}
	return all
}

func fromBytes(b []byte) block.Reader { return block.FromReaderAt(bytes.NewReader(b), int64(len(b))) }

func TestGolden(t *testing.T) {
	for name, b := range goldenImages(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var want golden
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			im, err := Open(t.Context(), fromBytes(b))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, describeAll(t, im)); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			disk := make([]byte, im.Size())
			if err := im.ReadAt(t.Context(), disk, 0); err != nil {
				t.Fatal(err)
			}
			blocktest.TestReader(t, im, disk)
			if err := Verify(t.Context(), fromBytes(b)); (err != nil) != (im.Backing() != "") {
				t.Errorf("verify: %v", err)
			}
		})
	}
}
