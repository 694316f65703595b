package far

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// shortest and longest are the pauses between tries, each up to half as
	// long by chance, so that those who failed together do not come back
	// together.
	shortest = 50 * time.Millisecond
	longest  = 2 * time.Second
)

// retry calls do until it succeeds, fails for good, or has failed for so long
// that the deadline is reached.
func (s *Store) retry(ctx context.Context, e Event, what func() string, do func(context.Context) error) error {
	if err := s.reads.pay(ctx, e.Bytes); err != nil {
		return fmt.Errorf("%s: %s: %w", s.cfg.Name, what(), err)
	}
	slack := time.Duration(e.Bytes>>20) * time.Second
	var began time.Time
	for e.Try = 1; ; e.Try++ {
		if err := s.enter(ctx, s.reads, &e); err != nil {
			return fmt.Errorf("%s: %s: %w", s.cfg.Name, what(), err)
		}
		if began.IsZero() {
			began = time.Now()
		}
		limit := min(s.cfg.Deadline/3+slack, time.Until(began.Add(s.cfg.Deadline+slack)))
		err := s.try(ctx, e, limit, do)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return s.cancelled(ctx, what, err)
		case final(err):
			return err
		}
		if !s.pause(ctx, e.Try, began.Add(s.cfg.Deadline+slack)) {
			if ctx.Err() != nil {
				return s.cancelled(ctx, what, err)
			}
			return s.giveUp(what, time.Since(began), e.Try, err)
		}
	}
}

// try is one try, in a slot of the reads.
func (s *Store) try(ctx context.Context, e Event, limit time.Duration, do func(context.Context) error) error {
	defer s.reads.leave()
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.call(ctx, e, func() error { return do(short) })
}

// call makes one call to the store and tells of it.
func (s *Store) call(ctx context.Context, e Event, do func() error) error {
	began := time.Now()
	e.Err = do()
	e.Took = time.Since(began)
	s.health.note(ctx, e)
	if s.cfg.Observe != nil {
		s.cfg.Observe(e)
	}
	return e.Err
}

// enter waits for a slot. While a store works, however slowly, it waits for
// as long as the caller does; while it fails, a whole deadline at most.
func (s *Store) enter(ctx context.Context, l lane, e *Event) error {
	began := time.Now()
	err := l.enter(ctx, s.cfg.Deadline, func() error {
		if h := s.health.get(); !h.OK() {
			return fmt.Errorf("gave up after %v: all requests hang: %w", s.cfg.Deadline, h.Err)
		}
		return nil
	})
	e.Wait = time.Since(began)
	return err
}

// pause waits before the next try, or until the store is back. It returns
// false if the next try would come too late.
func (s *Store) pause(ctx context.Context, tries int, end time.Time) bool {
	d := min(shortest<<min(tries-1, 10), longest)
	d -= rand.N(d / 2)
	if !time.Now().Add(d).Before(end) {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.health.recovery():
	case <-ctx.Done():
		return false
	}
	return true
}

// cancelled is the error of a call whose caller went away.
func (s *Store) cancelled(ctx context.Context, what func() string, err error) error {
	if errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%s: %s: %w, after %v", s.cfg.Name, what(), ctx.Err(), err)
}

func (s *Store) giveUp(what func() string, took time.Duration, tries int, err error) error {
	took = took.Round(time.Millisecond)
	s.gaveUp.Do(func() {
		s.log.Error("gave up reading from the store", "what", what(), "after", took, "tries", tries, "error", err)
	})
	return fmt.Errorf("%s: gave up after %v and %d tries to %s: %w", s.cfg.Name, took, tries, what(), err)
}
