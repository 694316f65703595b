package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// errClosed is the error of whatever comes after Close.
var errClosed = fmt.Errorf("the gateway is shutting down: %w", fs.ErrClosed)

// A shared disk is a delta over an image, open once for all its users.
type shared struct {
	key   string // of the record: an overlay's or an attachment's id
	base  block.ReadCloser
	delta *delta.Delta
	disk  *overlay.Overlay

	ready chan struct{} // closed when the fields above or err are there
	err   error

	done     chan struct{} // closed when it is closed again
	closeErr error         // set before done

	users   int  // guarded by Exports.mu, like the next
	closing bool // the last user is gone
}

// acquire returns the disk with this key, which open opens if nobody has it
// open. release must be called as often.
func (e *Exports) acquire(ctx context.Context, key string, open func(ctx context.Context, d *shared) error) (*shared, error) {
	for {
		d, mine, err := e.find(key)
		if err != nil {
			return nil, err
		}
		if d == nil { // somebody closes it: after that it can be opened again
			continue
		}
		if mine {
			// Others may wait for this disk too, so the opening is not
			// bound to one client's patience.
			d.err = open(context.WithoutCancel(ctx), d)
			close(d.ready)
		}
		select {
		case <-d.ready:
		case <-ctx.Done():
			e.release(d)
			return nil, ctx.Err()
		}
		if d.err != nil {
			e.release(d)
			return nil, d.err
		}
		return d, nil
	}
}

// find counts a user on the disk with this key. mine says that the caller has
// to open it. Nil without an error says to ask again.
func (e *Exports) find(key string) (d *shared, mine bool, err error) {
	e.mu.Lock()
	d = e.disks[key]
	switch {
	case e.closed:
		err = errClosed
	case e.doomed[key]:
		err = wire.Errorf(409, "overlay %s is being deleted: %w", key, fs.ErrPermission)
	case d == nil:
		d = &shared{key: key, ready: make(chan struct{}), done: make(chan struct{}), users: 1}
		e.disks[key] = d
		mine = true
	case d.closing:
		e.mu.Unlock()
		<-d.done
		return nil, false, nil
	default:
		d.users++
	}
	e.mu.Unlock()
	return d, mine, err
}

// release lets go of a disk. The last user flushes and closes it; its error
// is that of the flush.
func (e *Exports) release(d *shared) error {
	e.mu.Lock()
	d.users--
	last := d.users == 0
	d.closing = last
	e.mu.Unlock()
	if !last {
		return nil
	}
	<-d.ready
	d.closeErr = d.close()
	if d.closeErr != nil {
		e.log.Error("a disk was not closed well; what was written since its last flush may be lost", "disk", d.key, "err", d.closeErr)
	}
	e.mu.Lock()
	delete(e.disks, d.key)
	e.mu.Unlock()
	close(d.done)
	return d.closeErr
}

// close flushes and closes what open has opened, which may be only a part.
func (d *shared) close() error {
	var errs []error
	if d.delta != nil {
		errs = append(errs, d.delta.Flush(context.Background()), d.delta.Close())
	}
	if d.base != nil {
		errs = append(errs, d.base.Close())
	}
	return errors.Join(errs...)
}

// used returns how many bytes the disk with this key takes, if it is open.
func (e *Exports) used(key string) (int64, bool) {
	e.mu.Lock()
	d := e.disks[key]
	e.mu.Unlock()
	if d == nil {
		return 0, false
	}
	select {
	case <-d.ready:
	default:
		return 0, false
	}
	if d.delta == nil {
		return 0, false
	}
	return d.delta.Usage(), true
}

// isOpen tells whether anybody has the disk with this key open.
func (e *Exports) isOpen(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disks[key] != nil
}
