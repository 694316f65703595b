package objectlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/mem"
)

const sector = 512

// A worker writes to its own part of the disk and knows what was promised.
type worker struct {
	from, to int // sectors
	changes  []change
	sure     int // how many changes a flush covered
}

// A change makes sectors those of write id, 0 being zeros.
type change struct {
	from, to int
	id       uint64
}

func stamp(p []byte, id uint64) []byte {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], id)
	}
	return p
}

// work does random things until somebody stops it.
func (w *worker) work(ctx context.Context, l *Log, rng *rand.Rand) {
	for i := uint64(1); ctx.Err() == nil; i++ {
		a := w.from + rng.IntN(w.to-w.from)
		b := a + 1 + rng.IntN(min(w.to-a, []int{1, 8, 40}[rng.IntN(3)]))
		c := change{a, b, uint64(w.from)<<32 | i}
		var err error
		switch rng.IntN(8) {
		case 0:
			n := len(w.changes)
			if err = l.Flush(ctx); err == nil {
				w.sure = n
			}
		case 1:
			c.id = 0
			w.changes = append(w.changes, c)
			err = l.Zero(ctx, int64(a)*sector, int64(b-a)*sector, block.ZeroAny)
		default:
			w.changes = append(w.changes, c)
			err = l.WriteAt(ctx, stamp(make([]byte, (b-a)*sector), c.id), int64(a)*sector)
		}
		if err != nil {
			return
		}
	}
}

// survived is an error unless what is on the disk is what it was after some
// change, and no earlier one than least.
func (w *worker) survived(disk []byte, least int) error {
	now := make([]uint64, w.to-w.from)
	got := make([]uint64, len(now))
	for i := range got {
		p := disk[(w.from+i)*sector:][:sector]
		got[i] = binary.LittleEndian.Uint64(p)
		if string(p) != string(stamp(make([]byte, sector), got[i])) {
			return fmt.Errorf("sector %d is torn", w.from+i)
		}
	}
	for n := 0; ; n++ {
		if n >= least && slices.Equal(now, got) {
			return nil
		}
		if n == len(w.changes) {
			return fmt.Errorf("sectors %d to %d are as after none of the changes %d to %d", w.from, w.to, least, n)
		}
		for s := w.changes[n].from; s < w.changes[n].to; s++ {
			now[s-w.from] = w.changes[n].id
		}
	}
}

// frozen lets nothing change any more.
func (r *rig) freeze() {
	r.store.set(0, true)
	r.heads.mu.Lock()
	defer r.heads.mu.Unlock()
	r.heads.fault = func() (bool, bool) { return true, false }
}

// clone is the same world once more, with another file system.
func (r *rig) clone(t testing.TB, fsys *crashfs.FS) *rig {
	t.Helper()
	ctx := context.Background()
	c := &rig{fs: fsys, mem: mem.New(), cfg: r.cfg}
	for e, err := range r.mem.List(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		o, err := r.mem.Open(ctx, e.Key)
		if err != nil {
			t.Fatal(err)
		}
		p := content(t, o)
		o.Close()
		putObject(t, c.mem, e.Key, p)
	}
	c.store = &flaky{store: c.mem, rng: rand.New(rand.NewPCG(1, 2))}
	c.heads = &catalog{store: c.mem, epoch: r.heads.epoch, head: r.heads.now(), last: r.heads.last}
	c.cfg.Store, c.cfg.Heads = c.store, c.heads
	return c
}

func putObject(t testing.TB, s *mem.Store, key string, p []byte) {
	t.Helper()
	w, err := s.Create(context.Background(), key, int64(len(p)))
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Commit(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss stops the world under parallel writers, and opens the log again
// in each of many states that the disk of the journal may be in, and without
// it.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(soak(4)) {
		for _, durability := range []Durability{Gateway, Store} {
			t.Run(fmt.Sprint(seed, durability), func(t *testing.T) {
				t.Parallel()
				powerLoss(t, seed, durability)
			})
		}
	}
}

