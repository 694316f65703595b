package catalog

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"strings"
)

// Limits that every KV must bear and no Catalog exceeds. They are etcd's own
// defaults, with room to spare.
const (
	MaxRecord = 256 << 10 // bytes of one record that is text
	MaxData   = 200 << 10 // bytes that one record keeps for somebody: a head's, a trace's
	MaxValue  = 288 << 10 // bytes of one record: MaxData as text, and some more
	MaxOps    = 128       // conditions, and operations, of one transaction
)

// A KV is a small, strictly consistent map from keys to records. It is all
// that a Catalog asks of etcd. Rules about images live in Catalog, once; a
// KV knows none of them. Any number of goroutines may use a KV at once.
//
// Every change has a revision. Revisions grow, across all keys. A KV that
// cannot be reached answers with ErrUnavailable, within seconds.
type KV interface {
	// Get returns the record at key, or fs.ErrNotExist. It sees every
	// Commit that returned before the call, whoever made it.
	Get(ctx context.Context, key string) (Pair, error)

	// List yields the records under prefix that come after key after, in
	// key order, as of one revision: the newest when List began.
	List(ctx context.Context, prefix, after string) iter.Seq2[Pair, error]

	// Commit applies all of txn or, if one of its conditions fails, none of
	// it and ErrConflict. The revision is that of the change. Two operations
	// must not touch the same key. Over the limits it is ErrTooBig.
	Commit(ctx context.Context, txn Txn) (rev int64, err error)

	// Watch yields each change under prefix after revision rev, once and in
	// order, until ctx ends, which is its last error. If the changes after
	// rev are no longer kept, or rev is from a history that the KV has lost,
	// the error is ErrCompacted. Any other error ends the watch too, and the
	// caller watches again from the last revision of which it has all.
	Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[Event, error]
}

// A Pair is a key and its record.
type Pair struct {
	Key      string
	Value    []byte // not to be changed
	Revision int64  // of the last change of this key
	AsOf     int64  // of the whole KV when this was read
}

// A Txn changes several keys at once, if all its conditions hold.
type Txn struct {
	If   []Cond
	Then []Op
}

// Check holds a transaction to the limits. Every KV asks it before anything
// else, so that all of them refuse the same.
func (t Txn) Check() error {
	if len(t.If) > MaxOps || len(t.Then) > MaxOps {
		return fmt.Errorf("%d conditions and %d operations, %d of each are allowed: %w", len(t.If), len(t.Then), MaxOps, ErrTooBig)
	}
	for i, op := range t.Then {
		if len(op.Value) > MaxValue {
			return fmt.Errorf("%s: %d bytes, %d are allowed: %w", op.Key, len(op.Value), MaxValue, ErrTooBig)
		}
		if op.Lease != 0 && op.Delete {
			return fmt.Errorf("%s is deleted and leased: %w", op.Key, fs.ErrInvalid)
		}
		for _, other := range t.Then[:i] {
			if op.covers(other.Key) || other.covers(op.Key) {
				return fmt.Errorf("%s is touched by two operations: %w", op.Key, fs.ErrInvalid)
			}
		}
	}
	return nil
}

// covers tells whether op touches key.
func (op Op) covers(key string) bool {
	return op.Key == key || op.Prefix && strings.HasPrefix(key, op.Key)
}

// A Cond compares a key with what was seen before.
type Cond struct {
	Key      string
	Revision int64 // of the key's last change; 0: there is no such key
	Prefix   bool  // there is no key that begins with Key; Revision must be 0
}

// An Op changes one key or deletes all under a prefix.
type Op struct {
	Key    string
	Value  []byte
	Lease  int64 // the record dies with this lease; 0: it stays. See Leaser
	Delete bool  // instead of writing Value; no key there is fine
	Prefix bool  // delete every key that begins with Key; only with Delete
}

// An Event is one change of one key.
type Event struct {
	Key      string
	Value    []byte // not to be changed; nil if deleted
	Revision int64
	Deleted  bool
	More     bool // more changes of the same revision follow
}
