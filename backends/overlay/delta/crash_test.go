package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// A change is what one write did to a range of sectors.
type change struct {
	began    int // the moment before the write, in operations of the disk
	from, to int // sectors
	id       uint64
}

// A history is what a worker did to its part of the disk, and what was
// promised to it.
type history struct {
	from, to int // its sectors
	changes  []change
	kept     []promise
	snaps    []*kept
}

// A promise is a flush: from moment on, the first n changes are durable.
type promise struct{ moment, n int }

// kept is a snapshot, there for sure in [made, gone).
type kept struct {
	id         string
	made, gone int
	content    []uint64
}

// allowed tells for each sector which ids it may have after a crash.
func (h *history) allowed(base []uint64, moment int) [][]uint64 {
	sure := 0
	for _, k := range h.kept {
		if k.moment <= moment {
			sure = k.n
		}
	}
	out := make([][]uint64, len(base))
	for i := range out {
		out[i] = []uint64{base[i]}
	}
	for i, c := range h.changes {
		for s := c.from; s < c.to; s++ {
			switch {
			case i < sure:
				out[s] = []uint64{c.id}
			case c.began <= moment:
				out[s] = append(out[s], c.id)
			}
		}
	}
	return out
}

func sectors(p []byte) []uint64 {
	out := make([]uint64, len(p)/sector)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(p[i*sector:])
		for k := 0; k < sector; k += 8 {
			if binary.LittleEndian.Uint64(p[i*sector+k:]) != out[i] {
				out[i] = 1<<64 - 1 // a sector of two writes
			}
		}
	}
	return out
}

func readSectors(r block.Reader, d *Delta, below block.Reader) ([]uint64, error) {
	p := make([]byte, r.Size())
	var err error
	if d != nil {
		err = d.ReadOver(context.Background(), below, p, 0)
	} else {
		err = r.ReadAt(context.Background(), p, 0)
	}
	return sectors(p), err
}

// work does n random things to the sectors [from, to).
func (h *history) work(t *testing.T, d *Delta, fsys *crashfs.FS, below block.Reader, rng *rand.Rand, n int, withSnaps bool) {
	ctx, from, to := context.Background(), h.from, h.to
	for i := range n {
		a := from + rng.IntN(to-from)
		b := a + 1 + rng.IntN(min(to-a, []int{1, 8, 40, 400, 3000}[rng.IntN(5)]))
		if rng.IntN(2) == 0 { // more whole subclusters than chance would have
			a = a &^ 7
			b = min((b+7)&^7, to)
		}
		a = max(a, from)
		c := change{began: fsys.Len(), from: a, to: b, id: uint64(from)<<32 | uint64(i+1)}
		off, size := int64(a)*sector, int64(b-a)*sector
		var err error
		switch k := rng.IntN(20); {
		case k < 11:
			h.changes = append(h.changes, c)
			err = d.WriteOver(ctx, below, stamp(make([]byte, size), c.id), off)
		case k < 15:
			c.id = 0
			h.changes = append(h.changes, c)
			err = d.ZeroOver(ctx, below, off, size, block.ZeroMode(rng.IntN(3)))
		case k < 16: // as Overlay.Discard does, so that the content is known
			c.from, c.to, c.id = (a+7)&^7, b&^7, 0
			if c.from < c.to {
				h.changes = append(h.changes, c)
				err = d.ZeroOver(ctx, below, int64(c.from)*sector, int64(c.to-c.from)*sector, block.ZeroAny)
			}
		case k < 18 || !withSnaps:
			n := len(h.changes)
			if err = d.Flush(ctx); err == nil {
				h.kept = append(h.kept, promise{fsys.Len(), n})
			}
		default:
			err = h.snapshots(d, fsys, rng)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

func (h *history) snapshots(d *Delta, fsys *crashfs.FS, rng *rand.Rand) error {
	ctx := context.Background()
	if live := d.Snapshots(); len(live) > 3 || len(live) > 0 && rng.IntN(2) == 0 {
		s := live[rng.IntN(len(live))]
		for _, k := range h.snaps {
			if k.id == s.ID && k.gone > fsys.Len() {
				k.gone = fsys.Len() + 1
			}
		}
		return d.DeleteSnapshot(ctx, s.ID)
	}
	n := len(h.changes)
	id, err := d.Snapshot(ctx, "some name")
	if err != nil {
		return err
	}
	h.kept = append(h.kept, promise{fsys.Len(), n})
	r, err := d.OpenSnapshot(ctx, id)
	if err != nil {
		return err
	}
	content, err := readSectors(r, nil, nil)
	h.snaps = append(h.snaps, &kept{id, fsys.Len(), 1 << 60, content})
	return err2(err, r.Close())
}

func err2(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// survive checks one state that a loss of power could leave.
func survive(fsys *crashfs.FS, below memory, hs []*history, moment int) error {
	if err := sound(fsys, path, 1<<60); err != nil {
		return err
	}
	d, err := Open(context.Background(), Config{FS: fsys, Path: path})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := sound(fsys, path, 0); err != nil {
		return fmt.Errorf("after opening: %w", err)
	}
	got, err := readSectors(below, d, below)
	if err != nil {
		return err
	}
	for _, h := range hs {
		for s, ids := range h.allowed(sectors(below), moment) {
			if s >= h.from && s < h.to && !slices.Contains(ids, got[s]) {
				return fmt.Errorf("sector %d (cluster %d) is %#x, may be %#x", s, s*sector>>clusterBits, got[s], ids)
			}
		}
	}
	return snapsSurvive(d, hs, moment)
}

func snapsSurvive(d *Delta, hs []*history, moment int) error {
	for _, h := range hs {
		for _, k := range h.snaps {
			if k.made > moment || k.gone <= moment {
				continue
			}
			r, err := d.OpenSnapshot(context.Background(), k.id)
			if err != nil {
				return err
			}
			got, err := readSectors(r, nil, nil)
			if err := err2(err, r.Close()); err != nil {
				return err
			}
			for s := range got {
				if got[s] != k.content[s] {
					return fmt.Errorf("snapshot %s: sector %d is %#x, want %#x", k.id, s, got[s], k.content[s])
				}
			}
		}
	}
	return nil
}

func stampedBase(size int) memory {
	base := make(memory, size)
	for i := 0; i+sector <= size*3/4; i += sector { // the rest is zero
		if i>>16&1 == 0 {
			stamp(base[i:i+sector], 1<<63|uint64(i/sector))
		}
	}
	return base
}

// TestPowerLoss cuts the power at random moments of random work, and again
// while the file is being mended.
func TestPowerLoss(t *testing.T) {
	rounds := soak(8)
	if testing.Short() {
		rounds = 3
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			powerLoss(t, uint64(seed), 1)
		})
	}
}

// TestPowerLossParallel does the same with several writers.
func TestPowerLossParallel(t *testing.T) {
	for seed := range soak(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			powerLoss(t, 100+uint64(seed), 4)
		})
	}
}

