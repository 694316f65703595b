package journal

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
)

// ReadAt fills p with bytes of the payload of one record that start at pos.
// Where space was given back it is ErrTrimmed: whoever looked up the position
// looks again. It verifies nothing, as Records does.
func (j *Journal) ReadAt(p []byte, pos int64) error {
	f := j.find(pos)
	if f == nil {
		return j.nothing(pos)
	}
	defer j.done(f)
	if _, err := f.f.ReadAt(p, pos-f.head.seq*j.state.fileSize); err != nil {
		return fmt.Errorf("journal %s: read %d bytes at %d: %w", j.cfg.Dir, len(p), pos, err)
	}
	return nil
}

// nothing is the error of a position that no file has.
func (j *Journal) nothing(pos int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("journal %s: read: %w", j.cfg.Dir, fs.ErrClosed)
	}
	if pos > j.written {
		return fmt.Errorf("journal %s: read at %d, it ends at %d: %w", j.cfg.Dir, pos, j.written, fs.ErrInvalid)
	}
	return fmt.Errorf("journal %s: read at %d, it begins at %d: %w", j.cfg.Dir, pos, j.start, ErrTrimmed)
}

// Records yields what was appended and ends behind from, the Next of some
// record, in order, up to the end that the journal has now. All checksums are
// verified: a wrong one is ErrDamaged. Data is valid until the next one. An
// error ends it. Before Start there is nothing: ErrTrimmed.
func (j *Journal) Records(ctx context.Context, from int64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		j.mu.Lock()
		end := j.written
		j.mu.Unlock()
		for from < end {
			f := j.after(from)
			if f == nil {
				yield(Record{}, j.nothing(from))
				return
			}
			next, more := j.recordsOf(ctx, f, from, end, yield)
			if j.done(f); !more {
				return
			}
			from = next
		}
	}
}

// after returns, for a reader, the file that has the record that begins where
// another one ends at pos, or nil if it is gone.
func (j *Journal) after(pos int64) *file {
	j.mu.Lock()
	defer j.mu.Unlock()
	if pos < j.start {
		return nil
	}
	for _, f := range j.files {
		if pos < f.end {
			f.readers++
			return f
		}
	}
	return nil
}

// recordsOf yields the records of f that end behind from and not behind end,
// and returns where to go on, and whether to.
func (j *Journal) recordsOf(ctx context.Context, f *file, from, end int64, yield func(Record, error) bool) (int64, bool) {
	j.mu.Lock()
	limit := min(end, f.end)
	j.mu.Unlock()
	s := j.scanner(f, max(from, j.state.first(f.head.seq)), limit)
	for s.at < limit {
		err := context.Cause(ctx)
		var r Record
		if err == nil {
			var ok bool
			if r, _, ok, err = s.next(); err == nil && !ok {
				err = ErrDamaged
			}
		}
		if err != nil {
			yield(Record{}, fmt.Errorf("journal %s: read the record after %d: %w", j.cfg.Dir, s.at, err))
			return 0, false
		}
		if !yield(r, nil) {
			return 0, false
		}
	}
	return max(limit, from), true
}
