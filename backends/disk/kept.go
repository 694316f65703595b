package disk

import (
	"slices"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

const (
	// keepMost is how many disks without users stay open.
	keepMost = 32

	// renewAfter is how long after it was built a disk is closed as soon as
	// nobody uses it, so that what has changed beneath it shows at last.
	renewAfter = 10 * time.Second
)

// A kept stack has no users and is open still: clients that come one after the
// other, or ask about a disk before they open it, have it built once.
type kept struct {
	stack *stack
	since time.Time
}

// near reports whether an object is a file on this machine. Only such disks are
// kept: a file can be deleted while it is open, an RBD image cannot.
func near(object block.Reader) bool {
	_, ok := object.(block.Placer)
	return ok
}

// keep keeps a stack open that has lost its last user, if it is to be, and
// returns the stack that makes room for it, which the caller closes. The caller
// holds o.mu.
func (o *Opener) keep(s *stack) (ok bool, gone *stack) {
	if o.keepFor <= 0 || o.closed || o.stacks[s.key] != s || !s.isBuilt() || !s.near || s.failed.Load() || time.Since(s.since) >= renewAfter {
		return false, nil
	}
	if len(o.kept) == keepMost {
		gone = o.kept[0].stack
		o.kept = o.kept[1:]
		delete(o.stacks, gone.key)
	}
	o.kept = append(o.kept, kept{s, time.Now()})
	if !o.sweeping {
		o.sweepLater(o.keepFor)
	}
	return true, gone
}

// reuse takes a stack that gets a user out of those that are kept. The caller
// holds o.mu.
func (o *Opener) reuse(s *stack) {
	o.kept = slices.DeleteFunc(o.kept, func(k kept) bool { return k.stack == s })
}

// outdated reports whether a stack is only kept and not what spec describes. Then
// it is closed, and its key free. The caller holds o.mu.
func (o *Opener) outdated(s *stack, spec Spec) bool {
	if s.users > 0 || s.is(spec) {
		return false
	}
	o.reuse(s)
	delete(o.stacks, s.key)
	o.builds.Go(func() { o.close(s) })
	return true
}

// sweepLater has sweep called after d. The caller holds o.mu.
func (o *Opener) sweepLater(d time.Duration) {
	o.sweeping = true
	if o.sweeper == nil {
		o.sweeper = time.AfterFunc(d, o.sweep)
		return
	}
	o.sweeper.Reset(d)
}

// sweep closes what nobody has used for long enough.
func (o *Opener) sweep() {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.builds.Add(1) // Close waits
	defer o.builds.Done()
	o.sweeping = false
	n := 0
	for n < len(o.kept) && time.Since(o.kept[n].since) >= o.keepFor {
		n++
	}
	gone := o.drop(n)
	if len(o.kept) > 0 {
		o.sweepLater(o.keepFor - time.Since(o.kept[0].since))
	}
	o.mu.Unlock()
	for _, s := range gone {
		o.close(s)
	}
}

// Drop closes what nobody uses of an object that was deleted, so that its bytes
// take no more space. Disks in use go on.
func (o *Opener) Drop(store backends.Store, object string) {
	var gone []*stack
	o.mu.Lock()
	o.kept = slices.DeleteFunc(o.kept, func(k kept) bool {
		if k.stack.spec.Object != object || k.stack.spec.Store != store {
			return false
		}
		delete(o.stacks, k.stack.key)
		gone = append(gone, k.stack)
		return true
	})
	o.mu.Unlock()
	for _, s := range gone {
		o.close(s)
	}
}

// drop forgets the n stacks that were kept longest. The caller holds o.mu, and
// closes them without it.
func (o *Opener) drop(n int) []*stack {
	gone := make([]*stack, n)
	for i := range gone {
		gone[i] = o.kept[i].stack
		delete(o.stacks, gone[i].key)
	}
	o.kept = slices.Delete(o.kept, 0, n)
	return gone
}
