package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Limits of what can be queued as garbage together with something else.
const (
	packKeys   = 64   // objects in one record of the queue
	MaxGarbage = 4096 // objects that CommitHead takes
)

// Garbage is an object that no record needs any more and that somebody has to
// remove from its store.
type Garbage struct {
	ID        string // of the record in the queue, which may have several objects
	Store     string
	Key       string
	Since     time.Time
	NotBefore time.Time // not to be removed before; zero: at once
}

// discard returns the operation that queues an object as garbage.
func (c *Catalog) discard(store, key string) Op {
	return c.discardLater(store, key, 0)
}

// discardLater is discard of what somebody may yet use for a while.
func (c *Catalog) discardLater(store, key string, wait time.Duration) Op {
	ops, err := c.discardAll([]Garbage{{Store: store, Key: key}}, wait)
	if err != nil {
		panic(err) // two names and two times always fit
	}
	return ops[0]
}

// discardAll returns the operations that queue objects as garbage that nobody
// may remove before wait is over.
func (c *Catalog) discardAll(list []Garbage, wait time.Duration) ([]Op, error) {
	if len(list) > MaxGarbage {
		return nil, fmt.Errorf("%d objects to be removed, %d are allowed: %w", len(list), MaxGarbage, ErrTooBig)
	}
	now := c.now()
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Garbage) int {
		return cmp.Or(strings.Compare(a.Store, b.Store), a.NotBefore.Compare(b.NotBefore))
	})
	var records []garbageRecord
	for _, g := range list {
		r := garbageRecord{V: recordVersion, Store: g.Store, Key: g.Key, Since: now}
		if wait > 0 {
			r.NotBefore = now.Add(wait)
		}
		if g.NotBefore.After(r.NotBefore) {
			r.NotBefore = moment(g.NotBefore)
		}
		r.V = version(!r.NotBefore.IsZero())
		records = pack(records, r)
	}
	ops := make([]Op, len(records))
	for i, r := range records {
		op, err := put(garbageKey(now, uuid.NewString()), r)
		if err != nil {
			return nil, err
		}
		ops[i] = op
	}
	return ops, nil
}

// pack adds the object of r to the last record, if it fits there.
func pack(list []garbageRecord, r garbageRecord) []garbageRecord {
	if len(list) == 0 {
		return append(list, r)
	}
	last := &list[len(list)-1]
	if last.Store != r.Store || !last.NotBefore.Equal(r.NotBefore) || len(last.Keys) == packKeys {
		return append(list, r)
	}
	if len(last.Keys) == 0 {
		last.Keys, last.Key, last.V = []string{last.Key}, "", newerVersion
	}
	last.Keys = append(last.Keys, r.Key)
	return list
}

// QueueGarbage queues an object of a store to be removed.
func (c *Catalog) QueueGarbage(ctx context.Context, store, key string) error {
	if _, err := c.commit(ctx, Txn{Then: []Op{c.discard(store, key)}}); err != nil {
		return fmt.Errorf("catalog: queue garbage %s of store %s: %w", key, store, err)
	}
	return nil
}

// Garbage returns the objects that may be removed now, the oldest first. Who
// has removed one says so with Collected; until then it stays, so that a
// crash in between removes it twice, which does no harm.
//
// What must not be removed before some time is not returned before. That time
// is measured here, from when this Catalog first saw the entry, so that the
// clocks of gateways may differ and be set: a gateway that has just started
// waits once more.
func (c *Catalog) Garbage(ctx context.Context) ([]Garbage, error) {
	var list []Garbage
	seen := c.waits.round(c.cfg.Clock)
	for p, err := range c.kv.List(ctx, preGarbage, "") {
		if err != nil {
			return nil, fmt.Errorf("catalog: garbage: %w", err)
		}
		more, err := decodeGarbage(p)
		if err != nil {
			c.log.Error("catalog: a record cannot be read and is left out", "key", p.Key, "error", err)
			continue
		}
		if g := more[0]; g.NotBefore.IsZero() || seen.since(g.ID) >= g.NotBefore.Sub(g.Since) {
			list = append(list, more...)
		}
	}
	seen.end()
	return list, nil
}

// Collected takes an object off the queue.
func (c *Catalog) Collected(ctx context.Context, g Garbage) error {
	err := c.retry(ctx, func(int) error { return c.collected(ctx, g) })
	if err != nil {
		return fmt.Errorf("catalog: garbage %s of store %s: %w", g.Key, g.Store, err)
	}
	return nil
}

func (c *Catalog) collected(ctx context.Context, g Garbage) error {
	key := preGarbage + g.ID
	p, err := c.kv.Get(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r garbageRecord
	if err := decode(p, &r, &r.V); err != nil {
		return err
	}
	r.Keys = slices.DeleteFunc(r.Keys, func(k string) bool { return k == g.Key })
	op := Op{Key: key, Delete: true}
	if len(r.Keys) > 0 {
		if op, err = put(key, r); err != nil {
			return err
		}
	}
	_, err = c.commit(ctx, Txn{If: []Cond{{Key: key, Revision: p.Revision}}, Then: []Op{op}})
	return err
}
