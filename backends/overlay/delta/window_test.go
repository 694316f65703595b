package delta

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// deleteWith is DeleteSnapshot that calls f where others may write again and
// the disk still has the snapshot.
func (d *Delta) deleteWith(ctx context.Context, id string, f func()) error {
	s, err := d.claimSnapshot(id)
	if err != nil {
		return err
	}
	return d.exclusive(ctx, func(release func()) (*rewrite, error) {
		w := d.newRewrite(false, func() { release(); f() })
		w.snaps = slices.DeleteFunc(w.snaps, func(x *snapshot) bool { return x == s })
		return w, w.dropTree(s)
	})
}

// TestWriteWhileDeleting: a write to a cluster that is ours alone once the
// snapshot is gone must not change the snapshot as long as a crash can bring
// it back.
func TestWriteWhileDeleting(t *testing.T) {
	const size = 8 * clusterSize
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: size})
	before := bytes.Repeat([]byte{1}, size)
	if err := d.WriteAt(t.Context(), before[:6*clusterSize], 0); err != nil {
		t.Fatal(err)
	}
	clear(before[6*clusterSize:])
	id, err := d.Snapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	begin, after, used := fsys.Len(), slices.Clone(before), d.Usage()
	write := func(b byte, off, n int64) {
		t.Helper()
		p := bytes.Repeat([]byte{b}, int(n))
		if err := d.WriteAt(t.Context(), p, off); err != nil {
			t.Error(err)
		}
		copy(after[off:], p)
	}
	err = d.deleteWith(t.Context(), id, func() {
		write(2, 4096, 8192)                  // copies the cluster
		write(3, 4096, 4096)                  // in place, in the copy
		write(2, clusterSize-100, 200)        // two of them
		write(2, 3*clusterSize, clusterSize)  // whole
		write(2, 7*clusterSize+5000, 100_000) // new
		if err := d.Zero(t.Context(), 4*clusterSize, clusterSize, block.ZeroAny); err != nil {
			t.Error(err)
		}
		if err := d.Zero(t.Context(), 5*clusterSize, 8192, block.ZeroAny); err != nil {
			t.Error(err)
		}
		clear(after[4*clusterSize : 5*clusterSize+8192])
	})
	if err != nil {
		t.Fatal(err)
	}
	if d.frozen != nil {
		t.Error("still frozen")
	}
	if err := same(t.Context(), d, after); err != nil {
		t.Error(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	there := 0
	for moment, state := range fsys.Crashes(rng, 300) {
		if moment < begin {
			continue
		}
		if err := sound(state, path, 1<<60); err != nil {
			t.Fatal(moment, err)
		}
		again := mustOpen(t, Config{FS: state})
		if r, err := again.OpenSnapshot(t.Context(), id); err == nil {
			there++
			if err := same(t.Context(), r, before); err != nil {
				t.Fatalf("the snapshot, after a crash at %d: %v", moment, err)
			}
		}
		if err := same(t.Context(), again, before); err != nil {
			t.Fatalf("the disk, after a crash at %d, of which nothing was flushed: %v", moment, err)
		}
	}
	if there == 0 {
		t.Error("no crash came before the end")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sound(fsys, path, 0); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, Config{FS: fsys})
	if err := same(t.Context(), again, after); err != nil {
		t.Fatal(err)
	}
	if n := again.Usage(); n > d.Usage() || d.Usage() > used {
		t.Errorf("usage %d, with the snapshot %d, opened again %d", d.Usage(), used, n)
	}
}

// stuck is a base that answers when it is told to.
type stuck struct {
	memory
	once          *sync.Once
	asked, answer chan struct{}
}

func (s stuck) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.once.Do(func() { close(s.asked) })
	<-s.answer
	return s.memory.ReadAt(ctx, p, off)
}

