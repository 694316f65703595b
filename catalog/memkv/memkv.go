// Package memkv keeps a catalog in memory: for tests, and as the plainest
// statement of what a catalog.KV promises.
package memkv

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"

	"github.com/seed-478a8fee/platter/catalog"
)

// history is how many events are kept for watches that begin in the past.
const history = 1 << 16

// A KV is a catalog.KV in memory. Use New.
type KV struct {
	mu        sync.Mutex
	pairs     *btree.BTreeG[catalog.Pair] // by key
	rev       int64
	events    []catalog.Event // in order
	compacted int64           // changes up to here are forgotten
	changed   chan struct{}   // closed, and replaced, by each commit

	start     time.Time     // of the clock
	manual    bool          // the clock is now
	now       time.Duration // if manual
	leases    map[int64]*lease
	lastLease int64
	leased    map[string]*lease // by key
}

var _ catalog.KV = (*KV)(nil)

// New returns an empty KV.
func New() *KV {
	less := func(a, b catalog.Pair) bool { return a.Key < b.Key }
	return &KV{
		pairs: btree.NewG(16, less), rev: 1, changed: make(chan struct{}),
		start: time.Now(), leases: map[int64]*lease{}, leased: map[string]*lease{},
	}
}

// Get returns the record at key.
func (kv *KV) Get(ctx context.Context, key string) (catalog.Pair, error) {
	if err := ctx.Err(); err != nil {
		return catalog.Pair{}, err
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	p, ok := kv.pairs.Get(catalog.Pair{Key: key})
	if !ok {
		return p, fmt.Errorf("memkv: get %s: %w", key, fs.ErrNotExist)
	}
	p.AsOf = kv.rev
	return p, nil
}

// List yields the records under prefix, as of one revision.
func (kv *KV) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return func(yield func(catalog.Pair, error) bool) {
		kv.mu.Lock()
		pairs, rev := kv.pairs.Clone(), kv.rev
		kv.mu.Unlock()
		pairs.AscendGreaterOrEqual(catalog.Pair{Key: max(prefix, after)}, func(p catalog.Pair) bool {
			if err := ctx.Err(); err != nil {
				yield(catalog.Pair{}, err)
				return false
			}
			if !strings.HasPrefix(p.Key, prefix) {
				return false
			}
			p.AsOf = rev
			return p.Key == after || yield(p, nil)
		})
	}
}

// Commit applies txn if its conditions hold.
func (kv *KV) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	if err := txn.Check(); err != nil {
		return 0, fmt.Errorf("memkv: commit: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	for _, cond := range txn.If {
		if !kv.holds(cond) {
			return 0, fmt.Errorf("memkv: commit: %s: %w", cond.Key, catalog.ErrConflict)
		}
	}
	for _, op := range txn.Then {
		if op.Lease != 0 && kv.leases[op.Lease] == nil {
			return 0, fmt.Errorf("memkv: commit: %s: lease %d: %w", op.Key, op.Lease, catalog.ErrLeaseGone)
		}
	}
	first := len(kv.events)
	for _, op := range txn.Then {
		kv.apply(op, kv.rev+1)
	}
	kv.publish(first)
	return kv.rev, nil
}

// publish makes the events from the given one on the newest revision.
func (kv *KV) publish(first int) {
	if len(kv.events) == first {
		return
	}
	kv.rev++
	for i := first; i < len(kv.events)-1; i++ {
		kv.events[i].More = true
	}
	if len(kv.events) > 2*history {
		kv.compact(kv.events[len(kv.events)-history].Revision)
	}
	close(kv.changed)
	kv.changed = make(chan struct{})
}

// Compact forgets the changes up to revision rev.
func (kv *KV) Compact(_ context.Context, rev int64) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.compact(min(rev, kv.rev))
	return nil
}

func (kv *KV) compact(rev int64) {
	kv.compacted = max(kv.compacted, rev)
	kv.events = slices.Clone(kv.events[kv.find(rev):])
}

// find returns the place of the first event after rev.
func (kv *KV) find(rev int64) int {
	i, _ := slices.BinarySearchFunc(kv.events, rev+1, func(e catalog.Event, rev int64) int {
		return int(e.Revision - rev)
	})
	return i
}

// Watch yields each change under prefix after rev.
func (kv *KV) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return func(yield func(catalog.Event, error) bool) {
		for {
			events, changed, err := kv.since(rev)
			if err != nil {
				yield(catalog.Event{}, err)
				return
			}
			if len(events) > 0 {
				rev = events[len(events)-1].Revision
			}
			for _, e := range under(prefix, events) {
				if ctx.Err() != nil {
					break
				}
				if !yield(e, nil) {
					return
				}
			}
			select {
			case <-ctx.Done():
				yield(catalog.Event{}, ctx.Err())
				return
			case <-changed:
			}
		}
	}
}

// since returns the events after rev, and what to wait for when they are used
// up.
func (kv *KV) since(rev int64) ([]catalog.Event, <-chan struct{}, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if rev < kv.compacted || rev > kv.rev {
		return nil, nil, fmt.Errorf("memkv: watch from %d: %w", rev, catalog.ErrCompacted)
	}
	return kv.events[kv.find(rev):len(kv.events):len(kv.events)], kv.changed, nil
}

// under returns the events under prefix, each with More as it then is.
func under(prefix string, events []catalog.Event) []catalog.Event {
	var out []catalog.Event
	for _, e := range events {
		if !strings.HasPrefix(e.Key, prefix) {
			continue
		}
		if n := len(out); n > 0 {
			out[n-1].More = out[n-1].Revision == e.Revision
		}
		e.More = false
		out = append(out, e)
	}
	return out
}

func (kv *KV) holds(c catalog.Cond) bool {
	if !c.Prefix {
		p, _ := kv.pairs.Get(catalog.Pair{Key: c.Key})
		return p.Revision == c.Revision
	}
	return len(kv.keysUnder(c.Key)) == 0
}

func (kv *KV) apply(op catalog.Op, rev int64) {
	switch {
	case op.Delete && op.Prefix:
		for _, key := range kv.keysUnder(op.Key) {
			kv.delete(key, rev)
		}
	case op.Delete:
		kv.delete(op.Key, rev)
	default:
		value := slices.Clone(op.Value)
		kv.attach(op.Key, op.Lease)
		kv.pairs.ReplaceOrInsert(catalog.Pair{Key: op.Key, Value: value, Revision: rev})
		kv.events = append(kv.events, catalog.Event{Key: op.Key, Value: value, Revision: rev})
	}
}

func (kv *KV) delete(key string, rev int64) {
	if _, was := kv.pairs.Delete(catalog.Pair{Key: key}); was {
		kv.attach(key, 0)
		kv.events = append(kv.events, catalog.Event{Key: key, Revision: rev, Deleted: true})
	}
}

func (kv *KV) keysUnder(prefix string) []string {
	var keys []string
	kv.pairs.AscendGreaterOrEqual(catalog.Pair{Key: prefix}, func(p catalog.Pair) bool {
		if !strings.HasPrefix(p.Key, prefix) {
			return false
		}
		keys = append(keys, p.Key)
		return true
	})
	return keys
}
