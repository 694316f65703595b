package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"

	"github.com/seed-478a8fee/platter/backends"
)

// List yields every object, and what crashes left of others. It skips what is
// not the store's: names that are no keys, such as lost+found, links and
// devices.
func (s *Store) List(ctx context.Context) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		l := listing{ctx: ctx, store: s, yield: yield}
		_ = l.folder("", "", false) && l.folder(partials, "", true)
	}
}

// A listing is one walk over a store.
type listing struct {
	ctx   context.Context
	store *Store
	yield func(backends.Entry, error) bool
}

// folder walks one folder, whose name is relative to that of the store and
// whose objects have keys that begin with prefix. It is false when the walk
// has ended.
func (l *listing) folder(name, prefix string, partial bool) bool {
	if err := l.ctx.Err(); err != nil {
		return l.fail(err)
	}
	entries, err := l.store.fs.ReadDir(filepath.Join(l.store.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted meanwhile
	}
	if err != nil {
		return l.fail(err)
	}
	for _, e := range entries {
		if !l.entry(e, name, prefix, partial) {
			return false
		}
	}
	return true
}

func (l *listing) fail(err error) bool {
	l.yield(backends.Entry{}, fmt.Errorf("file: list %s: %w", l.store.dir, err))
	return false
}

func (l *listing) entry(e fs.DirEntry, folder, prefix string, partial bool) bool {
	name, key := filepath.Join(folder, e.Name()), prefix+e.Name()
	mark, isPartial := strings.CutPrefix(e.Name(), "+")
	switch {
	case e.IsDir() && backends.CheckKey(e.Name()) == nil:
		return l.folder(name, key+"/", partial)
	case !e.Type().IsRegular():
		return true
	case !partial && backends.CheckKey(key) == nil:
		return l.show(e, key, false)
	case partial && isPartial && isMark(mark) && !l.store.isLive(name):
		return l.show(e, strings.TrimSuffix(prefix, "/")+"+"+mark, true)
	}
	return true
}

func (l *listing) show(e fs.DirEntry, key string, partial bool) bool {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted meanwhile
	}
	if err != nil {
		return l.fail(err)
	}
	return l.yield(backends.Entry{Key: key, Size: info.Size(), Modified: info.ModTime(), Partial: partial}, nil)
}

// isLive tells whether a file in the folder of partials is being written.
func (s *Store) isLive(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[name]
}

// isMark tells whether text is what Create makes up to tell writers of one
// key apart.
func isMark(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) < 0
}
