package far

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Health is how a store is, as far as the calls to it have shown.
type Health struct {
	Failing time.Time     // since when nothing has worked, zero if something does
	Full    time.Time     // since when it has taken no object for want of space, zero if it does
	Err     error         // the last failure, though it may be long ago; nil if there was none
	ErrTime time.Time     // when that was
	Success time.Time     // when it last answered, zero if never
	Latency time.Duration // of reads, smoothed; 0 if there was none

	Reads, Writes int // requests under way
	Waiting       int // calls that wait for a limit
}

// OK tells whether the store answers, or was never asked.
func (h Health) OK() bool { return h.Failing.IsZero() }

// doubts is how many failures in a row make a store one that fails. A single
// one is every day's business. One that ran into its time counts for all.
const doubts = 3

type health struct {
	log *slog.Logger

	mu   sync.Mutex
	h    Health
	run  int           // failures since the last success
	from time.Time     // when the first of them was
	back chan struct{} // closed at the next success; nil if nobody waits
}

func (s *health) get() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.h
}

// note learns from a call that has ended.
func (s *health) note(ctx context.Context, e Event) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Err != nil && (ctx.Err() != nil || announced(e)):
		return // the caller's doing
	case e.Err != nil && !answered(e.Err):
		s.failed(now, e)
		return
	case errors.Is(e.Err, syscall.ENOSPC):
		if s.h.Full.IsZero() {
			s.h.Full = now
			s.log.Warn("the store is full", "error", e.Err)
		}
	case e.Op == OpCommit && e.Err == nil && !s.h.Full.IsZero():
		s.h.Full = time.Time{}
		s.log.Info("the store takes objects again")
	}
	if asks(e) {
		s.succeeded(now, e)
	}
}

// announced tells whether a Writer was handed another number of bytes than it
// was promised.
func announced(e Event) bool {
	return (e.Op == OpWrite || e.Op == OpCommit) && errors.Is(e.Err, io.ErrUnexpectedEOF)
}

// asks tells whether a call that did not fail has certainly reached the store.
func asks(e Event) bool {
	return e.Err != nil || e.Op != OpWrite && e.Op != OpExtent && e.Op != OpCreate
}

func (s *health) failed(now time.Time, e Event) {
	s.h.Err, s.h.ErrTime = e.Err, now
	if s.run++; s.run == 1 {
		s.from = now
	}
	if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, syscall.ETIMEDOUT) {
		s.run += doubts
	}
	if s.run >= doubts && s.h.Failing.IsZero() {
		s.h.Failing = s.from
		s.log.Warn("the store fails", "error", e.Err)
	}
}

func (s *health) succeeded(now time.Time, e Event) {
	s.h.Success = now
	if e.Op == OpRead {
		if s.h.Latency == 0 {
			s.h.Latency = e.Took
		}
		s.h.Latency += (e.Took - s.h.Latency) / 8
	}
	if s.run = 0; s.h.Failing.IsZero() {
		return
	}
	s.log.Info("the store is back", "after", now.Sub(s.h.Failing).Round(time.Millisecond))
	s.h.Failing = time.Time{}
	if s.back != nil {
		close(s.back)
		s.back = nil
	}
}

// recovery returns a channel that is closed when a failing store is back.
func (s *health) recovery() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h.Failing.IsZero() {
		return nil // never
	}
	if s.back == nil {
		s.back = make(chan struct{})
	}
	return s.back
}

// answered tells whether an error is the answer of a store that works: about
// the object, the caller or the space that is left.
func answered(err error) bool {
	return final(err) && !errors.Is(err, fs.ErrPermission)
}

// final tells whether an error would be the same at the next try.
func final(err error) bool {
	for _, is := range [...]error{
		fs.ErrNotExist, fs.ErrExist, fs.ErrInvalid, fs.ErrPermission, fs.ErrClosed,
		errors.ErrUnsupported, block.ErrBounds,
		syscall.ESTALE, // another object than the one that was opened
		syscall.EBUSY,  // somebody else has it in use
		syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
