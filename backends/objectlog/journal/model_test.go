package journal

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"pgregory.net/rapid"
)

// TestModel does without crashes what TestPowerLoss does with them, so that
// what fails is small, and closes and opens the journal in between.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		fsys := crashfs.New()
		cfg := crashConfig(fsys)
		j, err := Create(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{trims: []promise{{0, j.Stats().Start}}}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				err = j.Close()
				if err == nil {
					j, err = Open(ctx, cfg)
				}
			case 1:
				err = j.Sync(ctx)
			case 2:
				if live := m.from(j.Stats().Start); len(live) > 0 {
					err = m.trim(j, fsys, live[rapid.IntRange(0, len(live)-1).Draw(t, "to")].Next)
				}
			case 3:
				err = m.trim(j, fsys, j.Stats().End+rapid.Int64Range(0, 100<<10).Draw(t, "beyond"))
			default:
				recs := []Record{m.record(rng)}
				if err = j.Append(ctx, recs); err == nil {
					m.recs = append(m.recs, done{recs[0], 0})
				} else if errors.Is(err, errNoRoom) {
					err = nil
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.holds(j, fsys.Len()); err != nil {
				t.Fatal(err)
			}
			if st := j.Stats(); st.Bytes > st.Limit || st.Synced > max(st.End, st.Start) {
				t.Fatalf("%+v", st)
			}
		}
	})
}