func powerLoss(t *testing.T, seed uint64, durability Durability) {
	const size, workers = 512 << 10, 4
	r := newRig(t, size)
	r.cfg.Durability, r.cfg.SegmentSize = durability, 16<<10
	rng := rand.New(rand.NewPCG(seed, 7))
	l := r.create(t)
	ctx, stop := context.WithCancel(t.Context())
	ws := make([]*worker, workers)
	var wg sync.WaitGroup
	for i := range ws {
		per := size / sector / workers
		ws[i] = &worker{from: i * per, to: (i + 1) * per}
		own := rand.New(rand.NewPCG(seed, uint64(i)+9))
		wg.Go(func() { ws[i].work(ctx, l, own) })
	}
	time.Sleep(time.Duration(20+rng.IntN(60)) * time.Millisecond)
	r.freeze()
	time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
	stop()
	wg.Wait()
	l.fail(errors.New("power lost"))
	l.wg.Wait()
	for i, state := range r.fs.CrashesNow(rng, 12) {
		if err := r.clone(t, state).survive(t, ws, false); err != nil {
			t.Fatalf("state %d: %v", i, err)
		}
	}
	if err := r.clone(t, newFS(t)).survive(t, ws, true); err != nil {
		t.Fatalf("without the journal: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) survive(t *testing.T, ws []*worker, lost bool) error {
	cfg := r.config()
	cfg.AcceptLoss = lost
	l, err := Open(t.Context(), cfg)
	if err != nil {
		return err
	}
	disk := content(t, l)
	for _, w := range ws {
		least := w.sure
		if lost && cfg.Durability == Gateway {
			least = 0
		}
		if err := w.survived(disk, least); err != nil {
			return err
		}
	}
	if err := l.Drain(t.Context()); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return r.leaks(t.Context())
}

// TestEveryStep ends the log at every step of a little work, and looks what is
// there afterwards.
func TestEveryStep(t *testing.T) {
	for _, durability := range []Durability{Gateway, Store} {
		for n := 1; ; n++ {
			ended, err := stopAt(t, durability, n)
			if err != nil {
				t.Fatalf("%v durability, stopped at step %d: %v", durability, n, err)
			}
			if !ended {
				if n < 60 {
					t.Errorf("only %d steps", n)
				}
				break
			}
		}
	}
}

var errStopped = errors.New("stopped")

// stopAt tells whether there was an n-th step.
func stopAt(t *testing.T, durability Durability, n int) (ended bool, err error) {
	r := newRig(t, 64<<10)
	r.cfg.Durability, r.cfg.SegmentSize, r.cfg.MaxAge = durability, 16<<10, time.Hour
	var mu sync.Mutex
	steps := 0
	cfg := r.config()
	cfg.Steps = func(context.Context, string) error {
		mu.Lock()
		defer mu.Unlock()
		if steps++; steps >= n {
			return errStopped
		}
		return nil
	}
	w := &worker{from: 0, to: 128}
	if l, err := Create(t.Context(), cfg); err == nil {
		littleWork(t.Context(), l, w)
		if err := l.Close(); err != nil {
			return true, err
		}
	}
	mu.Lock()
	ended = steps >= n
	mu.Unlock()
	if len(r.heads.now().State) == 0 {
		return ended, nil // it was not even made
	}
	for _, lost := range []bool{false, true} {
		c := r.clone(t, r.fs)
		if lost {
			c.fs = newFS(t)
		}
		if err := c.survive(t, []*worker{w}, lost); err != nil {
			return ended, fmt.Errorf("journal lost: %v: %w", lost, err)
		}
	}
	return ended, nil
}

func littleWork(ctx context.Context, l *Log, w *worker) {
	for i := range 6 {
		for k := range 12 {
			c := change{(i*20 + k*7) % 128, (i*20+k*7)%128 + 1, uint64(i*100 + k + 1)}
			w.changes = append(w.changes, c)
			if l.WriteAt(ctx, stamp(make([]byte, sector), c.id), int64(c.from)*sector) != nil {
				return
			}
		}
		var err error
		switch i {
		case 2:
			_, err = l.Snapshot(ctx, "x")
		case 4:
			if err = l.DeleteSnapshot(ctx, "1"); err == nil {
				err = l.Flush(ctx)
			}
		case 5:
			err = l.Drain(ctx)
		default:
			err = l.Flush(ctx)
		}
		if err != nil {
			return
		}
		w.sure = len(w.changes)
	}
}
