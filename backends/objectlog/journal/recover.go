package journal

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// recover finds the files and where their records end. Invariants of the
// folder, whatever crash:
//
//   - A file is removed, or used again, only after the slot that says that its
//     records are not needed is on stable storage.
//   - A file is created only after the name of the one before is on stable
//     storage, and after those that an earlier crash left behind the end are
//     gone. So of the files from the start on none is missing but at the end.
//   - A file says where the records of the one before end. If they do not get
//     there, or go further, the file, or what goes further, does not count.
func (j *Journal) recover(ctx context.Context, flag int) error {
	seqs, err := j.names()
	if err != nil {
		return err
	}
	start := j.slots.last.start
	j.start, j.written, j.synced = start, start, start
	first := j.state.seq(start)
	for len(seqs) > 0 && seqs[0] < first {
		j.trimmed = append(j.trimmed, seqs[0])
		seqs = seqs[1:]
	}
	found, err := j.heads(seqs, flag)
	defer func() { j.closeOthers(found) }()
	if err != nil {
		return err
	}
	cur, known := start, j.slots.last.synced
	last := first
	for seq := first; ; seq++ {
		last = seq
		f, next := found[seq], found[seq+1]
		if f == nil && seq > first {
			break
		}
		limit := int64(math.MaxInt64)
		if next != nil && next.head.before >= cur {
			limit = next.head.before
		}
		if f != nil {
			j.files = append(j.files, f)
			known = max(known, f.head.synced)
		}
		if f != nil && next != nil && next.head.before >= cur && next.head.before <= j.cfg.Since {
			// Nobody asks what is in it, and the next one says where it ends.
			cur = next.head.before
			f.end, j.written = cur, cur
		} else if f != nil {
			if cur, err = j.replay(ctx, f, cur, limit, &known); err != nil {
				return err
			}
		}
		if next == nil || next.head.before != cur {
			break
		}
		cur = j.state.first(seq + 1)
	}
	for _, seq := range seqs {
		if !slices.ContainsFunc(j.files, func(f *file) bool { return f.head.seq == seq }) {
			j.stale = append(j.stale, seq)
		}
	}
	if !j.readOnly {
		j.doubt(known)
	}
	return j.whole(ctx, found, known, last)
}

// heads opens the files and reads their headers. Those without a valid one are
// left out.
func (j *Journal) heads(seqs []int64, flag int) (map[int64]*file, error) {
	found := make(map[int64]*file)
	for _, seq := range seqs {
		f, err := j.cfg.FS.Open(j.path(seq), flag, 0)
		if err != nil {
			return found, err
		}
		head, ok, err := j.readHead(f, seq)
		if !ok || err != nil {
			f.Close()
			if err != nil {
				return found, err
			}
			continue
		}
		// Nothing more is appended to it, so that nothing that is behind
		// its end can ever become part of the records. Whether its name,
		// or anything in it, is on stable storage nobody knows: the power
		// need not have failed.
		found[seq] = &file{head: head, f: f, end: j.state.first(seq), bytes: j.state.fileSize, old: true}
	}
	return found, nil
}

// closeOthers closes those of found that are not part of the journal.
func (j *Journal) closeOthers(found map[int64]*file) {
	for _, f := range found {
		if !slices.Contains(j.files, f) {
			f.f.Close()
		}
	}
}

// doubt has all behind known written again before the first Sync. If it was an
// fsync that failed which ended the last life, what it was for can be read, from
// memory, and the kernel takes it for written: another fsync would succeed and
// write nothing.
func (j *Journal) doubt(known int64) {
	for _, f := range j.files {
		if base := f.head.seq * j.state.fileSize; f.end > known {
			f.redo, f.redoFrom = true, max(0, known-base)&^(pageSize-1)
		}
	}
}

// replay checks the records of f from cur on, and returns where they end. Into
// known goes what they say was on stable storage.
func (j *Journal) replay(ctx context.Context, f *file, cur, limit int64, known *int64) (int64, error) {
	s := j.scanner(f, cur, limit)
	for {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		r, h, ok, err := s.next()
		if err != nil {
			return 0, err
		}
		if !ok {
			f.end = max(f.end, s.at)
			return s.at, nil
		}
		j.written = r.Next
		*known = max(*known, h.synced)
		if j.cfg.Found != nil {
			if err := j.cfg.Found(r); err != nil {
				return 0, err
			}
		}
	}
}

// whole looks for signs that there was more on stable storage than is found,
// which ends in file last.
func (j *Journal) whole(ctx context.Context, found map[int64]*file, known, last int64) error {
	for seq, f := range found {
		if seq < j.state.seq(j.written) {
			continue
		}
		known = max(known, f.head.synced)
		s := j.scanner(f, max(j.state.first(seq), j.written), math.MaxInt64)
		synced, err := s.lost()
		if err != nil {
			return err
		}
		if known = max(known, synced); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	missing := len(j.stale) > 0 && j.stale[0] > last+1
	if known <= j.written && !missing {
		return nil
	}
	err := fmt.Errorf("the records end at %d, and were on stable storage up to %d: %w", j.written, known, ErrDamaged)
	if missing {
		err = fmt.Errorf("files are missing between position %d and file %s: %w", j.written, fileName(j.stale[0]), ErrDamaged)
	}
	if j.readOnly || j.cfg.Salvage {
		j.log.Warn("journal: part of it is lost", "dir", j.cfg.Dir, "err", err)
		return nil
	}
	return err
}
