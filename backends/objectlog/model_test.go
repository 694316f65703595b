package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

const modelSize = 96<<10 + 300

// A machine does random things to a Log and to a slice of bytes, and compares.
// It keeps every state that the disk had since the last one that is certain, so
// that after a crash it can tell whether what is there is one of them.
type machine struct {
	*rig
	l     *Log
	want  []byte
	past  [][]byte // states since the last that the store is known to have, oldest first; the last one is want
	sure  int      // index in past of what the last flush acknowledged
	snaps map[string][]byte
	open  map[string]block.ReadCloser
	diffs map[string]*diffs
	id    byte
}

func (m *machine) span(t *rapid.T) (int64, int64) {
	unit := rapid.SampledFrom([]int64{1, 512, 4096}).Draw(t, "unit")
	off := rapid.Int64Range(0, modelSize/unit).Draw(t, "off") * unit
	n := rapid.Int64Range(0, min((modelSize-off)/unit, 8)).Draw(t, "n") * unit
	if rapid.IntRange(0, 19).Draw(t, "to the end") == 0 {
		n = modelSize - off
	}
	return off, n
}

// changed notes that the disk is another one now.
func (m *machine) changed() { m.past = append(m.past, slices.Clone(m.want)) }

// stored notes that the store has what is there now.
func (m *machine) stored() { m.past, m.sure = m.past[len(m.past)-1:], 0 }

func (m *machine) Write(t *rapid.T) {
	off, n := m.span(t)
	m.id++
	p := make([]byte, n)
	for i := range p {
		p[i] = m.id
	}
	if err := m.l.WriteAt(context.Background(), p, off); err != nil {
		t.Fatal(err)
	}
	copy(m.want[off:], p)
	m.changed()
}

func (m *machine) Zero(t *rapid.T) {
	off, n := m.span(t)
	mode := block.ZeroMode(rapid.IntRange(0, 2).Draw(t, "mode"))
	if err := m.l.Zero(context.Background(), off, n, mode); err != nil {
		t.Fatal(err)
	}
	clear(m.want[off : off+n])
	m.changed()
}

func (m *machine) Flush(t *rapid.T) {
	if err := m.l.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.sure = len(m.past) - 1
	if m.cfg.Durability == Store {
		m.stored()
	}
}

