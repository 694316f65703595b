package objectlog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

func write(t testing.TB, l *Log, b byte, off int64) {
	t.Helper()
	if err := l.WriteAt(t.Context(), fill(4096, b), off); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// other is a second gateway: the same store and catalog, a disk of its own.
func (r *rig) other(t testing.TB) *rig {
	o := *r
	o.fs = newFS(t)
	return &o
}

func TestTakeover(t *testing.T) {
	r := newRig(t, 64<<10)
	r.cfg.MaxAge = time.Hour
	a := r.create(t)
	write(t, a, 1, 0)
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, a, 2, 0)
	flush(t, a)
	if !r.heads.now().Dirty {
		t.Fatal("a flush was acknowledged, and the head is not dirty")
	}

	two := r.other(t)
	var loss *LossError
	if _, err := Open(t.Context(), two.config()); !errors.As(err, &loss) {
		t.Fatal("opened without the journal: ", err)
	}
	cfg := two.config()
	cfg.AcceptLoss = true
	b, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, b)[0]; got != 1 {
		t.Errorf("the second gateway reads %d, want 1", got)
	}
	write(t, b, 3, 0)
	flush(t, b)

	// The first one finds out at its next commit.
	write(t, a, 4, 0)
	if err := a.Drain(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("Drain of the first = %v, want ErrFenced", err)
	}
	if err := a.Flush(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("Flush of the first = %v, want ErrFenced", err)
	}
	if err := a.WriteAt(t.Context(), fill(1, 5), 0); !errors.Is(err, ErrFenced) {
		t.Errorf("WriteAt of the first = %v, want ErrFenced", err)
	}
	if err := a.Err(); !errors.Is(err, ErrFenced) {
		t.Errorf("Err of the first = %v, want ErrFenced", err)
	}
	closeLog(t, a)
	if err := b.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, b)

	// Back on the first gateway its journal is set aside.
	a = r.open(t)
	if got := content(t, a)[0]; got != 3 {
		t.Errorf("back on the first gateway: %d, want 3", got)
	}
	if aside := a.Stats().SetAside; len(aside) != 1 || !strings.Contains(aside[0], asideDir) {
		t.Errorf("set aside: %q", aside)
	}
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, a)
	if err := Remove(t.Context(), Config{ID: r.cfg.ID, FS: r.fs, Dir: r.cfg.Dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.fs.ReadDir(r.cfg.Dir); err == nil {
		t.Error("the folder is still there after Remove")
	}
}

// A journal that holds nothing that the store has not is not worth keeping.
func TestWorthlessJournal(t *testing.T) {
	r := newRig(t, 64<<10)
	a := r.create(t)
	write(t, a, 1, 0)
	if err := errors.Join(a.Drain(t.Context()), a.end(), a.lock.Close()); err != nil {
		t.Fatal(err)
	}
	b := r.other(t).open(t)
	write(t, b, 2, 0)
	if err := b.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, b)
	a = r.open(t)
	if aside := a.Stats().SetAside; len(aside) != 0 {
		t.Errorf("set aside: %q", aside)
	}
	entries, err := r.fs.ReadDir(r.cfg.Dir)
	if err != nil || len(entries) != 2 { // the other is the lock
		t.Errorf("%d journals, %v", len(entries), err)
	}
	closeLog(t, a)
}

// What was written, but never flushed, must not come back after another
// gateway had the disk without it.
func TestUnflushedDoesNotReturn(t *testing.T) {
	r := newRig(t, 64<<10)
	r.cfg.MaxAge, r.cfg.Durability = time.Hour, Store
	a := r.create(t)
	write(t, a, 1, 0) // acknowledged, not flushed
	closeLog(t, a)
	b := r.other(t).open(t)
	if got := content(t, b)[0]; got != 0 {
		t.Fatalf("%d", got)
	}
	closeLog(t, b)
	a = r.open(t)
	if got := content(t, a)[0]; got != 0 {
		t.Errorf("a write that another gateway did not have came back: %d", got)
	}
	closeLog(t, a)
}

