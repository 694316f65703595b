package localfs

import (
	"fmt"
	"sync"
	"syscall"
	"time"
)

// A Guard keeps a part of a file system free. What may fill the disk asks it
// first; what must go on when the disk is full, such as the catalog, does not.
type Guard interface {
	// Take asks for n more bytes. It is syscall.ENOSPC when they would not
	// leave the reserve untouched. Nothing is given back: what was not used
	// or was freed is seen by itself.
	Take(n int64) error
}

// NewGuard returns a Guard that keeps reserve bytes free on the file system
// that holds dir.
func NewGuard(dir string, reserve int64) Guard {
	return NewGuardFS(OS(), dir, reserve)
}

// NewGuardFS is NewGuard for any FS.
func NewGuardFS(fsys FS, dir string, reserve int64) Guard {
	return &guard{fsys: fsys, dir: dir, reserve: reserve}
}

// fresh is how long an answer of the file system is believed. What others
// write meanwhile comes out of the reserve.
const fresh = 200 * time.Millisecond

type guard struct {
	fsys    FS
	dir     string
	reserve int64

	mu    sync.Mutex
	left  int64 // what may still be taken until the file system is asked again
	asked time.Time
}

func (g *guard) Take(n int64) error {
	if n <= 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > g.left || time.Since(g.asked) > fresh {
		if err := g.ask(); err != nil {
			return err
		}
	}
	if n > g.left {
		return fmt.Errorf("%s: %d bytes more would leave less than the %d that are kept free; free some space or lower the reserve: %w",
			g.dir, n, g.reserve, syscall.ENOSPC)
	}
	g.left -= n
	return nil
}

func (g *guard) ask() error {
	_, free, err := Space(g.fsys, g.dir)
	if err != nil {
		return fmt.Errorf("ask how much space is left: %w", err)
	}
	g.left, g.asked = free-g.reserve, time.Now()
	return nil
}