// comeAndGo makes snapshots and deletes them while others write.
func comeAndGo(t *testing.T, d *Delta, n int) {
	for range n {
		id, err := d.Snapshot(context.Background(), "x")
		if err == nil && len(d.Snapshots()) > 2 {
			err = d.DeleteSnapshot(context.Background(), id)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// slowFS takes its time to sync, so that others do something meanwhile.
type slowFS struct{ fs localfs.FS }

func (s slowFS) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	f, err := s.fs.Open(name, flag, mode)
	return slowFile{f}, err
}
func (s slowFS) Rename(a, b string) error                   { return s.fs.Rename(a, b) }
func (s slowFS) Remove(name string) error                   { return s.fs.Remove(name) }
func (s slowFS) SyncDir(name string) error                  { return s.fs.SyncDir(name) }
func (s slowFS) ReadDir(name string) ([]fs.DirEntry, error) { return s.fs.ReadDir(name) }

type slowFile struct{ f localfs.File }

func (s slowFile) ReadAt(p []byte, off int64) (int, error)  { return s.f.ReadAt(p, off) }
func (s slowFile) WriteAt(p []byte, off int64) (int, error) { return s.f.WriteAt(p, off) }
func (s slowFile) Truncate(size int64) error                { return s.f.Truncate(size) }
func (s slowFile) Close() error                             { return s.f.Close() }
func (s slowFile) Punch(off, n int64) error                 { return localfs.Punch(s.f, off, n) }
func (s slowFile) Size() (int64, error)                     { return localfs.Size(s.f) }

func (s slowFile) Sync() error {
	time.Sleep(300 * time.Microsecond)
	err := s.f.Sync()
	time.Sleep(300 * time.Microsecond)
	return err
}

func powerLoss(t *testing.T, seed uint64, workers int) {
	const size = 24*clusterSize + 3*sector
	rng := rand.New(rand.NewPCG(seed, 1))
	fsys := newFS(t)
	below := stampedBase(size)
	d := mustCreate(t, Config{FS: slowFS{fsys}, Size: size, CacheSize: 1})
	begin := fsys.Len()
	leaks := int64(0)
	if seed%3 == 1 { // little room before the second refcount block
		for i := int64(10 + seed%8); i < pageLen; i++ {
			d.refs.counts.add(i, 1)
			leaks++
		}
	}
	hs := make([]*history, workers)
	var wg sync.WaitGroup
	per := size / sector / workers
	for i := range hs {
		hs[i] = &history{from: i * per, to: (i + 1) * per}
		r := rand.New(rand.NewPCG(seed, uint64(i)+2))
		wg.Go(func() { hs[i].work(t, d, fsys, below, r, 120/workers, workers == 1) })
	}
	if workers > 1 {
		wg.Go(func() { comeAndGo(t, d, 12) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	n := 0
	for moment, state := range fsys.Crashes(rng, 40) {
		if moment < begin {
			continue
		}
		if err := survive(state, below, hs, moment); err != nil {
			t.Fatalf("state %d, after %d of %d operations: %v", n, moment, fsys.Len(), err)
		}
		if n++; n%10 != 0 {
			continue
		}
		for _, again := range state.Crashes(rng, 3) {
			if err := survive(again, below, hs, moment); err != nil {
				t.Fatalf("state %d, again: %v", n, err)
			}
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sound(fsys, path, leaks); err != nil {
		t.Fatal("after Close: ", err)
	}
}
