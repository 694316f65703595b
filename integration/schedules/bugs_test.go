package schedules

import (
	"context"
	"encoding/json"
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
	noOther    bug = "a gateway does not see that another one has had the overlay"
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
	}
	return txn, false
}

// own is the record of the overlay as noOther has it read by a gateway, unless
// that would show at once.
func (w *world) own(record []byte, name string) []byte {
	var r map[string]any
	if err := json.Unmarshal(record, &r); err != nil {
		return record
	}
	ctx := context.Background()
	other, _ := r["gateway"].(string)
	_, alive := w.kv.Get(ctx, "gw/"+other)
	_, dirty := w.kv.Get(ctx, "dirty/"+overlayID)
	if other != "" && alive == nil || dirty == nil {
		return record
	}
	r["gateway"] = name
	out, err := json.Marshal(r)
	if err != nil {
		return record
	}
	return out
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
	if err == nil {
		err = l.at(ctx, onStore, "list", nil)
	}
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
