package schedules

import (
	"context"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/catalog"
)

// A bug is something planted, which must be found.
type bug string

// The bugs.
const (
	none       bug = ""
	anyEpoch   bug = "a head is committed without its condition"
	neverDirty bug = "it is acknowledged before the catalog knows that a journal is needed"
	openGate   bug = "nobody looks at the clock before he acknowledges"
	noSync     bug = "nothing is synced"
	allGone    bug = "a gateway that runs is taken for gone"
	anySince   bug = "nobody knows since when a journal counts"
	sweeper    bug = "what no head refers to is deleted at once"
)

// spoil is what a bug makes of a transaction; skip says that it is not made.
func (b bug) spoil(txn catalog.Txn) (_ catalog.Txn, skip bool) {
	head, take := false, false
	for _, op := range txn.Then {
		head = head || strings.HasPrefix(op.Key, "head/")
		take = take || strings.HasPrefix(op.Key, "ovl/")
	}
	switch {
	case b == anyEpoch && head && !take:
		txn.If = slices.DeleteFunc(slices.Clone(txn.If), func(c catalog.Cond) bool { return strings.HasPrefix(c.Key, "head/") })
	case b == neverDirty && !take:
		return txn, slices.ContainsFunc(txn.Then, func(op catalog.Op) bool { return strings.HasPrefix(op.Key, "dirty/") && !op.Delete })
	case b == allGone && take:
		txn.If = slices.DeleteFunc(slices.Clone(txn.If), func(c catalog.Cond) bool { return strings.HasPrefix(c.Key, "gw/") && c.Revision == 0 })
	case b == anySince && take:
		txn.Then = slices.Clone(txn.Then)
		for i, op := range txn.Then {
			if at := strings.Index(string(op.Value), `"held_since":`); at >= 0 {
				v := slices.Clone(op.Value)
				for k := at + len(`"held_since":`); v[k] >= '0' && v[k] <= '9'; k++ {
					v[k] = ' '
				}
				v[at+len(`"held_since":`)] = '1'
				txn.Then[i].Value = v
			}
		}
	}
	return txn, false
}

// collector is what removes garbage.
func (b bug) collector() request {
	if b == sweeper {
		return sweepAll
	}
	return collect
}

// sweepAll deletes what the head does not refer to, as it was a moment ago.
func sweepAll(ctx context.Context, l *life) {
	keys, err := objectlog.Objects(ctx, objectlog.Config{ID: overlayID, Store: pipe{l}, Prefix: prefix, Heads: heads{l.cat}})
	for e, bad := range backends.List(ctx, l.w.store) {
		if err != nil || bad != nil {
			break
		}
		if ours(e.Key) && !slices.Contains(keys, e.Key) {
			err = pipe{l}.Delete(ctx, e.Key)
		}
	}
	l.told("sweep", err, func(*world, *client) {})
}
