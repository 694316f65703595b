// Package file keeps objects as files under one directory.
//
// The object at key "a/b" is the file DIR/a/b, byte for byte, except that runs
// of zeros are holes where the file system has them. Whoever looks at the
// directory sees whole objects and, in the folder "+partial", those that are
// being written.
//
// An object appears by these steps, so that a loss of power at any moment
// leaves it whole or absent, and there once Commit has returned:
//
//  1. its bytes are written to a new file DIR/+partial/KEY/+RANDOM;
//  2. that file is synced;
//  3. it is renamed to DIR/KEY, which fails if the key is taken;
//  4. the folders from there up to DIR are synced.
//
// What a crash leaves in "+partial" is listed as Partial, under a key with a
// '+' in it that only Delete knows; '+' is in no key of an object.
//
// A key that is a folder of other keys cannot be an object, nor the other way
// round: Create or Commit is then fs.ErrExist.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A Config says how a Store keeps its files. Only Dir must be set.
type Config struct {
	// Dir is the folder of the objects. It is made if there is none.
	Dir string

	// FS is the file system. Default: the machine's.
	FS localfs.FS

	// Guard is asked before space is used. Default: the disk may be filled.
	Guard localfs.Guard
}

// A Store keeps objects as files. It is a backends.Store, Lister and Meter.
type Store struct {
	dir   string
	fs    localfs.FS
	guard localfs.Guard

	mu   sync.Mutex
	live map[string]bool // by name of the file, what is being written by us
}

// partials is the folder of what is being written. Its name is no key.
const partials = "+partial"

// Open returns the Store in cfg.Dir.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("file: no folder for the objects is configured: %w", fs.ErrInvalid)
	}
	s := &Store{dir: filepath.Clean(cfg.Dir), fs: cfg.FS, guard: cfg.Guard, live: make(map[string]bool)}
	if s.fs == nil {
		s.fs = localfs.OS()
	}
	// The folder may have been made a moment ago by a process that was killed
	// before it could sync it.
	err := localfs.MkdirAll(s.fs, filepath.Join(s.dir, partials))
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(s.dir))
	}
	if err != nil {
		return nil, fmt.Errorf("file: prepare the folder %s: %w", s.dir, err)
	}
	return s, nil
}

// path returns the file of a key.
// URI says where an object is, as Glance's file store has it.
func (s *Store) URI(key string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(s.path(key))}).String()
}

func (s *Store) path(key string) string {
	return filepath.Join(s.dir, filepath.FromSlash(key))
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if err := check(ctx, "open", key); err != nil {
		return nil, err
	}
	f, err := s.fs.Open(s.path(key), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("file: open %s: %w", key, explain(err))
	}
	size, err := localfs.Size(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("file: open %s: %w", key, err)
	}
	return &object{f: f, size: size, key: key}, nil
}

// explain says of an error of opening a name what it means for a key.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%w (%v)", fs.ErrNotExist, err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w; raise the limit of open files (ulimit -n, LimitNOFILE=)", err)
	}
	return err
}

// Delete removes an object, or what a crash left of one.
func (s *Store) Delete(ctx context.Context, key string) error {
	if left, ok := leftover(key); ok {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("file: delete %s: %w", key, err)
		}
		return s.deleteLeftover(key, left)
	}
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	name := s.path(key)
	err := s.fs.Remove(name)
	if absent(err) {
		return nil
	}
	if err == nil {
		err = s.syncAbove(name)
	}
	if err != nil {
		return fmt.Errorf("file: delete %s: %w", key, err)
	}
	s.tidy(filepath.Dir(name), s.dir)
	return nil
}

// syncAbove makes it last that name is gone. If the folder it was in has been
// tidied away, the folder above is synced instead, which lost that one.
func (s *Store) syncAbove(name string) error {
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		err := s.fs.SyncDir(dir)
		if dir == s.dir || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// absent tells whether removing a name failed because there is no such file:
// nothing, something beneath a file, or a folder of other objects.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) ||
		errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist)
}

// tidy removes dir and the folders above it, up to but without top, as long
// as they are empty. Another goroutine may be filling them: then they stay, or
// it makes them again.
func (s *Store) tidy(dir, top string) {
	for ; dir != top; dir = filepath.Dir(dir) {
		if s.fs.Remove(dir) != nil {
			return
		}
	}
}

// Usage returns the size of the file system and what is left of it.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	if err := ctx.Err(); err != nil {
		return backends.Usage{}, err
	}
	total, free, err := localfs.Space(s.fs, s.dir)
	if err != nil {
		return backends.Usage{}, fmt.Errorf("file: usage of %s: %w", s.dir, err)
	}
	return backends.Usage{Total: total, Free: free}, nil
}

func check(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("file: %s %s: %w", op, key, err)
	}
	if err := backends.CheckKey(key); err != nil {
		return fmt.Errorf("file: %s: %w", op, err)
	}
	return nil
}

// leftover returns the file, relative to the folder of the store, that the key
// of a Partial stands for.
func leftover(key string) (name string, ok bool) {
	object, mark, ok := strings.Cut(key, "+")
	if !ok || backends.CheckKey(object) != nil || !isMark(mark) {
		return "", false
	}
	return partialName(object, mark), true
}

// partialName returns the file of an object that is being written, relative
// to the folder of the store.
func partialName(object, mark string) string {
	return filepath.Join(partials, filepath.FromSlash(object), "+"+mark)
}

func (s *Store) deleteLeftover(key, name string) error {
	if s.isLive(name) {
		return nil // not left over: its Writer will end it
	}
	full := filepath.Join(s.dir, name)
	if err := s.fs.Remove(full); err != nil && !absent(err) {
		return fmt.Errorf("file: delete the unfinished object %s: %w", key, err)
	}
	s.tidy(filepath.Dir(full), filepath.Join(s.dir, partials))
	return nil
}
