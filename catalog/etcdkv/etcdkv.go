// Package etcdkv keeps a catalog in etcd, version 3.4 or later.
//
// Reads are linearizable, listings are of one revision, every Commit is one
// etcd transaction. Every call is over within seconds: an etcd that does not
// answer is catalog.ErrUnavailable.
package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-478a8fee/platter/catalog"
)

const (
	patience = 5 * time.Second // for one call; etcd elects a leader in less
	pageSize = 500             // records of a listing fetched at once
	pageMost = 8 << 20         // bytes of a page after which the next has fewer records
)

// A KV is a catalog.KV in etcd. Use New.
type KV struct {
	client *clientv3.Client
	prefix string

	mu      sync.Mutex
	highest int64         // revision that any answer had
	rewound chan struct{} // closed, and replaced, when etcd has gone back in time
}

var _ catalog.KV = (*KV)(nil)

// New returns the KV under a prefix of etcd's keys. The client stays the
// caller's to close.
func New(client *clientv3.Client, prefix string) *KV {
	return &KV{client: client, prefix: strings.TrimSuffix(prefix, "/") + "/", rewound: make(chan struct{})}
}

// Get returns the record at key.
func (kv *KV) Get(ctx context.Context, key string) (catalog.Pair, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	before := kv.newest()
	resp, err := kv.client.Get(ctx, kv.prefix+key)
	if err != nil {
		return catalog.Pair{}, explain(ctx, "get "+key, err)
	}
	kv.saw(before, resp.Header.Revision)
	if len(resp.Kvs) == 0 {
		return catalog.Pair{}, fmt.Errorf("etcdkv: get %s: %w", key, fs.ErrNotExist)
	}
	return kv.pair(resp.Kvs[0], resp.Header.Revision), nil
}

func (kv *KV) pair(p *mvccpb.KeyValue, asOf int64) catalog.Pair {
	return catalog.Pair{Key: strings.TrimPrefix(string(p.Key), kv.prefix), Value: p.Value, Revision: p.ModRevision, AsOf: asOf}
}

// List yields the records under prefix, as of one revision. While one page is
// used, the next is on its way.
func (kv *KV) List(ctx context.Context, prefix, after string) iter.Seq2[catalog.Pair, error] {
	return func(yield func(catalog.Pair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var fetching sync.WaitGroup
		defer fetching.Wait()
		defer cancel()
		end := clientv3.GetPrefixRangeEnd(kv.prefix + prefix)
		fetch := func(from string, rev, limit int64) <-chan page {
			out := make(chan page, 1)
			fetching.Go(func() { out <- kv.page(ctx, from, end, rev, limit) })
			return out
		}
		from := kv.prefix + prefix
		if after >= prefix && after != "" {
			from = kv.prefix + after + "\x00"
		}
		for next := fetch(from, 0, pageSize); next != nil; {
			p := <-next
			if p.err != nil {
				yield(catalog.Pair{}, p.err)
				return
			}
			if next = nil; p.more {
				next = fetch(string(p.kvs[len(p.kvs)-1].Key)+"\x00", p.rev, p.follows())
			}
			for _, rec := range p.kvs {
				if !yield(kv.pair(rec, p.rev), nil) {
					return
				}
			}
		}
	}
}

// A page is a part of a listing.
type page struct {
	kvs  []*mvccpb.KeyValue
	rev  int64
	more bool
	err  error
}

// follows returns how many records to fetch next: fewer after large ones, so
// that a page can be had in time.
func (p page) follows() int64 {
	size := 0
	for _, rec := range p.kvs {
		size += len(rec.Value)
	}
	if size <= pageMost {
		return pageSize
	}
	return max(1, int64(len(p.kvs))*pageMost/int64(size))
}

func (kv *KV) page(ctx context.Context, from, end string, rev, limit int64) page {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	resp, err := kv.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(rev))
	if err != nil {
		return page{err: explain(ctx, "list from "+from, err)}
	}
	if rev == 0 {
		rev = resp.Header.Revision
	}
	return page{kvs: resp.Kvs, rev: rev, more: resp.More && len(resp.Kvs) > 0}
}