func (m *machine) Drain(t *rapid.T) {
	if err := m.l.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.stored()
	if m.heads.now().Dirty {
		t.Fatal("the head is dirty after Drain")
	}
	// What is cleaned meanwhile is gone at once here.
	err := fs.ErrNotExist
	for range 20 {
		if err = m.view(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		t.Fatal("as the store has it: ", err)
	}
}

func (m *machine) view() error {
	v, err := View(context.Background(), m.cfg, "")
	if err != nil {
		return err
	}
	return errors.Join(same(context.Background(), v, m.want), v.Close())
}

func (m *machine) Snapshot(t *rapid.T) {
	if len(m.snaps) > 5 {
		t.Skip("enough")
	}
	id, err := m.l.Snapshot(context.Background(), rapid.StringN(0, 20, 60).Draw(t, "name"))
	if err != nil {
		t.Fatal(err)
	}
	m.stored()
	m.snaps[id] = slices.Clone(m.want)
	m.diffs[id] = &diffs{m: m.changes(t, id)}
	if m.open[id], err = m.l.OpenSnapshot(context.Background(), id); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) DeleteSnapshot(t *rapid.T) {
	live := m.l.Snapshots()
	if len(live) == 0 {
		t.Skip("none")
	}
	id := rapid.SampledFrom(live).Draw(t, "snapshot").ID
	if r := m.open[id]; r != nil {
		if err := m.l.DeleteSnapshot(context.Background(), id); !errors.Is(err, syscall.EBUSY) {
			t.Fatal("deleted while open: ", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		delete(m.open, id)
	}
	if err := m.l.DeleteSnapshot(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := m.diffs[id].m.Extent(context.Background(), 0, modelSize); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("changes since a snapshot that was deleted: ", err)
	}
	delete(m.snaps, id)
	delete(m.diffs, id)
}

func (m *machine) Faults(t *rapid.T) {
	m.store.set(rapid.SampledFrom([]int{0, 5, 30}).Draw(t, "percent"), false)
}

func (m *machine) Sleep(*rapid.T) { time.Sleep(3 * time.Millisecond) }

// stop ends the log as the end of its process would.
func (m *machine) stop(t *rapid.T) {
	clear(m.open)
	if err := errors.Join(m.l.end(), m.l.lock.Close()); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) Reopen(t *rapid.T) {
	clear(m.open)
	if err := m.l.Close(); err != nil {
		t.Fatal(err)
	}
	m.again(t, false)
}

// again opens the log and looks which of the states is there.
func (m *machine) again(t *rapid.T, loss bool) {
	cfg := m.config()
	cfg.AcceptLoss = loss
	var err error
	if m.l, err = Open(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, modelSize)
	if err := m.l.ReadAt(context.Background(), got, 0); err != nil {
		t.Fatal(err)
	}
	for i := len(m.past) - 1; i >= m.sure; i-- {
		if slices.Equal(got, m.past[i]) {
			m.want, m.past = got, m.past[:i+1]
			for id, k := range m.diffs {
				k.m = m.changes(t, id)
			}
			return
		}
	}
	t.Fatalf("after a crash the disk is none of the %d states that it had since the last flush; byte %d is %d, was %d",
		len(m.past)-m.sure, diff(got, m.want), got[diff(got, m.want)], m.want[diff(got, m.want)])
}

func (m *machine) Crash(t *rapid.T) {
	m.stop(t)
	m.again(t, false)
}

// PowerLoss leaves one of the states that the disk of the journal can have.
func (m *machine) PowerLoss(t *rapid.T) {
	seed := rapid.Uint64().Draw(t, "seed")
	var after *crashfs.FS
	for _, after = range m.fs.CrashesNow(rand.New(rand.NewPCG(seed, 1)), 1) {
	}
	m.stop(t)
	m.fs = after
	m.again(t, false)
}

// DiskLost takes the journal away. The states since the last that the store is
// known to have may come back.
func (m *machine) DiskLost(t *rapid.T) {
	m.stop(t)
	m.fs = crashfs.New()
	if err := errors.Join(m.fs.Mkdir("d", 0), m.fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	switch {
	case m.heads.now().Dirty:
		var loss *LossError
		if _, err := Open(context.Background(), m.config()); !errors.As(err, &loss) {
			t.Fatal("opened without its journal: ", err)
		}
		m.sure = 0 // the loss is accepted
		m.again(t, true)
	default:
		m.again(t, false)
	}
	m.stored()
}

func (m *machine) Check(t *rapid.T) {
	if err := same(context.Background(), m.l, m.want); err != nil {
		t.Fatal(err)
	}
	for id, want := range m.snaps {
		m.diffs[id].check(t, want, m.want)
		if r := m.open[id]; r != nil {
			if err := same(context.Background(), r, want); err != nil {
				t.Fatalf("snapshot %s: %v", id, err)
			}
			continue
		}
		v, err := View(context.Background(), m.cfg, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(same(context.Background(), v, want), v.Close()); err != nil {
			t.Fatalf("snapshot %s: %v", id, err)
		}
	}
	if n := len(m.l.Snapshots()); n != len(m.snaps) {
		t.Fatalf("%d snapshots, want %d", n, len(m.snaps))
	}
}

func runModel(t *rapid.T, r *rig) {
	m := &machine{rig: r, want: make([]byte, modelSize), snaps: map[string][]byte{}, open: map[string]block.ReadCloser{}, diffs: map[string]*diffs{}}
	m.changed()
	var err error
	if m.l, err = Create(context.Background(), m.config()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if m.l != nil {
			m.l.Close()
		}
	}()
	t.Repeat(map[string]func(*rapid.T){
		"": m.Check, "write": m.Write, "write2": m.Write, "write3": m.Write, "zero": m.Zero, "flush": m.Flush, "drain": m.Drain,
		"snapshot": m.Snapshot, "delete snapshot": m.DeleteSnapshot, "faults": m.Faults, "sleep": m.Sleep,
		"reopen": m.Reopen, "crash": m.Crash, "power loss": m.PowerLoss, "disk lost": m.DiskLost,
	})
	m.store.set(0, false)
	m.Drain(t)
	if err := r.leaks(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestModel(t *testing.T) {
	for _, durability := range []Durability{Gateway, Store} {
		t.Run(fmt.Sprint(durability), func(t *testing.T) {
			for range soak(1) {
				rapid.Check(t, func(rt *rapid.T) {
					r := newRig(t, modelSize)
					r.cfg.Durability, r.cfg.SegmentSize = durability, 8<<10
					runModel(rt, r)
				})
			}
		})
	}
}
