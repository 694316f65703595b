package catalog

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// discard returns the operation that queues an object as garbage.
func (c *Catalog) discard(store, key string) Op {
	now := c.now()
	g := Garbage{Store: store, Key: key, Since: now}
	op, err := put(garbageKey(now, uuid.NewString()), g.record())
	if err != nil {
		panic(err) // two names and a time always fit
	}
	return op
}

// QueueGarbage queues an object of a store to be removed.
func (c *Catalog) QueueGarbage(ctx context.Context, store, key string) error {
	if _, err := c.commit(ctx, Txn{Then: []Op{c.discard(store, key)}}); err != nil {
		return fmt.Errorf("catalog: queue garbage %s of store %s: %w", key, store, err)
	}
	return nil
}

// Garbage returns the objects that wait to be removed, the oldest first. Who
// has removed one says so with Collected; until then it stays, so that a
// crash in between removes it twice, which does no harm.
func (c *Catalog) Garbage(ctx context.Context) ([]Garbage, error) {
	var list []Garbage
	for p, err := range c.kv.List(ctx, preGarbage, "") {
		if err != nil {
			return nil, fmt.Errorf("catalog: garbage: %w", err)
		}
		g, err := decodeGarbage(p)
		if err != nil {
			c.log.Error("catalog: a record cannot be read and is left out", "key", p.Key, "error", err)
			continue
		}
		list = append(list, g)
	}
	return list, nil
}

// Collected takes garbage off the queue.
func (c *Catalog) Collected(ctx context.Context, g Garbage) error {
	if _, err := c.commit(ctx, Txn{Then: []Op{{Key: preGarbage + g.ID, Delete: true}}}); err != nil {
		return fmt.Errorf("catalog: garbage %s of store %s: %w", g.Key, g.Store, err)
	}
	return nil
}