// Commit applies txn in one etcd transaction.
func (kv *KV) Commit(ctx context.Context, txn catalog.Txn) (int64, error) {
	if err := txn.Check(); err != nil {
		return 0, fmt.Errorf("etcdkv: commit: %w", err)
	}
	conds := make([]clientv3.Cmp, len(txn.If))
	for i, c := range txn.If {
		conds[i] = kv.cond(c)
	}
	ops := make([]clientv3.Op, len(txn.Then))
	for i, op := range txn.Then {
		ops[i] = kv.op(op)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	before := kv.newest()
	resp, err := kv.client.Txn(ctx).If(conds...).Then(ops...).Commit()
	if err != nil {
		return 0, explain(ctx, "commit", err)
	}
	kv.saw(before, resp.Header.Revision)
	if !resp.Succeeded {
		return 0, fmt.Errorf("etcdkv: commit: %w", catalog.ErrConflict)
	}
	return resp.Header.Revision, nil
}

// cond compares revisions. A key that is not there has revision 0, and so has
// a range without keys; each key in a range must fulfil the comparison.
func (kv *KV) cond(c catalog.Cond) clientv3.Cmp {
	key := kv.prefix + c.Key
	cmp := clientv3.Compare(clientv3.ModRevision(key), "=", c.Revision)
	if c.Prefix {
		return cmp.WithRange(clientv3.GetPrefixRangeEnd(key))
	}
	return cmp
}

func (kv *KV) op(op catalog.Op) clientv3.Op {
	key := kv.prefix + op.Key
	switch {
	case op.Delete && op.Prefix:
		return clientv3.OpDelete(key, clientv3.WithPrefix())
	case op.Delete:
		return clientv3.OpDelete(key)
	}
	return clientv3.OpPut(key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease)))
}

// Compact forgets the changes up to revision rev, in all of etcd.
func (kv *KV) Compact(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	if _, err := kv.client.Compact(ctx, rev); err != nil {
		return explain(ctx, "compact", err)
	}
	return nil
}

// Watch yields each change under prefix after rev.
func (kv *KV) Watch(ctx context.Context, prefix string, rev int64) iter.Seq2[catalog.Event, error] {
	return func(yield func(catalog.Event, error) bool) {
		rewound := kv.rewoundChan()
		inner, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		// Without a leader the watch of a member that was cut off would say
		// nothing for ever; with the requirement it ends, and the client goes
		// to another member.
		responses := kv.client.Watch(inner, kv.prefix+prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1),
			clientv3.WithFragment(), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
		for {
			var resp clientv3.WatchResponse
			open := true
			select {
			case resp, open = <-responses:
			case <-rewound:
				resp.Canceled, resp.CompactRevision = true, rev+1
			}
			err := watchError(ctx, resp, open, rev)
			if err == nil && resp.Created && resp.Header.Revision < rev {
				err = kv.checkHistory(ctx, rev)
			}
			if err != nil {
				yield(catalog.Event{}, err)
				return
			}
			for i, e := range resp.Events {
				if !yield(kv.event(e, resp.Events[i+1:]), nil) {
					return
				}
				rev = e.Kv.ModRevision
			}
		}
	}
}

// watchError tells whether a watch that has delivered all up to rev is over.
func watchError(ctx context.Context, resp clientv3.WatchResponse, open bool, rev int64) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case resp.CompactRevision != 0:
		return fmt.Errorf("etcdkv: watch from %d: %w", rev, catalog.ErrCompacted)
	case resp.Err() != nil:
		return explain(ctx, "watch", resp.Err())
	case !open:
		return fmt.Errorf("etcdkv: watch: the stream ended: %w", catalog.ErrUnavailable)
	}
	return nil
}

// checkHistory tells whether the cluster still has the history up to rev. The
// member that answered a watch may only be behind the others, which a
// linearizable read is not.
func (kv *KV) checkHistory(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	resp, err := kv.client.Get(ctx, kv.prefix, clientv3.WithCountOnly())
	if err != nil {
		return explain(ctx, "watch", err)
	}
	if at := resp.Header.Revision; at < rev {
		return fmt.Errorf("etcdkv: watch from %d: etcd is at %d, it has lost its history: %w", rev, at, catalog.ErrCompacted)
	}
	return nil
}

func (kv *KV) event(e *clientv3.Event, rest []*clientv3.Event) catalog.Event {
	out := catalog.Event{
		Key:      strings.TrimPrefix(string(e.Kv.Key), kv.prefix),
		Revision: e.Kv.ModRevision,
		Deleted:  e.Type == clientv3.EventTypeDelete,
		More:     len(rest) > 0 && rest[0].Kv.ModRevision == e.Kv.ModRevision,
	}
	if !out.Deleted {
		out.Value = e.Kv.Value
	}
	return out
}

// newest returns the highest revision that any answer had.
func (kv *KV) newest() int64 {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return kv.highest
}

// saw notes the revision of an answer. One that is lower than what was known
// before the question was asked comes from an etcd that was restored from an
// older snapshot: watches would wait for revisions that come again with other
// contents, so all of them end.
func (kv *KV) saw(before, rev int64) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if rev >= before {
		kv.highest = max(kv.highest, rev)
		return
	}
	kv.highest = rev
	close(kv.rewound)
	kv.rewound = make(chan struct{})
}

func (kv *KV) rewoundChan() <-chan struct{} {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return kv.rewound
}

// errPatience is the cause of a context that ended because etcd took too long.
var errPatience = errors.New("no answer in time")
