package schedules

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// A link is the way of one life of a gateway to the catalog's KV.
type link struct{ l *life }

// shown are the keys whose reads decide something: there a gateway stops.
func shown(key string) bool {
	for _, prefix := range []string{"ovl/", "head/", "gw/", "hold/"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// kind is a key without what differs from run to run.
func kind(key string) string {
	name, _, _ := strings.Cut(key, "/")
	return name
}

func (k link) Get(ctx context.Context, key string) (p catalog.Pair, err error) {
	get := func() error {
		p, err = k.l.w.kv.Get(context.Background(), key)
		if k.l.w.cfg.bug == noOther && key == "ovl/"+overlayID && err == nil {
			p.Value = k.l.w.own(p.Value, k.l.gw.name)
		}
		if k.l.w.cfg.bug == allGone && strings.HasPrefix(key, "gw/") && key != "gw/"+k.l.gw.name {
			_, err = k.l.w.kv.Get(context.Background(), "gw/nobody")
		}
		return err
	}
	if !shown(key) {
		if err := k.l.reach(onKV); err != nil {
			return p, err
		}
		return p, get()
	}
	err = k.l.at(ctx, onKV, "get "+kind(key), get)
	return p, err
}

// reach is an error while the other side cannot be reached.
func (l *life) reach(on side) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	switch {
	case l.dead:
		return errDead
	case l.gw.cut(on):
		return errLost
	}
	return nil
}

func (k link) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return func(yield func(catalog.Pair, error) bool) {
		if err := k.l.reach(onKV); err != nil {
			yield(catalog.Pair{}, err)
			return
		}
		k.l.w.kv.List(ctx, prefix, after)(yield)
	}
}

func (k link) Commit(ctx context.Context, txn catalog.Txn) (rev int64, err error) {
	names := make([]string, 0, len(txn.Then))
	for _, op := range txn.Then {
		if name := kind(op.Key); len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	accept := k.l.accepting()
	err = k.l.at(ctx, onKV, "commit "+strings.Join(names, "+"), func() error {
		rev, err = k.l.w.commit(k.l, txn, accept)
		return err
	})
	return rev, err
}

// commit is the KV's, and tells the model of it. With mu held.
func (w *world) commit(l *life, txn catalog.Txn, accept bool) (int64, error) {
	txn, skip := w.cfg.bug.spoil(txn)
	if skip {
		p, err := w.kv.Get(context.Background(), "head/"+overlayID)
		return p.Revision, err
	}
	rev, err := w.kv.Commit(context.Background(), txn)
	if err != nil {
		return rev, err
	}
	for _, op := range txn.Then {
		if op.Key != "ovl/"+overlayID {
			continue
		}
		var r struct {
			Gateway string `json:"gateway"`
			Epoch   int64  `json:"epoch"`
		}
		if err := json.Unmarshal(op.Value, &r); err != nil {
			w.fail("the record of the overlay: %v", err)
		}
		if r.Epoch != w.m.epoch {
			w.m.take(w, l, r.Gateway, r.Epoch, accept)
		}
	}
	return rev, nil
}

// Watch ends when the gateway is cut off.
func (k link) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return func(yield func(catalog.Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		w := k.l.w
		w.mu.Lock()
		if k.l.dead || k.l.gw.cut(onKV) {
			w.mu.Unlock()
			yield(catalog.Event{}, errLost)
			return
		}
		k.l.hangUp = append(k.l.hangUp, cancel)
		w.mu.Unlock()
		for e, err := range w.kv.Watch(ctx, prefix, rev) {
			if cause := context.Cause(ctx); err != nil && cause != nil {
				err = cause
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Lease begins a lease.
func (k link) Lease(ctx context.Context, ttl time.Duration) (catalog.Lease, error) {
	var lease catalog.Lease
	err := k.l.at(ctx, onKV, "lease", func() (err error) {
		lease, err = k.l.w.kv.Lease(context.Background(), ttl)
		return err
	})
	return leased{k.l, lease}, err
}

type leased struct {
	l     *life
	lease catalog.Lease
}

func (d leased) ID() int64 { return d.lease.ID() }

func (d leased) Renew(ctx context.Context) (ttl time.Duration, err error) {
	err = d.l.at(ctx, onKV, "renew", func() error {
		ttl, err = d.lease.Renew(context.Background())
		return err
	})
	return ttl, err
}

func (d leased) Revoke(ctx context.Context) error {
	return d.l.at(ctx, onKV, "revoke", func() error { return d.lease.Revoke(context.Background()) })
}
