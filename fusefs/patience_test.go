package fusefs

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPatient(t *testing.T) {
	parent, interrupt := context.WithCancel(t.Context())
	p := &patient{Context: parent, lasts: 20 * time.Millisecond}
	derived, stop := context.WithCancel(p)
	defer stop()
	if p.Err() != nil {
		t.Fatal("it has ended already")
	}
	interrupt()
	from := time.Now()
	<-derived.Done()
	if d := time.Since(from); d < p.lasts {
		t.Errorf("it was patient for %v", d)
	}
	if !errors.Is(p.Err(), context.Canceled) || !errors.Is(derived.Err(), context.Canceled) {
		t.Error(p.Err(), derived.Err())
	}
	p.end()

	p = calm(parent) // of a call that was interrupted before it began
	if p.Err() != nil {
		t.Error("no patience")
	}
	select {
	case <-p.Done():
		t.Error("no patience")
	default:
	}
	p.end()
	p = calm(t.Context())
	if allocs := testing.AllocsPerRun(10, func() { p.Err() }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	p.end()
}
