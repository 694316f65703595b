package exports

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/api/wire"
)

// errClosed is the error of whatever comes after Close.
var errClosed = fmt.Errorf("the gateway is shutting down: %w", fs.ErrClosed)

// A shared disk is a volume that is open once for all its users.
type shared struct {
	key string // of the record: an overlay's or an attachment's id
	vol *volume

	ready  chan struct{} // closed when vol or err is there
	err    error
	giveUp context.CancelFunc // of the opening

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
			// bound to one client's patience, but to that of all.
			var opening context.Context
			opening, d.giveUp = context.WithCancel(context.WithoutCancel(ctx))
			go func() { // release waits for it
				d.err = open(opening, d)
				close(d.ready)
			}()
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
		err = wire.Errorf(409, "overlay %s is being deleted or resized: %w", key, fs.ErrPermission)
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
	select {
	case <-d.ready:
	default:
		d.giveUp() // nobody waits for it any more
		<-d.ready
	}
	d.closeErr = d.close()
	d.giveUp()
	if d.closeErr != nil {
		e.log.Error("a disk was not closed well; what was written since its last flush may be lost", "disk", d.key, "err", d.closeErr)
	}
	e.mu.Lock()
	delete(e.disks, d.key)
	e.mu.Unlock()
	close(d.done)
	return d.closeErr
}

// close flushes and closes the volume, if it was opened.
func (d *shared) close() error {
	if d.vol == nil {
		return nil
	}
	return d.vol.close()
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
	if d.vol == nil {
		return 0, false
	}
	return d.vol.used(), true
}

// isOpen tells whether anybody has the disk with this key open.
func (e *Exports) isOpen(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disks[key] != nil
}
