package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// slow is how long anything may take that is expected to happen.
const slow = time.Minute

func commit(t testing.TB, kv catalog.KV, ops ...catalog.Op) int64 {
	t.Helper()
	rev, err := kv.Commit(t.Context(), catalog.Txn{Then: ops})
	if err != nil {
		t.Fatalf("commit %v: %v", ops, err)
	}
	return rev
}

func putOp(key, value string) catalog.Op { return catalog.Op{Key: key, Value: []byte(value)} }

func testGetAndCommit(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	if _, err := kv.Get(ctx, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("get of no key: %v, want fs.ErrNotExist", err)
	}
	first := commit(t, kv, putOp("a", "1"), putOp("b", ""))
	p, err := kv.Get(ctx, "a")
	if err != nil || string(p.Value) != "1" || p.Key != "a" || p.Revision != first || p.AsOf < first {
		t.Fatalf("get a: %+v, %v; want 1 at %d", p, err, first)
	}
	second := commit(t, kv, putOp("a", "2"))
	if second <= first {
		t.Fatalf("revisions %d, then %d; they must grow", first, second)
	}
	p, err = kv.Get(ctx, "b")
	if err != nil || len(p.Value) != 0 || p.Revision != first || p.AsOf < second {
		t.Fatalf("get b: %+v, %v; want it empty at %d as of %d", p, err, first, second)
	}
	commit(t, kv, catalog.Op{Key: "a", Delete: true}, catalog.Op{Key: "never", Delete: true})
	if _, err := kv.Get(ctx, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("get after delete: %v, want fs.ErrNotExist", err)
	}
	commit(t, kv, putOp("p/1", ""), putOp("p/2", ""), putOp("q", ""))
	commit(t, kv, catalog.Op{Key: "p/", Delete: true, Prefix: true}, putOp("r", ""))
	if got, want := keys(t, kv, "", ""), []string{"b", "q", "r"}; !slices.Equal(got, want) {
		t.Fatalf("after delete by prefix: keys %q, want %q", got, want)
	}
}

func keys(t testing.TB, kv catalog.KV, prefix, after string) []string {
	t.Helper()
	var out []string
	for p, err := range kv.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		out = append(out, p.Key)
	}
	return out
}

func testConditions(t *testing.T, open Open) {
	kv := open(t)
	rev := commit(t, kv, putOp("a", "1"), putOp("p/x", ""))
	for name, c := range map[string]struct {
		cond catalog.Cond
		ok   bool
	}{
		"revision is right":      {catalog.Cond{Key: "a", Revision: rev}, true},
		"revision is old":        {catalog.Cond{Key: "a", Revision: rev - 1}, false},
		"key is there":           {catalog.Cond{Key: "a"}, false},
		"key is not there":       {catalog.Cond{Key: "none"}, true},
		"revision of no key":     {catalog.Cond{Key: "none", Revision: rev}, false},
		"prefix is used":         {catalog.Cond{Key: "p/", Prefix: true}, false},
		"prefix is the key":      {catalog.Cond{Key: "p/x", Prefix: true}, false},
		"prefix is free":         {catalog.Cond{Key: "o/", Prefix: true}, true},
		"prefix of other prefix": {catalog.Cond{Key: "p/x/", Prefix: true}, true},
	} {
		_, err := kv.Commit(t.Context(), catalog.Txn{If: []catalog.Cond{c.cond}, Then: []catalog.Op{putOp("z", name)}})
		if ok := err == nil; ok != c.ok || !ok && !errors.Is(err, catalog.ErrConflict) {
			t.Errorf("%s: %v, want success %v or ErrConflict", name, err, c.ok)
		}
	}
	// One that fails fails all, and nothing is changed.
	conds := []catalog.Cond{{Key: "a", Revision: rev}, {Key: "a2", Revision: 7}}
	before := keys(t, kv, "", "")
	if _, err := kv.Commit(t.Context(), catalog.Txn{If: conds, Then: []catalog.Op{putOp("new", "")}}); !errors.Is(err, catalog.ErrConflict) {
		t.Errorf("one of two conditions fails: %v, want ErrConflict", err)
	}
	if after := keys(t, kv, "", ""); !slices.Equal(before, after) {
		t.Errorf("a failed transaction changed %q to %q", before, after)
	}
}

