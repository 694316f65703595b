package catalog

import (
	"context"
	"strings"
)

// An Observer learns of what this Catalog has changed, after it is in the KV
// and before the call that made the change returns. What other gateways
// change it does not learn: each of them has its own. Before is nil of what is
// new, after of what is gone; both are the Observer's. Its calls must not
// block, and ctx has the values of whoever made the change.
//
// A change whose answer was lost, so that nobody knows whether it was made, is
// not told.
type Observer interface {
	ImageChanged(ctx context.Context, before, after *Image)
	MemberChanged(ctx context.Context, before, after *Member)
	TaskChanged(ctx context.Context, before, after *Task)
}

// observing returns what tells the Observer of a transaction once it is made.
// The records from before are read now: the index has them still.
func (c *Catalog) observing(ctx context.Context, txn Txn) (tell func(rev int64)) {
	var tells []func(rev int64)
	for _, op := range txn.Then {
		if op.Prefix {
			continue // members go with their image, and nobody is told of each
		}
		switch kindOf(op.Key) {
		case preImage:
			tells = append(tells, observed(ctx, c, imageKind(), op, Image.Clone, c.cfg.Observer.ImageChanged))
		case preMember:
			tells = append(tells, observed(ctx, c, memberKind(), op, func(m Member) Member { return m }, c.cfg.Observer.MemberChanged))
		case preTask:
			tells = append(tells, observed(ctx, c, taskKind(), op, Task.Clone, c.cfg.Observer.TaskChanged))
		}
	}
	return func(rev int64) {
		for _, tell := range tells {
			tell(rev)
		}
	}
}

func observed[T any](ctx context.Context, c *Catalog, k kind[T], op Op, own func(T) T, tell func(ctx context.Context, before, after *T)) func(rev int64) {
	var before *T
	c.store.read(func(s *state) {
		if v, _, ok := k.cached(s, strings.TrimPrefix(op.Key, k.prefix)); ok {
			v = own(v)
			before = &v
		}
	})
	return func(rev int64) {
		var after *T
		if !op.Delete {
			v, err := k.decode(Pair{Key: op.Key, Value: op.Value, Revision: rev})
			if err != nil {
				c.log.ErrorContext(ctx, "a record that was just written cannot be read, so nobody is told of it", "key", op.Key, "err", err)
				return
			}
			after = &v
		}
		if before != nil || after != nil {
			tell(ctx, before, after)
		}
	}
}

type contextKey int

const storeKey contextKey = iota

func withStore(ctx context.Context, store string) context.Context {
	return context.WithValue(ctx, storeKey, store)
}

// UploadStore returns where the bytes go, for an Observer that is told that an
// upload has begun, and "" otherwise.
func UploadStore(ctx context.Context) string {
	store, _ := ctx.Value(storeKey).(string)
	return store
}
