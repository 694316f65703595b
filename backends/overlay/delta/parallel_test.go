package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// TestParallel has writers that own every fourth sector, so that they meet in
// each subcluster, with readers, flushes and snapshots between them. Each
// writer knows what it must read, in the disk and in each snapshot.
func TestParallel(t *testing.T) {
	const size, writers = 4 * clusterSize, 4
	fsys := newFS(t)
	below := make(memory, size)
	stamp(below, 1<<40)
	d := mustCreate(t, Config{FS: fsys, Size: size, CacheSize: 1})
	ctx, stop := context.WithCancel(t.Context())
	var side, main sync.WaitGroup
	side.Go(func() { snapAndFlush(t, ctx, d) })
	side.Go(func() { readAround(t, ctx, d, below) })
	for w := range writers {
		main.Go(func() { ownSectors(t, d, below, w, writers, 400) })
	}
	main.Wait()
	stop()
	side.Wait()
	for _, s := range d.Snapshots() {
		if err := d.DeleteSnapshot(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sound(fsys, path, 0); err != nil {
		t.Fatal(err)
	}
}

func ownSectors(t *testing.T, d *Delta, below block.Reader, w, writers, n int) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(5, uint64(w)))
	mine := map[int64]uint64{}
	p := make([]byte, sector)
	for i := range n {
		off := (rng.Int64N(d.Size()/sector/int64(writers))*int64(writers) + int64(w)) * sector
		id := uint64(w+1)<<32 | uint64(i+1)
		var err error
		if rng.IntN(4) == 0 {
			id = 0
			err = d.ZeroOver(ctx, below, off, sector, block.ZeroAny)
		} else {
			err = d.WriteOver(ctx, below, stamp(p, id), off)
		}
		if err != nil {
			t.Error(err)
			return
		}
		mine[off] = id
		for off, want := range mine {
			if err := d.ReadOver(ctx, below, p, off); err != nil || sectors(p)[0] != want {
				t.Errorf("sector %d of writer %d is %#x, want %#x (%v)", off/sector, w, sectors(p)[0], want, err)
				return
			}
			if rng.IntN(8) == 0 {
				break
			}
		}
	}
}

func snapAndFlush(t *testing.T, ctx context.Context, d *Delta) {
	bg := context.Background()
	for i := 0; ctx.Err() == nil; i++ {
		if err := d.Flush(bg); err != nil {
			t.Error(err)
		}
		id, err := d.Snapshot(bg, fmt.Sprint(i))
		if err != nil {
			t.Error(err)
			return
		}
		if err := twice(d, id); err != nil {
			t.Error(err)
		}
		if i%3 != 0 {
			err = d.DeleteSnapshot(bg, id)
		}
		if s := d.Snapshots(); len(s) > 4 {
			err = errors.Join(err, d.DeleteSnapshot(bg, s[0].ID))
		}
		if err != nil {
			t.Error(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// twice reads a snapshot two times, between which the disk changes.
func twice(d *Delta, id string) error {
	r, err := d.OpenSnapshot(context.Background(), id)
	if err != nil {
		return err
	}
	a, b := make([]byte, r.Size()), make([]byte, r.Size())
	err = errors.Join(r.ReadAt(context.Background(), a, 0), r.ReadAt(context.Background(), b, 0))
	if !bytes.Equal(a, b) {
		err = errors.Join(err, fmt.Errorf("snapshot %s changes", id))
	}
	return errors.Join(err, r.Close())
}

// readAround reads everything: each sector is of one write.
func readAround(t *testing.T, ctx context.Context, d *Delta, below block.Reader) {
	p := make([]byte, d.Size())
	for ctx.Err() == nil {
		off := rand.Int64N(d.Size()/sector) * sector
		if err := d.ReadOver(context.Background(), below, p[off:], off); err != nil {
			t.Error(err)
			return
		}
		for s, id := range sectors(p[off:]) {
			if id != 0 && id != 1<<40 && id>>32 > 4 {
				t.Errorf("sector %d is %#x, which nobody wrote", s, id)
				return
			}
		}
		if _, err := d.Extent(context.Background(), off, d.Size()-off); err != nil {
			t.Error(err)
		}
	}
}

func TestGrace(t *testing.T) {
	var g grace
	turn := g.enter()
	done := make(chan struct{})
	go func() { g.wait(); close(done) }()
	for g.turn.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	g.leave(g.enter()) // one that comes later holds nobody up
	select {
	case <-done:
		t.Fatal("did not wait")
	case <-time.After(5 * time.Millisecond):
	}
	g.leave(turn)
	<-done
}