func testLimits(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	big := make([]byte, catalog.MaxValue)
	for i := range big {
		big[i] = 'x'
	}
	if _, err := kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: "big", Value: big}}}); err != nil {
		t.Errorf("a record of MaxValue bytes: %v", err)
	}
	if _, err := kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: "big", Value: append(big, 'x')}}}); !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("a record over MaxValue: %v, want ErrTooBig", err)
	}
	var txn catalog.Txn
	for i := range catalog.MaxOps {
		key := fmt.Sprintf("op/%d", i)
		txn.If = append(txn.If, catalog.Cond{Key: key})
		txn.Then = append(txn.Then, putOp(key, ""))
	}
	if _, err := kv.Commit(ctx, txn); err != nil {
		t.Errorf("a transaction of MaxOps conditions and operations: %v", err)
	}
	more := catalog.Txn{Then: append(txn.Then, putOp("one more", ""))}
	if _, err := kv.Commit(ctx, more); !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("a transaction over MaxOps: %v, want ErrTooBig", err)
	}
	twice := catalog.Txn{Then: []catalog.Op{putOp("k", "1"), putOp("k", "2")}}
	if _, err := kv.Commit(ctx, twice); err == nil {
		t.Error("a key touched twice was taken")
	}
}

func testList(t *testing.T, open Open) {
	kv := open(t)
	var want []string
	for i := range 1200 { // more than a page of any KV
		if i%100 == 0 {
			commit(t, kv, putOp(fmt.Sprintf("m/%04d", i), "v"))
			want = append(want, fmt.Sprintf("m/%04d", i))
			continue
		}
		want = append(want, fmt.Sprintf("m/%04d", i))
	}
	for chunk := range slices.Chunk(want, 100) {
		ops := make([]catalog.Op, 0, 100)
		for _, key := range chunk {
			ops = append(ops, putOp(key, "v"))
		}
		commit(t, kv, ops...)
	}
	commit(t, kv, putOp("l", ""), putOp("m", ""), putOp("n", ""))
	if got := keys(t, kv, "m/", ""); !slices.Equal(got, want) {
		t.Errorf("list m/: %d keys, want %d in order", len(got), len(want))
	}
	if got := keys(t, kv, "m/", want[700]); !slices.Equal(got, want[701:]) {
		t.Errorf("list m/ after %s: %d keys, want %d", want[700], len(got), len(want)-701)
	}
	if got := keys(t, kv, "", ""); len(got) != len(want)+3 || !slices.IsSorted(got) {
		t.Errorf("list everything: %d keys, want %d, sorted", len(got), len(want)+3)
	}
	big := make([]byte, catalog.MaxRecord)
	for i := range 80 { // 20 MiB, with small ones between
		commit(t, kv, putOp(fmt.Sprintf("s/%02d", i), string(big[:len(big)>>(i%2*10)])))
	}
	if got := keys(t, kv, "s/", ""); len(got) != 80 || !slices.IsSorted(got) {
		t.Errorf("list large records: %d keys, want 80, sorted", len(got))
	}
	for range kv.List(t.Context(), "m/", "") {
		break // must leave nothing behind
	}
}

func testListIsFrozen(t *testing.T, open Open) {
	kv := open(t)
	for i := range 12 {
		ops := make([]catalog.Op, 0, 100)
		for j := range 100 {
			ops = append(ops, putOp(fmt.Sprintf("k/%04d", 100*i+j), "old"))
		}
		commit(t, kv, ops...)
	}
	n, asOf := 0, int64(0)
	for p, err := range kv.List(t.Context(), "k/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			asOf = p.AsOf
			commit(t, kv, putOp("k/1199", "new"), putOp("k/9999", "new"), catalog.Op{Key: "k/1198", Delete: true})
		}
		if n++; string(p.Value) != "old" || p.AsOf != asOf || p.Revision > asOf {
			t.Fatalf("%s is %q of %d as of %d in a listing as of %d", p.Key, p.Value, p.Revision, p.AsOf, asOf)
		}
	}
	if n != 1200 {
		t.Errorf("%d records, want the 1200 that were there at the start", n)
	}
}

// next takes n events from a watch that began after rev.
func next(t testing.TB, kv catalog.KV, prefix string, rev int64, n int) []catalog.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slow)
	defer cancel()
	var out []catalog.Event
	for e, err := range kv.Watch(ctx, prefix, rev) {
		if err != nil {
			t.Fatalf("watch %q after %d: %v, having %d of %d events", prefix, rev, err, len(out), n)
		}
		if out = append(out, e); len(out) == n {
			break
		}
	}
	return out
}

