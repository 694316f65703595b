package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// A kind is what the generic parts need to know of one kind of record.
type kind[T any] struct {
	name   string
	prefix string
	decode func(Pair) (T, error)
	cached func(s *state, id string) (v T, rev int64, ok bool)
}

// get answers from memory.
func get[T any](c *Catalog, k kind[T], id string) (T, error) {
	var v T
	var found bool
	var err error
	c.store.read(func(s *state) {
		if v, _, found = k.cached(s, id); !found {
			err = s.broken[k.prefix+id]
		}
	})
	if !found && err == nil {
		err = fmt.Errorf("%s %s: %w", k.name, id, fs.ErrNotExist)
	}
	return v, err
}

// fresh answers from the KV.
func fresh[T any](ctx context.Context, c *Catalog, k kind[T], id string) (T, int64, error) {
	var none T
	p, err := c.kv.Get(ctx, k.prefix+id)
	if errors.Is(err, fs.ErrNotExist) {
		return none, 0, fmt.Errorf("%s %s: %w", k.name, id, fs.ErrNotExist)
	}
	if err != nil {
		return none, 0, err
	}
	v, err := k.decode(p)
	return v, p.Revision, err
}

// change makes a transaction out of the record of id, on condition that the
// record has not changed meanwhile. decide gets a value of its own and may be
// called several times: first with what memory has, which is nearly always
// right, then, if that is refused or loses, with what the KV has. So whatever
// comes out was decided on the newest record.
func change[T any](ctx context.Context, c *Catalog, k kind[T], id string, decide func(T) (Txn, error)) (rev int64, err error) {
	key := k.prefix + id
	unlock, err := c.locks.lock(ctx, key)
	if err != nil {
		return 0, err
	}
	defer unlock()
	err = c.retry(ctx, func(try int) error {
		var v T
		var seen int64
		var known bool
		if try == 0 {
			c.store.read(func(s *state) { v, seen, known = k.cached(s, id) })
		}
		txn, err := Txn{}, error(nil)
		if known {
			txn, err = decide(v)
		}
		if !known || err != nil {
			if v, seen, err = fresh(ctx, c, k, id); err != nil {
				return err
			}
			if txn, err = decide(v); err != nil {
				return err
			}
		}
		txn.If = append(slices.Clip(txn.If), Cond{Key: key, Revision: seen})
		rev, err = c.commit(ctx, txn)
		return err
	})
	return rev, err
}

// create writes a record that must not be there yet, if the other conditions
// hold, too.
func create(ctx context.Context, c *Catalog, key string, record any, txn Txn) (int64, error) {
	value, err := encode(key, record)
	if err != nil {
		return 0, err
	}
	txn.If = append(txn.If, Cond{Key: key})
	txn.Then = append(txn.Then, Op{Key: key, Value: value})
	return c.commit(ctx, txn)
}

// put returns the operation that writes a record.
func put(key string, record any) (Op, error) {
	value, err := encode(key, record)
	return Op{Key: key, Value: value}, err
}

// mark returns the operation that writes a key that matters by being there.
func mark(key, by string, at time.Time) Op {
	op, err := put(key, markRecord{recordVersion, by, at})
	if err != nil {
		panic(err) // three plain fields always fit
	}
	return op
}

// users returns who refers to an object, each as "kind id", sorted.
func (c *Catalog) users(ctx context.Context, refKind, id string) ([]string, error) {
	prefix := refPrefix(refKind, id)
	var users []string
	for p, err := range c.kv.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		users = append(users, spaceForSlash(p.Key[len(prefix):]))
	}
	return users, nil
}

// unused returns the condition that nobody refers to an object, or the
// InUseError that says who does.
func (c *Catalog) unused(ctx context.Context, refKind, id string) (Cond, error) {
	users, err := c.users(ctx, refKind, id)
	if err != nil {
		return Cond{}, err
	}
	if len(users) > 0 {
		return Cond{}, &InUseError{Kind: refKind, ID: id, Users: users}
	}
	return Cond{Key: refPrefix(refKind, id), Prefix: true}, nil
}

func spaceForSlash(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] == '/' {
			b[i] = ' '
			break
		}
	}
	return string(b)
}
