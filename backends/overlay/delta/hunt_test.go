package delta

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// pretend says that clusters [from, to) of the file are taken, or no more.
func (d *Delta) pretend(from, to int64, by int) {
	for i := from; i < to; i++ {
		d.refs.counts.add(i, by)
	}
	d.refs.hint = 0
}

// TestSnapshotOfEmptyPage: while a snapshot is not yet on the disk, what the
// old header points to is held, though nothing new does. It must have a
// refcount block all the same, or the next write would make one over it.
func TestSnapshotOfEmptyPage(t *testing.T) {
	d := mustCreate(t, Config{FS: newFS(t), Size: 1 << 30})
	d.pretend(200, pageLen, 1)
	p := bytes.Repeat([]byte{1}, clusterSize)
	for d.refs.counts.get(pageLen+1) == 0 { // until the second refcount block
		for off := int64(0); off < 210*clusterSize; off += clusterSize {
			if err := d.WriteAt(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Discard(t.Context(), 0, d.Size()); err != nil {
		t.Fatal(err)
	}
	d.pretend(200, pageLen, -1)
	looked := false
	err := d.exclusive(t.Context(), func(release func()) (*rewrite, error) {
		w, _, err := d.withSnapshot("s", func() {
			release()
			looked = true
			for n, p := range d.refs.counts {
				if p != nil && p.at == 0 && p.free < pageLen {
					t.Errorf("page %d counts %d clusters and has no block", n, pageLen-p.free)
				}
			}
		})
		return w, err
	})
	if err != nil || !looked {
		t.Fatal(looked, err)
	}
}

// TestReaderAfterClose: a reader that is closed must not read on. Its tables
// may be somebody else's data by then, and what it loaded would stay in the
// cache as the mapping of the disk.
func TestReaderAfterClose(t *testing.T) {
	d := mustCreate(t, Config{FS: newFS(t), Size: 1 << 20})
	if err := d.WriteAt(t.Context(), []byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	id, err := d.Snapshot(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.OpenSnapshot(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteSnapshot(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 5), 0); !errors.Is(err, fs.ErrClosed) {
		t.Error("ReadAt of a closed snapshot: ", err)
	}
	if _, err := r.(*reader).Extent(t.Context(), 0, 5); !errors.Is(err, fs.ErrClosed) {
		t.Error("Extent of a closed snapshot: ", err)
	}
}

// TestShortSnapshot: a snapshot with too small an L1 table for its disk is
// refused, and not found out by reading past the table.
func TestShortSnapshot(t *testing.T) {
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: 3 << 29})
	if _, err := d.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	d.snaps.list[0].L1Entries = 1
	at := d.layout().snapshotAt
	if err := d.write(encodeSnapshots(d.snaps.list), at); err != nil {
		t.Fatal(err)
	}
	if err := d.f.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := inspect(fsys, path); err == nil {
		t.Error("a disk of 1.5 GiB with one L1 entry was not refused")
	}
}

// TestCreateFails: what could not be made durable does not stay under its name.
func TestCreateFails(t *testing.T) {
	for _, bad := range []string{"create", "write", "truncate", "sync", "rename", "syncdir"} {
		fsys := newFS(t)
		fsys.SetFault(func(op, _ string) error {
			if op == bad {
				return syscall.EIO
			}
			return nil
		})
		if _, err := Create(t.Context(), Config{FS: fsys, Path: path, Size: 1 << 20}); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", bad, err)
		}
		fsys.SetFault(nil)
		if left, err := fsys.ReadDir("d"); err != nil || len(left) > 0 {
			t.Errorf("%s left %v, %v", bad, left, err)
		}
	}
}

// TestTail: the last sector of a disk that is not whole sectors ends in zeros
// for QEMU, whatever was in the cluster before.
func TestTail(t *testing.T) {
	const size = clusterSize + 1000
	d := mustCreate(t, Config{FS: newFS(t), Size: size})
	// A cluster that was used, and could not be made a hole.
	place := d.refs.counts.end() << clusterBits
	if err := d.write(bytes.Repeat([]byte{0xee}, clusterSize), place); err != nil {
		t.Fatal(err)
	}
	d.refs.counts.add((place>>clusterBits)+1, 1) // here goes the L2 table
	d.refs.counts.add((place >> clusterBits), 1)
	if err := d.table(0); err != nil {
		t.Fatal(err)
	}
	d.refs.giveBack(place)
	if err := d.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 1000), clusterSize); err != nil {
		t.Fatal(err)
	}
	e, err := d.lookup(nil, 1)
	if err != nil || e.host != place {
		t.Fatal(e, place, err)
	}
	tail := make([]byte, 24)
	if err := d.read(tail, place+1000); err != nil || !bytes.Equal(tail, make([]byte, 24)) {
		t.Errorf("behind the end of the disk: %x, %v", tail, err)
	}
}

// used returns how many bytes of blocks the files take.
func used(t *testing.T, fsys *crashfs.FS) int64 {
	t.Helper()
	fsys.SetCapacity(1 << 40)
	total, free, err := localfs.Space(fsys, "/")
	if err != nil {
		t.Fatal(err)
	}
	return total - free
}

// TestSnapshotFailsTidily: a snapshot for which there is no room takes none.
func TestSnapshotFailsTidily(t *testing.T) {
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: 64 << 30})
	for off := int64(0); off < d.Size(); off += 1 << 30 {
		if err := d.WriteAt(t.Context(), []byte("x"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := used(t, fsys)
	fsys.SetCapacity(before + 4<<20)
	if _, err := d.Snapshot(t.Context(), "s"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if now := used(t, fsys); now > before {
		t.Errorf("%d bytes more than before", now-before)
	}
	if err := d.WriteAt(t.Context(), []byte("goes on"), 5); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := sound(fsys, path, 0); err != nil {
		t.Error(err)
	}
}