func testWatch(t *testing.T, open Open) {
	kv := open(t)
	start := commit(t, kv, putOp("w/0", "before"))
	var revs []int64
	var writing sync.WaitGroup
	writing.Go(func() {
		revs = append(revs, commit(t, kv, putOp("w/1", "a"), putOp("other", "x"), putOp("w/2", "b")))
		commit(t, kv, putOp("other", "y"))
		revs = append(revs, commit(t, kv, putOp("w/1", "c")), commit(t, kv, catalog.Op{Key: "w/", Delete: true, Prefix: true}))
	})
	events := next(t, kv, "w/", start, 6)
	writing.Wait()
	want := []catalog.Event{
		{Key: "w/1", Value: []byte("a"), Revision: revs[0], More: true},
		{Key: "w/2", Value: []byte("b"), Revision: revs[0]},
		{Key: "w/1", Value: []byte("c"), Revision: revs[1]},
		{Key: "w/0", Revision: revs[2], Deleted: true, More: true},
		{Key: "w/1", Revision: revs[2], Deleted: true, More: true},
		{Key: "w/2", Revision: revs[2], Deleted: true},
	}
	for i, e := range events {
		w := want[i]
		if e.Key != w.Key || string(e.Value) != string(w.Value) || e.Revision != w.Revision || e.Deleted != w.Deleted || e.More != w.More {
			t.Errorf("event %d is %+v, want %+v", i, e, w)
		}
	}
}

func testWatchResumes(t *testing.T, open Open) {
	kv := open(t)
	start := commit(t, kv, putOp("w/0", ""))
	const n = 100
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range n {
			commit(t, kv, putOp("w/x", fmt.Sprint(i)))
		}
	})
	defer writing.Wait()
	for rev, i := start, 0; i < n; {
		for _, e := range next(t, kv, "w/", rev, min(23, n-i)) {
			if string(e.Value) != fmt.Sprint(i) || e.Revision <= rev {
				t.Fatalf("event %q at %d after %d, want %d", e.Value, e.Revision, rev, i)
			}
			rev, i = e.Revision, i+1
		}
	}
}

func testCompacted(t *testing.T, open Open) {
	kv := open(t)
	c, ok := kv.(Compacter)
	if !ok {
		t.Fatal("this KV cannot compact, so what happens then cannot be tested")
	}
	first := commit(t, kv, putOp("a", "1"))
	var last int64
	for i := range 10 {
		last = commit(t, kv, putOp("a", fmt.Sprint(i)))
	}
	if err := c.Compact(t.Context(), last-1); err != nil {
		t.Fatal(err)
	}
	for _, err := range kv.Watch(t.Context(), "", first) {
		if !errors.Is(err, catalog.ErrCompacted) {
			t.Fatalf("watch from a forgotten revision: %v, want ErrCompacted", err)
		}
		break
	}
	if e := next(t, kv, "", last-1, 1); string(e[0].Value) != "9" {
		t.Errorf("watch from what is kept: %+v", e)
	}
	if p, err := kv.Get(t.Context(), "a"); err != nil || string(p.Value) != "9" {
		t.Errorf("get after compaction: %+v, %v", p, err)
	}
}

func testRaces(t *testing.T, open Open) {
	kv := open(t)
	commit(t, kv, putOp("n", "0"))
	const writers, each = 4, 10
	var lost atomic.Int64
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for done := 0; done < each; {
				p, err := kv.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(p.Value), &n)
				_, err = kv.Commit(t.Context(), catalog.Txn{
					If:   []catalog.Cond{{Key: "n", Revision: p.Revision}},
					Then: []catalog.Op{putOp("n", fmt.Sprint(n+1))},
				})
				switch {
				case err == nil:
					done++
				case errors.Is(err, catalog.ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	p, err := kv.Get(t.Context(), "n")
	if err != nil || string(p.Value) != fmt.Sprint(writers*each) {
		t.Errorf("%d increments made %q, %v (%d races lost)", writers*each, p.Value, err, lost.Load())
	}
}

func testCanceled(t *testing.T, open Open) {
	kv := open(t)
	rev := commit(t, kv, putOp("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	for _, err := range kv.Watch(ctx, "", rev) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("watch whose context ends: %v, want context.Canceled", err)
		}
	}
	if _, err := kv.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v, want context.Canceled", err)
	}
	if _, err := kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{putOp("b", "")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v, want context.Canceled", err)
	}
	for _, err := range kv.List(ctx, "", "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("list: %v, want context.Canceled", err)
		}
	}
}
