package cache_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// TestSlowDisk: a disk that takes nothing keeps nobody from reading, and all
// that there was no time to keep is given up.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &slowDisk{FS: crashfs.New()}
		cfg := cache.Config{Dir: "/cache", FS: disk, Size: 128 << 20, ReadAhead: -1}
		f := newFar(64 << 20)
		c := open(t, cfg)
		r := reader(t, c, "o", f)
		disk.takes.Store(int64(time.Hour))
		began := time.Now()
		for off := int64(0); off < 64<<20; off += 512 << 10 {
			read(t, r, f, off, 512<<10)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("reading waited %v for the disk", took)
		}
		synctest.Wait()
		if s := c.Stats(); s.Unkept != 4<<20 || s.Skipped != 60<<20 {
			t.Errorf("%d bytes are unkept and %d skipped", s.Unkept, s.Skipped)
		}
		before := f.reads.Load()
		read(t, r, f, 1<<20, 4096)
		if f.reads.Load() != before {
			t.Error("what is to be kept was fetched again")
		}
		disk.takes.Store(0)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Used != 4<<20 || s.Unkept != 0 {
			t.Errorf("%d bytes are kept, %d still to be", s.Used, s.Unkept)
		}
	})
}

// A slowDisk takes its time to write data.
type slowDisk struct {
	*crashfs.FS
	takes atomic.Int64
}

func (d *slowDisk) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	f, err := d.FS.Open(name, flag, mode)
	if err != nil || !strings.HasPrefix(filepath.Base(name), "data.") {
		return f, err
	}
	return &slowFile{f, d}, nil
}

type slowFile struct {
	localfs.File
	disk *slowDisk
}

func (f *slowFile) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(time.Duration(f.disk.takes.Load()))
	return f.File.WriteAt(p, off)
}
