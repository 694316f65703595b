package exports

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/objectlog"
)

// TestFailedOpenGivesBack: an overlay that was taken and could not be opened is
// not kept from the others.
func TestFailedOpenGivesBack(t *testing.T) {
	c := newCluster(t)
	a, b := c.gateway("a"), c.gateway("b")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	fail := errors.New("power cut")
	a.e.cfg.Steps = func(_ context.Context, _, step string) error {
		if step == objectlog.StepLoaded {
			return fail
		}
		return nil
	}
	if _, err := a.e.Open(t.Context(), first, "overlay/"+ov.ID); !errors.Is(err, fail) {
		t.Fatalf("open: %v", err)
	}
	if got := a.record(ov.ID); got.Gateway != "" {
		t.Errorf("it is kept: %+v", got)
	}
	b.sees(a)
	b.close(b.open(first, "overlay/"+ov.ID))
}

// TestOpeningGivenUp: an opening that hangs ends when nobody waits for it any
// more, and does not keep the gateway from stopping.
func TestOpeningGivenUp(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	hangs := make(chan struct{})
	a.e.cfg.Steps = func(ctx context.Context, _, step string) error {
		if step != objectlog.StepLoad {
			return nil
		}
		close(hangs)
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		_, err := a.e.Open(ctx, first, "overlay/"+ov.ID)
		answer <- err
	}()
	<-hangs
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("the client is told %v", err)
	}
	if a.e.isOpen(ov.ID) {
		t.Error("it is open")
	}
	a.e.cfg.Steps = nil
	a.close(a.open(first, "overlay/"+ov.ID))
}

// TestGateOutlivesCatalog: when the lease has ended, a write waits until the
// catalog says whose the overlay is, however often that cannot be asked.
func TestGateOutlivesCatalog(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	d, err := a.e.acquireOverlay(t.Context(), a.record(ov.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer a.e.release(d)
	old := a.e.members.now.Load()
	if err := old.Close(); err != nil { // the lease is over
		t.Fatal(err)
	}
	next, err := a.e.cfg.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.faulty().Down()
	a.e.members.now.Store(next)
	done := make(chan error)
	go func() { done <- d.vol.disk.WriteAt(t.Context(), make([]byte, 512), 0) }()
	select {
	case err := <-done:
		t.Fatalf("a write while nobody knows whose the overlay is: %v", err)
	case <-time.After(3 * rejoinEvery / 10):
	}
	a.faulty().Up()
	if err := <-done; err != nil {
		t.Errorf("a write when the catalog is back: %v", err)
	}
}
