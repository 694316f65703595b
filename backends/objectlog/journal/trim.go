package journal

import (
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// slots is how far the trimming has got on disk. It is guarded by
// Journal.trimming.
type slots struct {
	f       localfs.File // the state file
	durable int          // which slot is on stable storage
	last    slot         // the newest one
	dirty   bool         // whether that is only written, in the other slot
	unsure  bool         // whether it was found, and may not be on stable storage
}

// slotAt returns the offset of slot i in the state file.
func slotAt(i int) int64 { return int64(1+i) * pageSize }

// Trim says that records that end at pos or before are not needed any more;
// pos is the Next of some record. It may be behind End, when a crash lost
// records that were kept elsewhere already: all that is there is dropped then,
// and what is appended comes behind pos.
//
// Trim is written but not synced, except when it gives a file back: after a
// crash the journal may begin before pos, never behind it.
func (j *Journal) Trim(pos int64) error {
	if j.readOnly {
		return fmt.Errorf("journal %s: trim an old one: %w", j.cfg.Dir, errors.ErrUnsupported)
	}
	j.mu.Lock()
	err, beyond, old := j.usable(), pos > j.written, pos <= j.start
	if err == nil && !beyond && !old {
		j.start = pos
	}
	j.mu.Unlock()
	switch {
	case err != nil || old:
		return err
	case beyond:
		return j.skip(pos)
	}
	return j.release()
}

// release writes down where the journal starts, and gives back the files
// before that. All but the last can go.
func (j *Journal) release() error {
	j.trimming.Lock()
	defer j.trimming.Unlock()
	start, dead := j.dead()
	if err := j.note(start, dead > 0); err != nil || dead == 0 {
		return err
	}
	j.detach(dead)
	return nil
}

// dead returns where the journal starts and how many files end before that.
func (j *Journal) dead() (start int64, n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n < len(j.files)-1 && j.files[n].end <= j.start {
		n++
	}
	return j.start, n
}

// detach gives back the first n files. It needs j.trimming.
func (j *Journal) detach(n int) {
	j.mu.Lock()
	var unused []*file
	for _, f := range j.files[:n] {
		f.dead = true
		if f.readers > 0 {
			j.held += f.bytes
		} else {
			unused = append(unused, f)
		}
	}
	j.files = append(j.files[:0:0], j.files[n:]...)
	j.mu.Unlock()
	for _, f := range unused {
		j.retire(f)
	}
}

// note writes that the journal starts at start, and makes it last if sync is
// set. It needs j.trimming.
func (j *Journal) note(start int64, sync bool) error {
	s := &j.slots
	if s.unsure && start > s.last.start {
		if err := s.f.Sync(); err != nil {
			return j.fail(fmt.Errorf("journal %s: sync before trim: %w", j.cfg.Dir, err))
		}
		s.unsure = false
	}
	if start > s.last.start {
		j.mu.Lock()
		s.last = slot{count: s.last.count + 1, start: start, synced: j.synced}
		j.mu.Unlock()
		s.dirty = true
		// Never the slot that is on stable storage: half of a sector is
		// no slot.
		if _, err := s.f.WriteAt(s.last.encode(j.state.salt[:]), slotAt(1-s.durable)); err != nil {
			return j.fail(fmt.Errorf("journal %s: trim: %w", j.cfg.Dir, err))
		}
	}
	if !sync || !s.dirty {
		return nil
	}
	if err := s.f.Sync(); err != nil {
		return j.fail(fmt.Errorf("journal %s: sync after trim: %w", j.cfg.Dir, err))
	}
	s.durable, s.dirty = 1-s.durable, false
	return nil
}

// skip drops all records and goes on behind pos.
func (j *Journal) skip(pos int64) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.trimming.Lock()
	defer j.trimming.Unlock()
	j.mu.Lock()
	if err := j.usable(); err != nil || pos <= j.written {
		j.start = max(j.start, pos)
		j.mu.Unlock()
		return err
	}
	j.start, j.written, j.synced = pos, pos, pos
	stale := j.stale
	for _, f := range j.files {
		f.old = true // nothing in it may be found again
	}
	n := len(j.files)
	j.mu.Unlock()
	if err := j.note(pos, true); err != nil {
		return err
	}
	if err := j.removeStale(stale); err != nil {
		return err
	}
	j.mu.Lock()
	j.stale = nil
	j.mu.Unlock()
	j.detach(n)
	if err := j.cfg.FS.SyncDir(j.cfg.Dir); err != nil {
		return j.fail(fmt.Errorf("journal %s: sync the folder: %w", j.cfg.Dir, err))
	}
	return nil
}
