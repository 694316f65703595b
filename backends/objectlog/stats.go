package objectlog

import (
	"slices"
	"time"
)

// Stats are numbers of a Log at one moment.
type Stats struct {
	Epoch, Sequence int64
	Dirty           bool // the head says that the journal is needed

	Journal, JournalLimit int64 // bytes of disk
	Pending               int64 // bytes of data in the journal that the store does not have

	// PendingSince is when the oldest of these were written, roughly; zero if
	// there are none.
	PendingSince time.Time

	Segments   int   // objects that the disk refers to
	Stored     int64 // bytes of data in these
	Live       int64 // of which the disk refers to
	Pinned     int64 // bytes of data in objects that only snapshots refer to
	Extents    int   // of the maps in memory
	Checkpoint int64 // number of the last segment that a checkpoint has

	Uploaded int64 // bytes of segments since Open
	Cleaned  int64 // of which copied by cleaning

	Err   error     // what the store or the catalog fails with, or nil
	Since time.Time // since when

	SetAside []string // folders of journals that were not replayed
}

// Stats returns numbers for people and for metrics.
func (l *Log) Stats() Stats {
	js := l.j.Stats()
	out := Stats{
		Epoch: l.cfg.Epoch, Dirty: l.dirty.Load(), Journal: js.Bytes, JournalLimit: js.Limit,
		Uploaded: l.uploaded.Load(), Cleaned: l.cleaned.Load(), SetAside: slices.Clone(l.aside),
	}
	l.work.Lock()
	out.Sequence, out.Checkpoint = l.head.last.seq, l.head.base.seq
	for _, t := range l.trouble {
		if t.err != nil && (out.Err == nil || t.since.Before(out.Since)) {
			out.Err, out.Since = t.err, t.since
		}
	}
	l.mu.RLock()
	if l.appended > l.covered {
		out.PendingSince = l.ticked
	}
	if len(l.flights) > 0 && l.flights[0].copied == 0 {
		out.PendingSince = l.flights[0].gen.born
	}
	l.mu.RUnlock()
	l.work.Unlock()
	l.mu.RLock()
	defer l.mu.RUnlock()
	out.Segments, out.Stored, out.Live, out.Pinned = len(l.stored.segs), l.counts.payload, l.counts.live, l.counts.pinned
	out.Pending, out.Extents = l.counts.pending, l.fresh.Len()+l.stored.m.Len()
	return out
}

// Err returns why the log acknowledges nothing more, such as ErrFenced, or nil.
func (l *Log) Err() error {
	if err := l.broken.Load(); err != nil {
		return l.wrap("use", *err)
	}
	return nil
}

// Done is closed when the log acknowledges nothing more: see Err.
func (l *Log) Done() <-chan struct{} { return l.life.Done() }
