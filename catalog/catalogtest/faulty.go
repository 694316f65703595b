package catalogtest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// Faulty is a KV that can be taken away. Use NewFaulty.
type Faulty struct {
	kv catalog.KV

	mu      sync.Mutex
	down    error
	cut     chan struct{} // closed when the KV goes away
	before  func(catalog.Txn)
	lostAck bool
}

// NewFaulty returns a KV that works as kv until told otherwise.
func NewFaulty(kv catalog.KV) *Faulty { return &Faulty{kv: kv, cut: make(chan struct{})} }

// Down takes the KV away: calls fail, watches end.
func (f *Faulty) Down() { f.fail(catalog.ErrUnavailable) }

// Forget ends all watches as if what they have missed were lost.
func (f *Faulty) Forget() {
	f.fail(catalog.ErrCompacted)
	f.Up()
}

// Up gives the KV back.
func (f *Faulty) Up() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.cut = nil, make(chan struct{})
}

// Before sets what is called before each Commit: a place for others to be
// faster. Nil is nothing.
func (f *Faulty) Before(do func(catalog.Txn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = do
}

// LoseAnswer makes the next Commit happen and say that the KV is away.
func (f *Faulty) LoseAnswer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lostAck = true
}

func (f *Faulty) fail(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down == nil {
		close(f.cut)
	}
	f.down = fmt.Errorf("catalogtest: told to fail: %w", why)
}

func (f *Faulty) state() (cut <-chan struct{}, down error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut, f.down
}

// Get is that of the KV, while it is there.
func (f *Faulty) Get(ctx context.Context, key string) (catalog.Pair, error) {
	if _, down := f.state(); down != nil {
		return catalog.Pair{}, down
	}
	return f.kv.Get(ctx, key)
}

// List is that of the KV, while it is there.
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return func(yield func(catalog.Pair, error) bool) {
		for p, err := range f.kv.List(ctx, prefix, after) {
			if _, down := f.state(); down != nil {
				p, err = catalog.Pair{}, down
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// Commit is that of the KV, while it is there.
func (f *Faulty) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	if _, down := f.state(); down != nil {
		return 0, down
	}
	f.mu.Lock()
	before, lost := f.before, f.lostAck
	f.before, f.lostAck = nil, false
	f.mu.Unlock()
	if before != nil {
		before(txn)
	}
	rev, err := f.kv.Commit(ctx, txn)
	if err == nil && lost {
		return 0, fmt.Errorf("catalogtest: the answer is lost: %w", catalog.ErrUnavailable)
	}
	return rev, err
}

// Lease is that of the KV, while it is there; so are its renewals.
func (f *Faulty) Lease(ctx context.Context, ttl time.Duration) (catalog.Lease, error) {
	if _, down := f.state(); down != nil {
		return nil, down
	}
	l, err := catalog.NewLease(ctx, f.kv, ttl)
	if err != nil {
		return nil, err
	}
	return &faultyLease{f, l}, nil
}

type faultyLease struct {
	f     *Faulty
	lease catalog.Lease
}

func (l *faultyLease) ID() int64 { return l.lease.ID() }

func (l *faultyLease) Renew(ctx context.Context) (time.Duration, error) {
	if _, down := l.f.state(); down != nil {
		return 0, down
	}
	return l.lease.Renew(ctx)
}

func (l *faultyLease) Revoke(ctx context.Context) error {
	if _, down := l.f.state(); down != nil {
		return down
	}
	return l.lease.Revoke(ctx)
}

// Watch is that of the KV, until it is taken away.
func (f *Faulty) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return func(yield func(catalog.Event, error) bool) {
		cut, down := f.state()
		if down != nil {
			yield(catalog.Event{}, down)
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		var waiting sync.WaitGroup
		defer waiting.Wait()
		defer cancel(nil)
		waiting.Go(func() {
			select {
			case <-cut:
				_, why := f.state()
				if why == nil {
					why = catalog.ErrCompacted
				}
				cancel(why)
			case <-ctx.Done():
			}
		})
		for e, err := range f.kv.Watch(ctx, prefix, rev) {
			if err != nil {
				if cause := context.Cause(ctx); cause != nil {
					err = cause
				}
				yield(catalog.Event{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
