package catalog

import (
	"context"
	"errors"
	"iter"
	"strings"
)

// A Change is one change of one record.
type Change struct {
	Revision int64
	Kind     string // image, member, overlay, attachment, task, gateway, parent
	ID       string // of the record; IMAGE/PROJECT for a member, IMAGE/STORE for a parent
	Deleted  bool
}

// Watch yields the changes after revision rev, in order, each when reads of
// this Catalog show it; rev 0 is now. It outlives failures of the KV, and
// ends with the error of ctx, or with ErrCompacted when the changes after rev
// are no longer kept: then the caller reads everything, and watches on from
// the Revision it took before.
func (c *Catalog) Watch(ctx context.Context, rev int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if rev == 0 {
			rev = c.Revision()
		}
		for wait := newBackoff(); ; wait.sleep(ctx) {
			last, err := c.deliver(ctx, rev, yield)
			if err == nil {
				return
			}
			if last > rev {
				rev = last
				wait.reset()
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if ctx.Err() != nil || errors.Is(err, ErrCompacted) {
				yield(Change{}, err)
				return
			}
		}
	}
}

// deliver yields changes until the KV's watch ends with an error, or, with
// none, until yield has had enough. It returns up to where it has yielded all.
func (c *Catalog) deliver(ctx context.Context, rev int64, yield func(Change, error) bool) (int64, error) {
	for e, err := range c.kv.Watch(ctx, "", rev) {
		if err != nil {
			return rev, err
		}
		if err := c.store.wait(ctx, e.Revision); err != nil {
			return rev, err
		}
		if ch := changeOf(e); ch.Kind != "" && !yield(ch, nil) {
			return rev, nil
		}
		if !e.More {
			rev = e.Revision
		}
	}
	return rev, ErrUnavailable
}

func changeOf(e Event) Change {
	ch := Change{Revision: e.Revision, Deleted: e.Deleted}
	prefix := kindOf(e.Key)
	switch prefix {
	case preImage:
		ch.Kind = "image"
	case preMember:
		ch.Kind = "member"
	case preOverlay:
		ch.Kind = "overlay"
	case preAttach:
		ch.Kind = "attachment"
	case preTask:
		ch.Kind = "task"
	case preGateway:
		ch.Kind = "gateway"
	case preParent:
		ch.Kind = "parent"
	case preDirty: // of an overlay that goes on
		ch.Kind, ch.Deleted = "overlay", false
	}
	ch.ID = strings.TrimPrefix(e.Key, prefix)
	return ch
}
