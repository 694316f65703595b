package memkv

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

var _ catalog.Leaser = (*KV)(nil)

// A lease ends when its time has come, by the clock of its KV.
type lease struct {
	kv    *KV
	id    int64
	ttl   time.Duration
	end   time.Duration // on the KV's clock
	keys  map[string]bool
	timer *time.Timer // nil: the clock is a test's
}

// NewManual returns an empty KV whose time stands still but for Advance.
func NewManual() *KV {
	kv := New()
	kv.manual = true
	return kv
}

// Now returns the KV's time, which begins at 0.
func (kv *KV) Now() time.Duration {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return kv.clock()
}

func (kv *KV) clock() time.Duration {
	if kv.manual {
		return kv.now
	}
	return time.Since(kv.start)
}

// Advance lets time pass in a KV of NewManual, and ends the leases whose time
// is over.
func (kv *KV) Advance(d time.Duration) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.now += d
	for _, l := range kv.leases {
		if l.end <= kv.now {
			kv.expire(l)
		}
	}
}

// Lease begins a lease.
func (kv *KV) Lease(ctx context.Context, ttl time.Duration) (catalog.Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.lastLease++
	l := &lease{kv: kv, id: kv.lastLease, ttl: ttl, end: kv.clock() + ttl, keys: map[string]bool{}}
	kv.leases[l.id] = l
	if !kv.manual {
		l.timer = time.AfterFunc(ttl, l.timeout)
	}
	return l, nil
}

// timeout ends the lease, unless it was renewed just now.
func (l *lease) timeout() {
	l.kv.mu.Lock()
	defer l.kv.mu.Unlock()
	if l.kv.leases[l.id] == l && l.end <= l.kv.clock() {
		l.kv.expire(l)
	}
}

// expire deletes the lease and its records, in one revision.
func (kv *KV) expire(l *lease) {
	delete(kv.leases, l.id)
	if l.timer != nil {
		l.timer.Stop()
	}
	first := len(kv.events)
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		kv.delete(key, kv.rev+1)
	}
	kv.publish(first)
}

// ID is what the KV knows the lease by.
func (l *lease) ID() int64 { return l.id }

// Renew begins the lease's time anew.
func (l *lease) Renew(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	l.kv.mu.Lock()
	defer l.kv.mu.Unlock()
	if l.kv.leases[l.id] == l && l.end <= l.kv.clock() {
		l.kv.expire(l) // its timer is late
	}
	if l.kv.leases[l.id] != l {
		return 0, fmt.Errorf("memkv: renew lease %d: %w", l.id, catalog.ErrLeaseGone)
	}
	l.end = l.kv.clock() + l.ttl
	if l.timer != nil {
		l.timer.Reset(l.ttl)
	}
	return l.ttl, nil
}

// Revoke ends the lease.
func (l *lease) Revoke(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.kv.mu.Lock()
	defer l.kv.mu.Unlock()
	if l.kv.leases[l.id] == l {
		l.kv.expire(l)
	}
	return nil
}

// attach makes key die with a lease, or, with 0, with none.
func (kv *KV) attach(key string, id int64) {
	if old, ok := kv.leased[key]; ok {
		delete(old.keys, key)
		delete(kv.leased, key)
	}
	if l := kv.leases[id]; l != nil {
		l.keys[key] = true
		kv.leased[key] = l
	}
}
