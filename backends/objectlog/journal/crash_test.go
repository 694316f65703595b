package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// A model is what was done to a journal, and when, in operations of its disk.
type model struct {
	recs     []done
	promises []promise
	trims    []promise // pos is where it was trimmed, moment when that began
	id       uint64
}

type done struct {
	Record
	began int
}

// A promise is that from moment on all up to pos is durable.
type promise struct {
	moment int
	pos    int64
}

const crashDir = "j"

func crashConfig(fsys *crashfs.FS) Config {
	return Config{FS: fsys, Dir: crashDir, ID: "an overlay", Epoch: 7, FileSize: 32 << 10, Limit: 256 << 10, Full: Fail}
}

// record makes a random record that is like no other.
func (m *model) record(rng *rand.Rand) Record {
	m.id++
	r := Record{Kind: Kind(1 + rng.IntN(4)), Off: rng.Int64N(1 << 40)}
	n := []int{0, 8, 100, 512, 4096, 4096, 4032, 9000, 20000}[rng.IntN(9)]
	switch r.Kind {
	case Write, Mark:
		r.Data = make([]byte, n)
		for i := 0; i+8 <= n; i += 8 {
			binary.LittleEndian.PutUint64(r.Data[i:], m.id)
		}
		r.Len = int64(n)
	default:
		r.Len = int64(m.id)
	}
	return r
}

