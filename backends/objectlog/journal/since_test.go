package journal

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// TestSince: of what the caller has elsewhere nothing is read but the file in
// which that ends, and of the rest nothing is missed.
func TestSince(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "a"), ID: "x", Epoch: 3, FileSize: 32 << 10}
	j := create(t, cfg)
	var all []Record
	for i := range 40 {
		all = append(all, write(t, j, 4096, byte('a'+i%26)))
		must(t, j.Sync(t.Context()))
	}
	must(t, j.Close())
	file := func(r Record) int64 { return j.state.seq(r.Pos) }
	if n := file(all[39]) - file(all[0]); n < 4 {
		t.Fatalf("%d files are too few", n)
	}
	flip(t, localfs.OS(), j.path(file(all[0])), all[0].Pos%cfg.FileSize)
	for n, last := range all {
		cfg := cfg
		cfg.Since = last.Next
		var found []Record
		cfg.Found = func(r Record) error {
			found = append(found, r)
			return nil
		}
		j, err := Open(t.Context(), cfg)
		if err != nil {
			// The damage is where it has to look.
			if !errors.Is(err, ErrDamaged) || n+1 < len(all) && file(all[n+1]) > file(all[0]) {
				t.Errorf("since record %d: %v", n, err)
			}
			continue
		}
		if file(last) == file(all[0]) && (n+1 == len(all) || file(all[n+1]) == file(all[0])) {
			t.Errorf("since record %d, in the file that is damaged: it opens", n)
		}
		if got := j.Stats(); got.Start > all[0].Pos || got.End != all[39].Next {
			t.Errorf("since record %d: %+v", n, got)
		}
		for len(found) > 0 && found[0].Next <= cfg.Since {
			if file(found[0]) != file(last) {
				t.Errorf("since record %d: one at %d was read", n, found[0].Pos)
			}
			found = found[1:]
		}
		if len(found) != len(all)-n-1 {
			t.Errorf("since record %d: %d are found", n, len(found))
		}
		for i, r := range found {
			if want := all[n+1+i]; r.Pos != want.Pos || r.Next != want.Next || r.Off != want.Off || r.Len != want.Len {
				t.Errorf("since record %d: %+v, want %+v", n, r, want)
			}
		}
		must(t, j.Close())
	}

	cfg.Since, cfg.Found = all[20].Next, func(Record) error { return context.Canceled }
	if _, err := Open(t.Context(), cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Found fails: %v", err)
	}
}
