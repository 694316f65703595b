package catalogtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// shortest is a lease that is waited for: as short as a machine allows on which
// everything may stand still for a second. No KV gives a longer one instead.
const shortest = 3 * time.Second

// lasting is a lease that does not end by itself.
const lasting = time.Minute

func lease(t testing.TB, kv catalog.KV, ttl time.Duration) catalog.Lease {
	t.Helper()
	l := must(catalog.NewLease(t.Context(), kv, ttl))(t)
	t.Cleanup(func() {
		if err := l.Revoke(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func testLeases(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	one, two := lease(t, kv, lasting), lease(t, kv, lasting)
	if one.ID() == 0 || one.ID() == two.ID() {
		t.Fatalf("leases %d and %d", one.ID(), two.ID())
	}
	leased := func(key string, l catalog.Lease) catalog.Op {
		return catalog.Op{Key: key, Value: []byte("v"), Lease: l.ID()}
	}
	commit(t, kv, leased("l/a", one), leased("l/b", one), leased("l/moved", one), leased("l/kept", one), leased("l/new", one), putOp("l/plain", ""))
	commit(t, kv, leased("l/moved", two), putOp("l/kept", "stays"), catalog.Op{Key: "l/new", Delete: true})
	start := commit(t, kv, putOp("l/new", "stays, too"))
	if _, err := kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{{Key: "l/a", Delete: true, Lease: one.ID()}}}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a delete with a lease: %v, want fs.ErrInvalid", err)
	}
	if ttl := must(one.Renew(ctx))(t); ttl < lasting {
		t.Errorf("renewed for %s, want %s or more", ttl, lasting)
	}
	for range 2 { // the second time it is gone already
		if err := one.Revoke(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := keys(t, kv, "l/", ""), []string{"l/kept", "l/moved", "l/new", "l/plain"}; !slices.Equal(got, want) {
		t.Errorf("after the lease ended: %q, want %q", got, want)
	}
	events := next(t, kv, "l/", start, 2)
	for i, e := range events {
		if want := []string{"l/a", "l/b"}[i]; !e.Deleted || e.Key != want || e.Revision != events[0].Revision || e.More != (i == 0) {
			t.Errorf("event %d of a lease's end: %+v", i, e)
		}
	}
	if _, err := one.Renew(ctx); !errors.Is(err, catalog.ErrLeaseGone) {
		t.Errorf("renewing a lease that has ended: %v, want ErrLeaseGone", err)
	}
	if _, err := kv.Commit(ctx, catalog.Txn{Then: []catalog.Op{leased("l/late", one)}}); !errors.Is(err, catalog.ErrLeaseGone) {
		t.Errorf("a record on a lease that has ended: %v, want ErrLeaseGone", err)
	}
}

func testLeaseEnds(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	dies, lives := lease(t, kv, shortest), lease(t, kv, shortest)
	start := commit(t, kv, catalog.Op{Key: "l/dies", Lease: dies.ID()}, catalog.Op{Key: "l/lives", Lease: lives.ID()})
	begun := time.Now()
	var ttl time.Duration
	for begun := time.Now(); time.Since(begun) < 2*shortest+shortest/2; time.Sleep(shortest / 5) {
		ttl = must(lives.Renew(ctx))(t)
	}
	if e := next(t, kv, "l/", start, 1)[0]; e.Key != "l/dies" || !e.Deleted {
		t.Errorf("event %+v, want the end of l/dies", e)
	}
	if took := time.Since(begun); took < shortest {
		t.Errorf("a lease of %s ended after %s", shortest, took)
	}
	if _, err := kv.Get(ctx, "l/lives"); err != nil {
		t.Errorf("a lease of %s that was renewed for %s: %v", ttl, time.Since(begun), err)
	}
}

// joined opens a Catalog of a gateway that is known to the others.
func joined(t testing.TB, kv catalog.KV, id string) (*catalog.Catalog, *catalog.Membership) {
	t.Helper()
	return joinedFor(t, kv, id, lasting)
}

// joinedFor is joined with a lease of ttl.
func joinedFor(t testing.TB, kv catalog.KV, id string, ttl time.Duration) (*catalog.Catalog, *catalog.Membership) {
	t.Helper()
	c := Start(t, kv, catalog.Config{GatewayID: id})
	m := must(c.Join(t.Context(), ttl, "http://"+id))(t)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, m
}

// living returns the gateways that a Catalog knows.
func living(t testing.TB, c *catalog.Catalog) string {
	t.Helper()
	text := ""
	for _, g := range must(c.Gateways(t.Context()))(t) {
		text += fmt.Sprintf("%s at %s,", g.ID, g.Address)
	}
	return text
}

func testGateways(t *testing.T, open Open) {
	kv := open(t)
	var none *catalog.Membership
	if !none.Valid() || none.Lost() != nil || none.Wait(t.Context()) != nil || none.Renew(t.Context()) != nil || none.Close() != nil {
		t.Error("who has nobody beside it is not valid")
	}
	a, ma := joinedFor(t, kv, "a", shortest)
	b, mb := joinedFor(t, kv, "b", shortest)
	for _, c := range []*catalog.Catalog{a, b} {
		eventually(t, "both know both", func() bool { return living(t, c) == "a at http://a,b at http://b," })
	}
	begun := time.Now()
	for ; time.Since(begun) < 2*shortest; time.Sleep(10 * time.Millisecond) {
		if !ma.Valid() || !mb.Valid() {
			t.Fatalf("after %s: valid %t, %t", time.Since(begun), ma.Valid(), mb.Valid())
		}
	}
	if err := mb.Close(); err != nil {
		t.Fatal(err)
	}
	if mb.Valid() {
		t.Error("valid after it has left")
	}
	if err := mb.Wait(t.Context()); !errors.Is(err, catalog.ErrLeaseGone) {
		t.Errorf("wait after it has left: %v, want ErrLeaseGone", err)
	}
	eventually(t, "the other has left", func() bool { return living(t, a) == "a at http://a," })
	if _, again := joined(t, kv, "b"); !again.Valid() {
		t.Error("not valid after it came back")
	}
}

// testSameGateway: the second run of a gateway takes the place of the first.
func testSameGateway(t *testing.T, open Open) {
	kv := open(t)
	old, first := joined(t, kv, "a")
	img := active(t, old)
	o := must(old.CreateOverlay(t.Context(), catalog.Overlay{ImageID: img.ID, Engine: "object-log", Gateway: "a"}))(t)
	_, second := joined(t, kv, "a")
	eventually(t, "the first run has lost its place", func() bool { return closed(first.Lost()) })
	if first.Valid() || !second.Valid() {
		t.Errorf("valid: the first %t, the second %t", first.Valid(), second.Valid())
	}
	if _, err := old.TakeOverlay(t.Context(), o.ID, catalog.Take{}); !errors.Is(err, catalog.ErrLeaseGone) {
		t.Errorf("take by a run that is over: %v, want ErrLeaseGone", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := second.Renew(t.Context()); err != nil {
		t.Errorf("the end of the first ended the second: %v", err)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// testLapse takes the KV away from a gateway, once for less than its lease and
// once for more.
func testLapse(t *testing.T, open Open) {
	inner := open(t)
	kv, ctx := NewFaulty(inner), t.Context()
	_, m := joinedFor(t, kv, "a", shortest)
	b := Start(t, inner, catalog.Config{GatewayID: "b"})
	begun := time.Now()
	kv.Down()
	valid := begun // when it was so last
	eventually(t, "the membership is not valid", func() bool {
		now := time.Now()
		if m.Valid() {
			valid = now
			return false
		}
		return true
	})
	_, err := inner.Get(ctx, "gw/a")
	// Where we stood still ourselves in between this tells nothing.
	if took := time.Since(valid); err != nil && took < shortest/20 {
		t.Errorf("%s after the gateway stopped the lease had ended: %v", took, err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := m.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without the KV: %v", err)
	}
	if closed(m.Lost()) {
		t.Error("lost without an answer")
	}
	kv.Up()
	if err := m.Wait(ctx); err != nil {
		// On a slow machine the lease may have ended meanwhile.
		if !errors.Is(err, catalog.ErrLeaseGone) || time.Since(begun) < shortest {
			t.Errorf("wait after %s: %v", time.Since(begun), err)
		}
		return
	}
	if !m.Valid() {
		t.Error("not valid though it was waited for")
	}
	kv.Down()
	eventually(t, "the others see that it is gone", func() bool { return living(t, b) == "" })
	if m.Valid() {
		t.Error("valid though the others see it gone")
	}
	kv.Up()
	if err := m.Wait(ctx); !errors.Is(err, catalog.ErrLeaseGone) || !closed(m.Lost()) {
		t.Errorf("wait after the lease has ended: %v, want ErrLeaseGone", err)
	}
}