// work does n random things.
func (m *model) work(j *Journal, fsys *crashfs.FS, rng *rand.Rand, n int) error {
	ctx := context.Background()
	for range n {
		began := fsys.Len()
		switch k := rng.IntN(20); {
		case k < 12:
			recs := make([]Record, 1+rng.IntN(3))
			for i := range recs {
				recs[i] = m.record(rng)
			}
			err := j.Append(ctx, recs)
			for _, r := range recs {
				if r.Next > 0 {
					m.recs = append(m.recs, done{r, began})
				}
			}
			if errors.Is(err, errNoRoom) {
				if err := m.trim(j, fsys, j.Stats().End); err != nil {
					return err
				}
			} else if err != nil {
				return err
			}
		case k < 17:
			end := j.Stats().End
			if err := j.Sync(ctx); err != nil {
				return err
			}
			m.promises = append(m.promises, promise{fsys.Len(), end})
		default:
			if live := m.from(j.Stats().Start); len(live) > 0 {
				if err := m.trim(j, fsys, live[rng.IntN(len(live))].Next); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (m *model) trim(j *Journal, fsys *crashfs.FS, pos int64) error {
	m.trims = append(m.trims, promise{fsys.Len(), pos})
	return j.Trim(pos)
}

// from returns the records that end behind pos.
func (m *model) from(pos int64) []done {
	i := slices.IndexFunc(m.recs, func(d done) bool { return d.Next > pos })
	if i < 0 {
		return nil
	}
	return m.recs[i:]
}

func same(a, b Record) bool {
	return a.Kind == b.Kind && a.Off == b.Off && a.Len == b.Len && a.Pos == b.Pos && a.Next == b.Next && bytes.Equal(a.Data, b.Data)
}

// holds checks that j is what a crash at moment may leave, and returns how many
// records there are from its start on.
func (m *model) holds(j *Journal, moment int) (int, error) {
	st := j.Stats()
	if !slices.ContainsFunc(m.trims, func(p promise) bool { return p.pos == st.Start && p.moment <= moment }) {
		return 0, fmt.Errorf("it starts at %d, where it never was trimmed before", st.Start)
	}
	want := m.from(st.Start)
	n := 0
	for r, err := range j.Records(context.Background(), st.Start) {
		if err != nil {
			return 0, err
		}
		if n == len(want) || !same(r, want[n].Record) {
			return 0, fmt.Errorf("record %d of %d from %d on is %v %d+%d at %d to %d, unlike what was appended", n, len(want), st.Start, r.Kind, r.Off, r.Len, r.Pos, r.Next)
		}
		if want[n].began > moment {
			return 0, fmt.Errorf("record %d comes from the future", n)
		}
		p := make([]byte, len(r.Data))
		if err := j.ReadAt(p, r.Pos); err != nil || !bytes.Equal(p, r.Data) {
			return 0, fmt.Errorf("ReadAt of record %d: other bytes, or %v", n, err)
		}
		n++
	}
	end := st.Start
	if n > 0 {
		end = want[n-1].Next
	}
	if st.End != end {
		return 0, fmt.Errorf("End is %d, the last record ends at %d", st.End, end)
	}
	// What was trimmed need not be synced, and the trim need not last.
	var trimmed int64
	for _, p := range m.trims {
		if p.moment <= moment {
			trimmed = max(trimmed, p.pos)
		}
	}
	for _, p := range m.promises {
		if p.moment <= moment && p.pos > max(end, trimmed) {
			return 0, fmt.Errorf("the records end at %d, %d was synced", end, p.pos)
		}
	}
	return n, nil
}

// survivor is the model of the journal as a crash left it.
func (m *model) survivor(start int64, n int) *model {
	recs := slices.Clone(m.from(start)[:n])
	end := start
	for i := range recs {
		recs[i].began = 0
		end = recs[i].Next
	}
	return &model{recs: recs, trims: []promise{{0, start}}, promises: []promise{{0, end}}, id: m.id}
}

// explore lets the power fail n times at random moments from begun on, and in
// what is left again, up to depth times.
func explore(fsys *crashfs.FS, m *model, rng *rand.Rand, begun, n, depth int) (states int, _ error) {
	for moment, state := range fsys.Crashes(rng, n) {
		if moment < begun {
			continue
		}
		states++
		j, err := Open(context.Background(), crashConfig(state))
		if err != nil {
			return states, fmt.Errorf("after %d operations (trims %v, promises %v): %w", moment, m.trims, m.promises, err)
		}
		found, err := m.holds(j, moment)
		if err != nil {
			return states, fmt.Errorf("after %d operations: %w", moment, err)
		}
		if state.Len() != 0 {
			return states, fmt.Errorf("Open changed the disk")
		}
		next := m.survivor(j.Stats().Start, found)
		if rng.IntN(8) == 0 { // it was further, elsewhere
			if err := next.trim(j, state, j.Stats().End+1+rng.Int64N(100<<10)); err != nil {
				return states, err
			}
		}
		if err := next.work(j, state, rng, 1+rng.IntN(12)); err != nil {
			return states, fmt.Errorf("after %d operations, then more work: %w", moment, err)
		}
		if rng.IntN(2) == 0 {
			if err := j.Close(); err != nil {
				return states, err
			}
			if j, err = Open(context.Background(), crashConfig(state)); err != nil {
				return states, err
			}
			if _, err := next.holds(j, state.Len()); err != nil {
				return states, fmt.Errorf("after closing: %w", err)
			}
			if err := next.work(j, state, rng, 1+rng.IntN(12)); err != nil {
				return states, err
			}
		}
		if depth > 0 {
			more, err := explore(state, next, rng, 0, 3, depth-1)
			if states += more; err != nil {
				return states, fmt.Errorf("after %d operations, then again %w", moment, err)
			}
		}
	}
	return states, nil
}

func TestPowerLoss(t *testing.T) {
	states := 0
	for seed := range uint64(16) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fsys := crashfs.New()
		m := new(model)
		j, err := Create(t.Context(), crashConfig(fsys))
		if err != nil {
			t.Fatal(err)
		}
		begun := fsys.Len()
		m.trims = append(m.trims, promise{0, j.Stats().Start})
		if err := m.work(j, fsys, rng, 60); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		n, err := explore(fsys, m, rng, begun, 25, 2)
		if states += n; err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d states", states)
}

// TestPowerLossInCreate finds, after any crash in Create, a journal or none.
func TestPowerLossInCreate(t *testing.T) {
	fsys := crashfs.New()
	j, err := Create(t.Context(), crashConfig(fsys))
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for moment, state := range fsys.Crashes(rng, 300) {
		cfg := crashConfig(state)
		j, err := Open(t.Context(), cfg)
		if errors.Is(err, fs.ErrNotExist) && moment < fsys.Len() {
			j, err = Create(t.Context(), cfg)
		}
		if err != nil {
			t.Fatalf("after %d operations: %v", moment, err)
		}
		m := &model{trims: []promise{{0, j.Stats().Start}}}
		if err := m.work(j, state, rng, 10); err != nil {
			t.Fatal(err)
		}
		if _, err := m.holds(j, state.Len()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerLossParallel has several writers and several who sync.
func TestPowerLossParallel(t *testing.T) {
	for seed := range uint64(10) {
		fsys := crashfs.New()
		var mu sync.Mutex
		all := new(model)
		cfg := crashConfig(fsys)
		cfg.Apply = func(recs []Record) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range recs {
				r.Data = bytes.Clone(r.Data)
				all.recs = append(all.recs, done{r, 0})
			}
		}
		j, err := Create(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		begun := fsys.Len()
		all.trims = append(all.trims, promise{0, j.Stats().Start})
		var wg sync.WaitGroup
		for w := range uint64(6) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, w))
				mine := model{id: w << 32}
				for range 30 {
					recs := []Record{mine.record(rng)}
					if err := j.Append(t.Context(), recs); errors.Is(err, errNoRoom) {
						mu.Lock()
						all.trims = append(all.trims, promise{fsys.Len(), j.Stats().End})
						at := all.trims[len(all.trims)-1].pos
						mu.Unlock()
						if err := j.Trim(at); err != nil {
							t.Error(err)
						}
						continue
					} else if err != nil {
						t.Error(err)
					}
					if rng.IntN(3) > 0 {
						continue
					}
					if err := j.Sync(t.Context()); err != nil {
						t.Error(err)
					}
					moment := fsys.Len()
					mu.Lock()
					all.promises = append(all.promises, promise{moment, recs[0].Next})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		rng := rand.New(rand.NewPCG(seed, 99))
		for moment, state := range fsys.Crashes(rng, 60) {
			if moment < begun {
				continue
			}
			j, err := Open(t.Context(), crashConfig(state))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := all.holds(j, moment); err != nil {
				t.Fatalf("seed %d, after %d operations: %v", seed, moment, err)
			}
		}
	}
}