// TestThawWaits: who copies a cluster because it was not ours, and who writes
// to it in place because it is, must not meet.
func TestThawWaits(t *testing.T) {
	d := mustCreate(t, Config{FS: newFS(t), Size: clusterSize})
	if err := d.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 4096), 0); err != nil {
		t.Fatal(err)
	}
	id, err := d.Snapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	base := stuck{make(memory, clusterSize), new(sync.Once), make(chan struct{}), make(chan struct{})}
	slow, gone, quick := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		gone <- d.deleteWith(context.Background(), id, func() {
			go func() { slow <- d.WriteOver(context.Background(), base, bytes.Repeat([]byte{2}, 4096), 100) }()
			<-base.asked // it has read what it copies, and waits for the base
		})
	}()
	<-base.asked
	for len(d.Snapshots()) > 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	go func() { quick <- d.WriteOver(context.Background(), base.memory, []byte{3}, 5) }()
	time.Sleep(10 * time.Millisecond)
	close(base.answer)
	for _, c := range []chan error{slow, gone, quick} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	p := make([]byte, 1)
	if err := d.ReadAt(t.Context(), p, 5); err != nil || p[0] != 3 {
		t.Errorf("an acknowledged write is lost: %d, %v", p[0], err)
	}
	if err := d.ReadAt(t.Context(), p, 4096+50); err != nil || p[0] != 2 {
		t.Errorf("an acknowledged write is lost: %d, %v", p[0], err)
	}
}

// haltFS lets a read of a file wait: the next after halt is set.
type haltFS struct {
	localfs.FS
	halt          *atomic.Bool
	reached, goOn chan struct{}
}

func (h haltFS) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	f, err := h.FS.Open(name, flag, mode)
	return haltFile{f, h}, err
}

type haltFile struct {
	localfs.File
	h haltFS
}

func (f haltFile) ReadAt(p []byte, off int64) (int, error) {
	if f.h.halt.Swap(false) {
		close(f.h.reached)
		<-f.h.goOn
	}
	return f.File.ReadAt(p, off)
}

// TestSlowReader: a place is not used again while somebody who looked it up
// before is on the way to read it.
func TestSlowReader(t *testing.T) {
	t.Run("data", func(t *testing.T) {
		slowReader(t, true, func(d *Delta) error {
			return errors.Join(d.Discard(context.Background(), 0, clusterSize), d.Flush(context.Background()))
		})
	})
	t.Run("table", func(t *testing.T) {
		slowReader(t, false, func(d *Delta) error {
			return d.DeleteSnapshot(context.Background(), d.Snapshots()[0].ID)
		})
	})
}

// slowReader lets a read wait while free is called: for the data, if the
// mapping is known, or else for the mapping.
func slowReader(t *testing.T, known bool, free func(*Delta) error) {
	h := haltFS{newFS(t), new(atomic.Bool), make(chan struct{}), make(chan struct{})}
	d := mustCreate(t, Config{FS: h, Size: 4 * clusterSize})
	old := bytes.Repeat([]byte{1}, clusterSize)
	if err := d.WriteAt(t.Context(), old, 0); err != nil {
		t.Fatal(err)
	}
	if !known {
		if _, err := d.Snapshot(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, Config{FS: h})
	got := make([]byte, clusterSize)
	if known {
		if err := d.ReadAt(t.Context(), got[:1], 0); err != nil {
			t.Fatal(err)
		}
	}
	h.halt.Store(true)
	read, freed := make(chan error, 1), make(chan error, 1)
	go func() { read <- d.ReadAt(context.Background(), got, 0) }()
	<-h.reached
	go func() { freed <- free(d) }()
	select {
	case err := <-freed:
		t.Error("freed what somebody reads: ", err)
		freed <- nil
	case <-time.After(20 * time.Millisecond):
	}
	for c := range int64(3) {
		if err := d.WriteAt(t.Context(), bytes.Repeat([]byte{2}, clusterSize), (c+1)*clusterSize); err != nil {
			t.Fatal(err)
		}
	}
	close(h.goOn)
	if err := <-read; err != nil || !bytes.Equal(got, old) {
		t.Errorf("read %d, %v: not what was there", got[0], err)
	}
	if err := <-freed; err != nil {
		t.Error(err)
	}
}
