package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

func writeFile(t testing.TB, fsys localfs.FS, name string, p []byte) {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(p, 0)
	must(t, err)
}

func readFile(t testing.TB, fsys localfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	n, err := localfs.Size(f)
	must(t, err)
	p := make([]byte, n)
	_, err = f.ReadAt(p, 0)
	must(t, err)
	return p
}

// resum makes right what a change of the header of a file of records, or of one
// of its records, made wrong, so that more than a checksum is tested.
func resum(p []byte, s *state) {
	if len(p) < pageSize {
		return
	}
	binary.LittleEndian.PutUint32(p[sectorSize-4:], salted(s.salt[:], p[:sectorSize-4]))
	salt := p[48:64]
	for at := pageSize; at+recHead <= len(p); at += recAlign {
		h := p[at : at+recHead]
		if binary.LittleEndian.Uint32(h) != recMagic {
			continue
		}
		if n := int64(binary.LittleEndian.Uint32(h[8:])); n <= int64(len(p)-at-recHead) {
			binary.LittleEndian.PutUint32(h[12:], dataSum(p[at+recHead:][:n]))
		}
		binary.LittleEndian.PutUint32(h[60:], salted(salt, h[:60]))
	}
}

// FuzzOpen opens whatever there is in two files of records. It must not panic,
// must not take more memory than the files are large, and what it finds it must
// find again.
func FuzzOpen(f *testing.F) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 16 << 10, Limit: 1 << 20, Full: Fail}
	j, err := Create(f.Context(), cfg)
	must(f, err)
	for i := range 7 {
		write(f, j, 2000, byte('a'+i))
		must(f, j.Sync(f.Context()))
	}
	must(f, j.Append(f.Context(), []Record{{Kind: Zero, Len: 1 << 40}, {Kind: Mark}}))
	must(f, j.Close())
	state := readFile(f, fsys, "d/"+stateName)
	s, err := decodeState(state[:pageSize])
	must(f, err)
	one, two := readFile(f, fsys, "d/"+fileName(1)), readFile(f, fsys, "d/"+fileName(2))
	f.Add(state, one, two)
	f.Add(state, two, one)
	f.Add(state, one[:9000], two[:5000])
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		fsys := crashfs.New()
		cfg := cfg
		cfg.FS, cfg.Salvage = fsys, true
		must(t, localfs.MkdirAll(fsys, "d"))
		b, c = bytes.Clone(b), bytes.Clone(c)
		if len(b) > 16<<10 || len(c) > 16<<10 || len(a) > stateSize {
			return
		}
		resum(b, s)
		resum(c, s)
		writeFile(t, fsys, "d/"+stateName, a)
		writeFile(t, fsys, "d/"+fileName(1), b)
		writeFile(t, fsys, "d/"+fileName(2), c)
		before := collect(t, cfg)
		if before == nil {
			return
		}
		j, err := Open(context.Background(), cfg)
		must(t, err)
		recs := []Record{{Kind: Mark, Data: []byte("more")}}
		must(t, j.Append(context.Background(), recs))
		must(t, j.Close())
		after := collect(t, cfg)
		if len(after) != len(before)+1 {
			t.Fatalf("%d records, then one more, are %d", len(before), len(after))
		}
		for i := range before {
			if !same(before[i], after[i]) {
				t.Fatalf("record %d changed", i)
			}
		}
	})
}

// collect opens a journal and returns its records; nil is that it refuses.
func collect(t *testing.T, cfg Config) []Record {
	j, err := Open(context.Background(), cfg)
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrForeign) {
			t.Fatal(err)
		}
		return nil
	}
	defer j.Close()
	recs := []Record{}
	for r, err := range j.Records(context.Background(), j.Stats().Start) {
		must(t, err)
		r.Data = bytes.Clone(r.Data)
		recs = append(recs, r)
	}
	return recs
}
