package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	for _, want := range []time.Duration{0, 1, 15, 16, 31, 32, 1000, 12345, time.Millisecond, time.Hour} {
		var s sample
		s.add(want)
		s.count = 1
		if got := s.quantile(0.5); got < want-want/16 || got > want+want/16 {
			t.Errorf("the median of %v alone is %v", want, got)
		}
	}
	var s sample
	for i := range 1000 {
		s.add(time.Duration(i+1) * time.Microsecond)
		s.count++
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond} {
		if got := s.quantile(q); got < want*15/16 || got > want*17/16 {
			t.Errorf("quantile %v of 1 to 1000 µs is %v", q, got)
		}
	}
}

func TestRepeatEnds(t *testing.T) {
	broken := errors.New("broken")
	if _, err := repeat(t.Context(), time.Hour, func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("after an error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := repeat(ctx, time.Hour, func() (int, error) { cancel(); return 1, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancel: %v", err)
	}
	if s, err := repeat(t.Context(), 0, func() (int, error) { return 7, nil }); err != nil || s.count != 1 || s.bytes != 7 {
		t.Errorf("no time at all: %d times, %d bytes, %v", s.count, s.bytes, err)
	}
}
