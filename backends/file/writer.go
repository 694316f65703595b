package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

const (
	// chunk is how much is gathered before it is written: all the memory
	// that an upload takes here.
	chunk = 1 << 20

	// grain is the least run of zeros, aligned, that becomes a hole. Smaller
	// ones would save little and break the file into pieces.
	grain = 64 << 10

	// pushEvery is how much may be dirty before the disk is told to begin,
	// so that Commit does not find all of it still to do.
	pushEvery = 8 << 20
)

// zeros is what a grain is compared with. It is never written to.
var zeros [grain]byte

// Create starts an object.
func (s *Store) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if err := check(ctx, "create", key); err != nil {
		return nil, err
	}
	w, err := s.create(ctx, key, size)
	if err != nil {
		return nil, fmt.Errorf("file: create %s: %w", key, err)
	}
	return w, nil
}

func (s *Store) create(ctx context.Context, key string, size int64) (*writer, error) {
	if f, err := s.fs.Open(s.path(key), os.O_RDONLY, 0); err == nil {
		f.Close()
		return nil, fs.ErrExist // better now than after the upload
	}
	w := &writer{ctx: ctx, store: s, key: key, size: size, name: partialName(key, strings.ToLower(rand.Text()))}
	w.live(true)
	f, err := s.createFile(w.path())
	if err != nil {
		w.live(false)
		return nil, err
	}
	w.f = f
	return w, nil
}

// createFile makes a new file and the folders above it. Tidying by others can
// take the folders away again in between.
func (s *Store) createFile(name string) (f localfs.File, err error) {
	for range attempts {
		if err = localfs.Mkdirs(s.fs, filepath.Dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		f, err = s.fs.Open(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o440)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, err
}

// attempts is how often a folder is made again that others tidied away.
const attempts = 100

// A writer belongs to one goroutine.
type writer struct {
	ctx   context.Context // Create's, which covers the writes
	store *Store
	key   string
	size  int64
	name  string // of the file, relative to the folder of the store
	f     localfs.File

	buf    []byte // bytes not yet in the file
	off    int64  // where they belong: a multiple of chunk until the last
	pushed int64  // up to where the disk has been told to begin
	err    error  // of an earlier write: then nothing more is
	ended  bool
}

func (w *writer) path() string { return filepath.Join(w.store.dir, w.name) }

// live says whether the file is being written, and so not left over.
func (w *writer) live(is bool) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if is {
		w.store.live[w.name] = true
	} else {
		delete(w.store.live, w.name)
	}
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.allowed(int64(len(p)))
	}
	done := 0
	for w.err == nil && done < len(p) {
		var n int
		n, w.err = w.take(p[done:])
		done += n
	}
	if w.err != nil {
		return done, fmt.Errorf("file: write %s: %w", w.key, w.err)
	}
	return done, nil
}

func (w *writer) allowed(n int64) error {
	if w.ended {
		return fs.ErrClosed
	}
	if total := w.off + int64(len(w.buf)) + n; w.size >= 0 && total > w.size {
		return fmt.Errorf("more than the %d bytes announced: %w", w.size, io.ErrUnexpectedEOF)
	}
	return w.ctx.Err()
}

// take takes some of p: whole chunks as they are, the rest into buf.
func (w *writer) take(p []byte) (int, error) {
	if len(w.buf) == 0 && len(p) >= chunk {
		return chunk, w.put(p[:chunk])
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, w.need())
	}
	n := min(len(p), chunk-len(w.buf))
	w.buf = append(w.buf, p[:n]...)
	if len(w.buf) < chunk {
		return n, nil
	}
	return n, w.flush()
}

// need is how large buf must be.
func (w *writer) need() int {
	if w.size >= 0 {
		return int(min(w.size, chunk))
	}
	return chunk
}

func (w *writer) flush() error {
	err := w.put(w.buf)
	w.buf = w.buf[:0]
	return err
}

// put appends p to the file, without its grains of zeros.
func (w *writer) put(p []byte) error {
	for len(p) > 0 {
		hole := isZero(p[:min(len(p), grain)])
		n := min(len(p), grain)
		for n < len(p) && isZero(p[n:min(len(p), n+grain)]) == hole {
			n = min(len(p), n+grain)
		}
		if !hole {
			if err := w.putData(p[:n]); err != nil {
				return err
			}
		}
		p, w.off = p[n:], w.off+int64(n)
	}
	if w.off-w.pushed >= pushEvery {
		localfs.Push(w.f, w.pushed, w.off-w.pushed)
		w.pushed = w.off
	}
	return nil
}

func isZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

func (w *writer) putData(p []byte) error {
	if g := w.store.guard; g != nil {
		if err := g.Take(int64(len(p))); err != nil {
			return err
		}
	}
	_, err := w.f.WriteAt(p, w.off)
	return err
}

func (w *writer) Commit(ctx context.Context) error {
	if w.err == nil {
		w.err = w.commit(ctx)
	}
	if w.err != nil {
		return fmt.Errorf("file: commit %s: %w", w.key, w.err)
	}
	return nil
}

func (w *writer) commit(ctx context.Context) error {
	if w.ended {
		return fs.ErrClosed
	}
	if err := errors.Join(ctx.Err(), w.ctx.Err()); err != nil {
		return err
	}
	if total := w.off + int64(len(w.buf)); w.size >= 0 && total != w.size {
		return fmt.Errorf("%d bytes written, %d announced: %w", total, w.size, io.ErrUnexpectedEOF)
	}
	if err := w.settle(); err != nil {
		return err
	}
	if err := w.appear(); err != nil {
		return err
	}
	w.end()
	return nil
}

// settle makes the bytes durable. A sync that failed must not be tried again:
// the kernel may have thrown away what it could not write.
func (w *writer) settle() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.f.Truncate(w.off); err != nil { // the hole at the end
		return err
	}
	return w.f.Sync()
}

// appear gives the file its name and makes the name durable.
func (w *writer) appear() error {
	name := w.store.path(w.key)
	if err := w.rename(name); err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("%w: a part of the key is an object (%v)", fs.ErrExist, err)
		}
		return err
	}
	// All folders, not only new ones: another goroutine, or a process that was
	// killed, can have made one and not have come to syncing its parent.
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if err := w.store.fs.SyncDir(dir); err != nil {
			// Nobody knows whether it will be there after a crash, so it must
			// not be there now.
			return errors.Join(err, w.store.fs.Remove(name))
		}
		if dir == w.store.dir {
			return nil
		}
	}
}

// rename moves the file to name, whose folder others may be tidying away.
func (w *writer) rename(name string) (err error) {
	for range attempts {
		if err = localfs.Mkdirs(w.store.fs, filepath.Dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err = localfs.RenameNew(w.store.fs, w.path(), name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// Abort throws away what was written.
func (w *writer) Abort() {
	if w.ended {
		return
	}
	// What cannot be removed stays as a leftover, which List shows.
	_ = w.store.fs.Remove(w.path())
	w.end()
}

// end lets go of the file, whose name has changed or gone.
func (w *writer) end() {
	w.ended, w.buf = true, nil
	// The bytes are synced or unwanted; closing has nothing to tell.
	_ = w.f.Close()
	w.live(false)
	w.store.tidy(filepath.Dir(w.path()), filepath.Join(w.store.dir, partials))
}