func TestEpochs(t *testing.T) {
	r := newRig(t, 64<<10)
	if _, err := Open(t.Context(), r.config()); err == nil {
		t.Error("opened what was never made")
	}
	l := r.create(t)
	closeLog(t, l)
	cfg := r.config()
	if _, err := Create(t.Context(), cfg); err == nil {
		t.Error("made what is there")
	}
	old := cfg
	old.Epoch = 1
	if _, err := Open(t.Context(), old); err == nil {
		t.Error("opened with an epoch that was used")
	}
	l = r.open(t)
	closeLog(t, l)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrFenced) {
		t.Errorf("opened with an epoch that is over: %v", err)
	}
}

// Whoever writes under our epoch is not us, whatever the catalog says.
func TestTakenName(t *testing.T) {
	r := newRig(t, 64<<10)
	l := r.create(t)
	putObject(t, r.mem, segmentKey(r.cfg.Prefix, 1, 1), []byte("something else"))
	write(t, l, 1, 0)
	if err := l.Drain(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("Drain = %v, want ErrFenced", err)
	}
	closeLog(t, l)
}

// A writer that stops between any two steps, while the overlay is taken by
// another gateway, goes on afterwards: nothing that it then does may be seen.
func TestPausedWriter(t *testing.T) {
	for n := 1; ; n++ {
		if !pauseAt(t, n) {
			if n < 20 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
}

// writeThree opens a log, writes to it three times and tells which flush was
// acknowledged last.
func writeThree(cfg Config, acked *byte) {
	a, err := Open(context.Background(), cfg)
	if err != nil {
		return
	}
	defer a.Close()
	for i := byte(1); i <= 3; i++ {
		if a.WriteAt(context.Background(), fill(4096, i), 0) != nil || a.Flush(context.Background()) != nil {
			return
		}
		*acked = i
	}
	_ = a.Drain(context.Background()) // it is over if that fails
}

func pauseAt(t *testing.T, n int) bool {
	r := newRig(t, 64<<10)
	r.cfg.MaxAge = time.Millisecond
	a := r.create(t)
	closeLog(t, a)
	var mu sync.Mutex
	steps := 0
	paused, resume := make(chan struct{}), make(chan struct{})
	cfg := r.config()
	cfg.Steps = func(ctx context.Context, step string) error {
		mu.Lock()
		steps++
		here := steps == n
		mu.Unlock()
		if here {
			close(paused)
			<-resume
		}
		return nil
	}
	acked := byte(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		writeThree(cfg, &acked)
	}()
	reached, accepted := true, false
	select {
	case <-paused:
	case <-done:
		reached = false
	}
	two := r.other(t)
	b, err := Open(t.Context(), two.config())
	var loss *LossError
	if errors.As(err, &loss) {
		cfg := two.config()
		cfg.AcceptLoss, accepted = true, true
		b, err = Open(t.Context(), cfg)
	} else if err == nil && !reached && content(t, b)[0] != acked {
		t.Fatalf("step %d: the disk has %d, want %d", n, content(t, b)[0], acked)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := content(t, b)
	write(t, b, 99, 8192)
	flush(t, b)
	close(resume)
	if !reached {
		closeLog(t, b)
		return false
	}
	<-done
	if !accepted && acked > before[0] {
		t.Fatalf("step %d: flush %d was acknowledged, and the second gateway found %d", n, acked, before[0])
	}
	if err := b.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	copy(before[8192:], fill(4096, 99))
	if err := same(t.Context(), b, before); err != nil {
		t.Fatalf("step %d: after the first writer went on: %v", n, err)
	}
	closeLog(t, b)
	b = two.open(t)
	if err := same(t.Context(), b, before); err != nil {
		t.Fatalf("step %d: opened again: %v", n, err)
	}
	closeLog(t, b)
	return true
}

// TestOneAtATime needs a file system that has locks.
func TestOneAtATime(t *testing.T) {
	r := newRig(t, 64<<10)
	r.cfg.Dir = t.TempDir()
	cfg := r.config()
	cfg.FS = nil
	l, err := Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Epoch = r.heads.take()
	if _, err := Open(t.Context(), cfg); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("opened twice: %v", err)
	}
	closeLog(t, l)
	cfg.Epoch = r.heads.take()
	if l, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}

func TestLostAnswers(t *testing.T) {
	r := newRig(t, 64<<10)
	n := 0
	r.heads.fault = func() (bool, bool) { n++; return n%3 == 1, n%3 == 2 }
	l, err := Create(t.Context(), r.config())
	for err != nil {
		if !errors.Is(err, errFlaky) {
			t.Fatal(err)
		}
		cfg := r.config()
		if len(r.heads.now().State) > 0 {
			l, err = Open(t.Context(), cfg)
		} else {
			l, err = Create(t.Context(), cfg)
		}
	}
	r.store.set(40, false)
	for i := range 40 {
		write(t, l, byte(i+1), int64(i%16)*4096)
		if i%5 == 0 {
			flush(t, l)
		}
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := content(t, l)
	closeLog(t, l)
	r.heads.fault = nil
	l = r.open(t)
	if err := same(t.Context(), l, want); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	if err := r.leaks(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGate: nothing is acknowledged while it is in doubt whose the disk is.
func TestGate(t *testing.T) {
	r := newRig(t, 64<<10)
	cfg := r.config()
	var shut error
	cfg.Gate = func(context.Context) error { return shut }
	l, err := Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	write(t, l, 1, 0)
	if err := l.Discard(t.Context(), 8192, 4096); err != nil {
		t.Fatal(err)
	}
	shut = errors.New("in doubt")
	if err := l.WriteAt(t.Context(), fill(1, 2), 0); !errors.Is(err, shut) {
		t.Errorf("WriteAt = %v", err)
	}
	if err := l.Flush(t.Context()); !errors.Is(err, shut) {
		t.Errorf("Flush = %v", err)
	}
	for _, off := range []int64{4096, 8192} { // the latter is zeros already
		if err := l.Discard(t.Context(), off, 4096); !errors.Is(err, shut) {
			t.Errorf("Discard at %d = %v", off, err)
		}
	}
	closeLog(t, l)
}

func TestObjects(t *testing.T) {
	r := newRig(t, 256<<10)
	r.cfg.SegmentSize = 16 << 10
	l := r.create(t)
	for i := range 64 {
		write(t, l, byte(i), int64(i)*4096)
	}
	if _, err := l.Snapshot(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	keys, err := Objects(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range r.mem.List(t.Context()) {
		if err != nil || !slices.Contains(keys, e.Key) {
			t.Errorf("%s is not listed: %v", e.Key, err)
		}
	}
}

// Another gateway took the overlay with its loss accepted and died before it
// came to say so in a head: only the record of the overlay knows.
func TestHeldSince(t *testing.T) {
	r := newRig(t, 64<<10)
	r.cfg.MaxAge = time.Hour
	a := r.create(t)
	write(t, a, 1, 0)
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, a, 2, 0)
	flush(t, a)
	if err := errors.Join(a.end(), a.lock.Close()); err != nil { // a crash
		t.Fatal(err)
	}
	r.config() // the epoch of the other one
	cfg := r.config()
	cfg.HeldSince = cfg.Epoch
	a, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, a)
	if got := content(t, a)[0]; got != 1 {
		t.Errorf("the disk has %d, want 1: an older journal was replayed", got)
	}
	if aside := a.Stats().SetAside; len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
}

// A journal that cannot be believed keeps nobody from the rest of the disk, if
// its loss is accepted.
func TestDamagedJournal(t *testing.T) {
	r := newRig(t, 64<<10)
	r.cfg.MaxAge = time.Hour
	a := r.create(t)
	write(t, a, 1, 0)
	if err := a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, a, 2, 0)
	flush(t, a)
	dir := a.cfg.journal(journalDir, a.head.journal)
	if err := errors.Join(a.end(), a.lock.Close()); err != nil {
		t.Fatal(err)
	}
	entries, err := r.fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := r.fs.Open(filepath.Join(dir, e.Name()), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := localfs.Size(f)
		if err != nil {
			t.Fatal(err)
		}
		if size > 8192 { // a file of records; its header stays
			if _, err := f.WriteAt(fill(int(size)-4096, 0xa5), 4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var loss *LossError
	if _, err := Open(t.Context(), r.config()); !errors.As(err, &loss) {
		t.Fatalf("opened with a damaged journal: %v", err)
	}
	cfg := r.config()
	cfg.AcceptLoss = true
	if a, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, a)
	if got := content(t, a)[0]; got != 1 {
		t.Errorf("the disk has %d, want 1", got)
	}
}
