package attach

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	lookEvery  = time.Second            // after connections, should the kernel's word be lost
	settleTime = 50 * time.Millisecond  // between a socket's end and the kernel's taking note
	firstRetry = 100 * time.Millisecond // of connecting again; doubles up to
	lastRetry  = 2 * time.Second

	// silentAfter is how long after the end of all sockets the kernel has not
	// said that it lost them when they were closed on request.
	silentAfter = 3 * time.Second
)

// Keep opens a new connection for each that breaks, until ctx ends or the
// device is disconnected, by whomever; then it returns nil. An error means
// that the device cannot be kept: the server has another disk under the name,
// or the kernel has given the device up.
func (d *Device) Keep(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	heard := make(chan struct{}, 1)
	var listening sync.WaitGroup
	listening.Go(func() {
		err := d.events.hear(ctx, d.index, func() {
			select {
			case heard <- struct{}{}:
			default: // the word is already there
			}
		})
		if err != nil {
			d.cfg.Logger.Warn("nbd: broken connections will be found late", "device", d.Path, "err", err)
		}
	})
	defer func() {
		stop()
		listening.Wait()
	}()
	var o outage
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-heard:
			o.heard = time.Now()
		case <-time.After(wait):
		}
		var done bool
		var err error
		if wait, done, err = d.look(ctx, &o); done || err != nil {
			return err
		}
	}
}

// An outage is what Keep knows of broken connections.
type outage struct {
	heard time.Time     // when the kernel said last that it lost one
	since time.Time     // zero: all is well
	retry time.Duration // the next wait
	noted bool          // the log has it
	late  bool          // requests have failed, and the kernel says no more
}

// look looks after the connections once and replaces those that are dead. It
// returns when to look again, or that the device is no longer connected.
func (d *Device) look(ctx context.Context, o *outage) (wait time.Duration, done bool, err error) {
	lost, err := d.lost()
	if err != nil {
		return 0, false, err
	}
	now := time.Now()
	switch {
	case len(lost) == 0 && now.Sub(o.heard) < lookEvery: // the word came before the end
		o.since = time.Time{}
		return settleTime, false, nil
	case len(lost) == 0:
		o.since = time.Time{}
		return lookEvery, false, nil
	case o.since.IsZero():
		o.since, o.retry, o.noted = now, firstRetry, false
		return settleTime, false, nil
	}
	log := d.cfg.Logger.With("device", d.Path)
	switch on, err := d.connected(ctx); {
	case err != nil:
		log.Warn("nbd: cannot ask the kernel about the device", "err", err)
		return lastRetry, false, nil
	case !on:
		log.Info("nbd: the device has been disconnected")
		return 0, true, nil
	}
	// A device that is disconnected while it is in use still counts as
	// connected. But the kernel does not say then that it lost connections.
	if len(lost) == d.cfg.Connections && !o.late && o.heard.Before(o.since.Add(-2*lookEvery)) {
		if now.Sub(o.since) < silentAfter {
			return firstRetry, false, nil
		}
		log.Info("nbd: the device has been disconnected, and is free when its last user closes it")
		return 0, true, nil
	}
	err = d.replace(ctx, lost)
	switch {
	case err == nil:
		if away := time.Since(o.since); away > d.cfg.DeadConnTimeout && len(lost) == d.cfg.Connections {
			o.late = true
			log.Error("nbd: connected again, but requests have failed: the server was away for too long; check the file system", "away", away)
		} else {
			log.Info("nbd: connected again", "away", away, "connections", len(lost))
		}
		o.since = time.Time{}
		return lookEvery, false, nil
	case ctx.Err() != nil:
		return 0, true, nil
	case errors.Is(err, errGivenUp):
		return 0, true, err
	}
	if !o.noted {
		o.noted = true
		log.Warn("nbd: connections to the server are broken; requests wait until there are new ones", "connections", len(lost), "at most", d.cfg.DeadConnTimeout, "err", err)
	}
	wait, o.retry = o.retry, min(2*o.retry, lastRetry)
	return wait, false, nil
}

// errGivenUp marks the errors after which it is of no use to try again.
var errGivenUp = errors.New("the device cannot be kept")

// replace opens new connections in place of those that are lost.
func (d *Device) replace(ctx context.Context, lost []int) error {
	fresh, e, err := d.cfg.open(ctx, len(lost))
	if err != nil {
		return err
	}
	if !e.replaces(d.export) {
		closeAll(fresh)
		return errors.Join(errChanged(d.export, e), errGivenUp)
	}
	k, err := openKernel(ctx)
	if err == nil {
		if err = k.reconfigure(d.index, d.cfg, fresh); err != nil {
			err = errors.Join(err, errGivenUp)
		}
		k.close()
	}
	if err != nil {
		closeAll(fresh)
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, at := range lost {
		d.links[at].Close()
		d.links[at] = fresh[i]
	}
	return nil
}

// lost returns which connections are dead.
func (d *Device) lost() ([]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return nil, errors.New("nbd: the device was closed while it was kept; this is a bug")
	}
	return dead(d.links)
}

// connected tells whether the device is still connected, and to this export.
func (d *Device) connected(ctx context.Context) (bool, error) {
	on, err := Connected(ctx, d.Path)
	return on && d.ours(), err
}

// ours tells whether the device has not become somebody else's.
func (d *Device) ours() bool {
	name := backend(d.index)
	return name == "" || name == d.cfg.identity()
}
