package schedules

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// A pipe is the way of one life of a gateway to the store.
type pipe struct{ l *life }

// ours tells whether an object is the overlay's, not the image's.
func ours(key string) bool { return strings.HasPrefix(key, prefix) }

func short(key string) string { return strings.TrimPrefix(key, prefix) }

func (p pipe) Open(ctx context.Context, key string) (r block.ReadCloser, err error) {
	if !ours(key) {
		if err := p.l.reach(inside); err != nil {
			return nil, err
		}
		return p.l.w.store.Open(ctx, key)
	}
	err = p.l.at(ctx, onStore, "open "+short(key), func() error {
		r, err = p.l.w.store.Open(context.Background(), key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (p pipe) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	return &upload{l: p.l, key: key, size: size}, nil
}

func (p pipe) Delete(ctx context.Context, key string) error {
	return p.l.at(ctx, onStore, "delete "+short(key), func() error { return p.l.w.store.Delete(context.Background(), key) })
}

// An upload is one PUT: all of it happens at once, when it arrives.
type upload struct {
	l    *life
	key  string
	size int64
	b    bytes.Buffer
}

func (u *upload) Write(p []byte) (int, error) { return u.b.Write(p) }

func (u *upload) Abort() {}

func (u *upload) Commit(ctx context.Context) error {
	return u.l.at(ctx, onStore, "put "+short(u.key), func() error {
		w, err := u.l.w.store.Create(context.Background(), u.key, u.size)
		if err != nil {
			return err
		}
		defer w.Abort()
		if _, err := w.Write(u.b.Bytes()); err != nil {
			return err
		}
		return w.Commit(context.Background())
	})
}

// A drive is the disk of one life of a gateway. When that has crashed, nothing
// of it reaches the disk any more. On a drive no step waits: the journal holds
// locks there.
type drive struct {
	l  *life
	fs *crashfs.FS
}

func (d drive) check() error { return d.l.reach(inside) }

func (d drive) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	f, err := d.fs.Open(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return &file{d, f}, nil
}

func (d drive) Rename(oldname, newname string) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.fs.Rename(oldname, newname)
}

func (d drive) RenameNew(oldname, newname string) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.fs.RenameNew(oldname, newname)
}

func (d drive) Remove(name string) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.fs.Remove(name)
}

func (d drive) SyncDir(name string) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.fs.SyncDir(name)
}

func (d drive) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	return d.fs.ReadDir(name)
}

func (d drive) Mkdir(name string, mode fs.FileMode) error {
	if err := d.check(); err != nil {
		return err
	}
	return d.fs.Mkdir(name, mode)
}

type file struct {
	d drive
	f localfs.File
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.d.check(); err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.check(); err != nil {
		return 0, err
	}
	return f.f.WriteAt(p, off)
}

func (f *file) Truncate(size int64) error {
	if err := f.d.check(); err != nil {
		return err
	}
	return f.f.Truncate(size)
}

func (f *file) Sync() error {
	if err := f.d.check(); err != nil {
		return err
	}
	if f.d.l.w.cfg.bug == noSync {
		return nil
	}
	return f.f.Sync()
}

func (f *file) Close() error { return f.f.Close() }

func (f *file) Size() (int64, error) { return localfs.Size(f.f) }

func (f *file) Punch(off, n int64) error {
	if err := f.d.check(); err != nil {
		return err
	}
	return localfs.Punch(f.f, off, n)
}

// Allocate has nothing to do: there is no space to run out of.
func (f *file) Allocate(off, n int64) error { return f.d.check() }

// newDisk returns an empty disk of a gateway whose data is in dir.
func newDisk(dir string) *crashfs.FS {
	d := crashfs.New()
	for _, sub := range []string{"overlays", "ephemeral", "journals"} {
		if err := localfs.MkdirAll(d, dir+"/"+sub); err != nil {
			panic(err) // it is memory
		}
	}
	return d
}

// journals returns the names of what a gateway keeps of the overlay.
func (g *gateway) journals() []string {
	entries, err := g.disk.ReadDir(g.dir + "/journals/" + overlayID)
	if err != nil && !os.IsNotExist(err) {
		panic(fmt.Sprint("list the journals: ", err))
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
