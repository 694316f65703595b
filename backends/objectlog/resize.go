package objectlog

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// resize changes the size of the disk, which nobody uses yet. Everything goes
// to the store first, and then a checkpoint of the new size is committed, so
// that no record and no segment of the old one is ever read again.
func (l *Log) resize(ctx context.Context, size int64) error {
	old := l.size
	err := l.cover(ctx, l.last())
	if err == nil {
		l.work.Lock()
		l.newSize = size
		l.work.Unlock()
		wake(l.commitWake)
		err = l.wait(ctx, func() bool { return l.newSize == 0 })
	}
	if err != nil {
		return fmt.Errorf("resize from %d to %d bytes: %w", old, size, err)
	}
	return nil
}

// cut makes the disk that is stored one of size bytes. What is new is zero,
// whatever a base has there. With work held, by the committer, while nothing is
// in the journal that is not stored.
func (l *Log) cut(size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.stored
	x := extent.Extent{Off: min(d.size, size), Len: max(d.size, size) - min(d.size, size)}
	l.fresh.Insert(x, nil)
	if size > d.size {
		x.Target = extent.ZeroTarget()
	}
	d.m.Insert(x, l.unrefer)
	d.size, l.resized = size, d.seq
}
