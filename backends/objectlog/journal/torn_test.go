package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// TestTornAtPageEnd loses the last record of a page and keeps the first of the
// next, which looks like the one that comes after a Sync.
func TestTornAtPageEnd(t *testing.T) {
	fsys := crashfs.New()
	j := create(t, crashConfig(fsys))
	begun := fsys.Len()
	m := &model{trims: []promise{{0, j.Stats().Start}}}
	for i := range 60 {
		began := fsys.Len()
		r := []Record{{Kind: Mark, Off: int64(i), Data: bytes.Repeat([]byte{byte(i)}, sectorSize-recHead)}}
		must(t, j.Append(t.Context(), r))
		m.recs = append(m.recs, done{r[0], began})
	}
	for moment, state := range fsys.Crashes(rand.New(rand.NewPCG(1, 1)), 300) {
		if moment < begun {
			continue
		}
		j, err := Open(t.Context(), crashConfig(state))
		must(t, err)
		if _, err := m.holds(j, moment); err != nil {
			t.Fatalf("after %d operations: %v", moment, err)
		}
	}
}

// TestSyncEndsPage checks that no byte of a page that was synced is written
// again.
func TestSyncEndsPage(t *testing.T) {
	j := create(t, Config{FS: crashfs.New(), Dir: "d", FileSize: 32 << 10})
	first := write(t, j, 100, 'a')
	second := write(t, j, 100, 'b')
	must(t, j.Sync(t.Context()))
	third := write(t, j, 100, 'c')
	if first.Next+recHead != second.Pos || (third.Pos-recHead)%pageSize != 0 {
		t.Errorf("records at %d, %d, and after a Sync at %d", first.Pos, second.Pos, third.Pos)
	}
}

// TestTornSlot loses the slot that was written last, and was not synced.
func TestTornSlot(t *testing.T) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10}
	j := create(t, cfg)
	a, b := write(t, j, 100, 'a'), write(t, j, 100, 'b')
	write(t, j, 100, 'c')
	must(t, j.Trim(a.Next))
	must(t, j.Trim(b.Next))
	copies := crashfs.New()
	must(t, copies.Mkdir("d", 0))
	state := readFile(t, fsys, "d/"+stateName)
	newest := 0
	for i := range 2 {
		if s, ok := decodeSlot(state[slotAt(i):][:sectorSize], j.state.salt[:]); ok && s.start == b.Next {
			newest = i
		}
	}
	clear(state[slotAt(newest):][100:sectorSize])
	writeFile(t, copies, "d/"+stateName, state)
	writeFile(t, copies, "d/"+fileName(1), readFile(t, fsys, "d/"+fileName(1)))
	cfg.FS = copies
	j, err := Open(t.Context(), cfg)
	must(t, err)
	defer j.Close()
	if got := content(t, j); got != "abc" {
		t.Errorf("it has %q", got)
	}
}

// A lateFS writes, and then says that there was no space.
type lateFS struct {
	fsys localfs.FS
	late *bool
}

type lateFile struct {
	f    localfs.File
	late *bool
}

func (l lateFS) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	f, err := l.fsys.Open(name, flag, mode)
	return lateFile{f, l.late}, err
}
func (l lateFS) Rename(oldname, newname string) error       { return l.fsys.Rename(oldname, newname) }
func (l lateFS) RenameNew(oldname, newname string) error    { return l.fsys.Rename(oldname, newname) }
func (l lateFS) Remove(name string) error                   { return l.fsys.Remove(name) }
func (l lateFS) SyncDir(name string) error                  { return l.fsys.SyncDir(name) }
func (l lateFS) ReadDir(name string) ([]fs.DirEntry, error) { return l.fsys.ReadDir(name) }
func (l lateFile) ReadAt(p []byte, off int64) (int, error)  { return l.f.ReadAt(p, off) }
func (l lateFile) Truncate(size int64) error                { return l.f.Truncate(size) }
func (l lateFile) Sync() error                              { return l.f.Sync() }
func (l lateFile) Close() error                             { return l.f.Close() }
func (l lateFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := l.f.WriteAt(p, off)
	if err == nil && *l.late {
		err = syscall.ENOSPC
	}
	return n, err
}

// TestFailedWriteStaysAway fails an Append whose records are all there: after
// something else was appended they must never be found.
func TestFailedWriteStaysAway(t *testing.T) {
	late := false
	fsys := crashfs.New()
	must(t, fsys.Mkdir("d", 0))
	cfg := Config{FS: lateFS{fsys, &late}, Dir: "d", FileSize: 32 << 10, Full: Fail}
	j := create(t, cfg)
	const n = pageSize - recHead // so that each is alone in its page
	write(t, j, n, 'a')
	late = true
	recs := []Record{{Kind: Mark, Data: make([]byte, n)}, {Kind: Mark, Data: []byte("y")}}
	if err := j.Append(t.Context(), recs); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	late = false
	write(t, j, n, 'b')
	if got := content(t, j); got != "ab" {
		t.Errorf("it has %q", got)
	}
	if got := content(t, reopen(t, j, cfg)); got != "ab" {
		t.Errorf("after reopening it has %q", got)
	}
}

// TestDoubt ends a life with an fsync that failed: the next one must not take
// what it reads for what is on the disk.
func TestDoubt(t *testing.T) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10}
	j := create(t, cfg)
	write(t, j, 4096, 'a')
	must(t, j.Sync(t.Context()))
	for range 10 {
		write(t, j, 4096, 'b')
	}
	fsys.SetFault(func(op, name string) error {
		if op == "sync" {
			return syscall.EIO
		}
		return nil
	})
	if err := j.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	fsys.SetFault(nil)
	j = reopen(t, j, cfg)
	written := make(map[string]int)
	var order []string
	fsys.SetFault(func(op, name string) error {
		if op == "write" {
			written[name]++
		}
		if op == "write" || op == "sync" {
			order = append(order, op)
		}
		return nil
	})
	must(t, j.Sync(t.Context()))
	if len(written) != 2 || written["d/"+fileName(1)] == 0 || written["d/"+fileName(2)] == 0 {
		t.Errorf("the first Sync wrote to %v, want both files", written)
	}
	if want := []string{"write", "sync", "write", "sync"}; !slices.Equal(order, want) {
		t.Errorf("the first Sync did %v, want %v", order, want)
	}
	order = nil
	write(t, j, 100, 'c')
	must(t, j.Sync(t.Context()))
	fsys.SetFault(nil)
	if got := content(t, reopen(t, j, cfg)); got != "abbbbbbbbbbc" {
		t.Errorf("it has %q", got)
	}
}
