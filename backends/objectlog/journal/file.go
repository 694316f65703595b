package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A file is one file of records. All but head and f is guarded by Journal.mu.
type file struct {
	head fileHead
	f    localfs.File

	end    int64 // where its last record ends
	synced int64 // what of it is on stable storage ends here
	bytes  int64 // of disk that it takes

	named   bool // whether its name is on stable storage
	old     bool // found at Open, or given up: nothing is appended to it
	dead    bool // trimmed: nobody finds it any more
	readers int  // who must be done before it can be used for other records
	redo    bool // to be written again from redoFrom on before it is synced
	// redoFrom is an offset in the file.
	redoFrom int64
}

const suffix = ".log"

func (j *Journal) path(seq int64) string { return filepath.Join(j.cfg.Dir, fileName(seq)) }

func fileName(seq int64) string { return fmt.Sprintf("%016x", seq) + suffix }

// parseName is the other way round.
func parseName(name string) (seq int64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseInt(digits, 16, 64)
	return seq, err == nil && fileName(seq) == name
}

// errNoRoom says that the journal or its disk is full.
var errNoRoom = errors.New("no room")

// rotate begins a new file. It needs j.writing. If there is no room for one it
// is errNoRoom, with the reason.
func (j *Journal) rotate() error {
	if err := j.settleNames(); err != nil {
		return err
	}
	j.mu.Lock()
	seq, end := j.state.seq(j.written)+1, j.written
	if last := j.last(); last != nil {
		seq, end = last.head.seq+1, last.end
	}
	head := fileHead{seq: seq, before: end, synced: j.synced}
	j.mu.Unlock()
	if seq > (1<<62)/j.state.fileSize-2 {
		return fmt.Errorf("journal %s: no positions left", j.cfg.Dir)
	}
	rand.Read(head.salt[:]) // never fails
	f, err := j.obtain(seq)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(head.encode(j.state), 0); err != nil {
		return errors.Join(j.noRoom(err, "begin file"), j.drop(f, seq))
	}
	j.mu.Lock()
	before := j.last()
	j.files = append(j.files, &file{head: head, f: f, end: j.state.first(seq), bytes: j.state.fileSize})
	j.tail = j.state.first(seq)
	j.mu.Unlock()
	j.shorten(before)
	// What was trimmed to its end could not go while it was the last.
	return j.release()
}

// last returns the file that is appended to, or nil. It needs j.mu.
func (j *Journal) last() *file {
	if len(j.files) == 0 {
		return nil
	}
	return j.files[len(j.files)-1]
}

// settleNames makes what is in the folder such that, whatever a crash does to
// the next name, the files that are there follow each other.
func (j *Journal) settleNames() error {
	j.mu.Lock()
	last, stale, trimmed := j.last(), j.stale, j.trimmed
	settled := last == nil || last.named
	j.mu.Unlock()
	if !settled {
		if err := j.cfg.FS.SyncDir(j.cfg.Dir); err != nil {
			return j.fail(fmt.Errorf("journal %s: sync the folder: %w", j.cfg.Dir, err))
		}
		j.mu.Lock()
		last.named = true
		j.mu.Unlock()
	}
	if err := j.removeStale(stale); err != nil {
		return err
	}
	for _, seq := range trimmed {
		if err := j.cfg.FS.Remove(j.path(seq)); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.log.Warn("journal: cannot remove a file that is not needed", "dir", j.cfg.Dir, "err", err)
		}
	}
	j.mu.Lock()
	j.stale, j.trimmed = nil, nil
	j.mu.Unlock()
	return nil
}

// removeStale removes files behind the end of the records, in ascending order
// of seqs, the last one first.
func (j *Journal) removeStale(seqs []int64) error {
	for i := len(seqs) - 1; i >= 0; i-- {
		err := j.cfg.FS.Remove(j.path(seqs[i]))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = j.cfg.FS.SyncDir(j.cfg.Dir)
		}
		if err != nil {
			return fmt.Errorf("journal %s: remove what is behind its end: %w", j.cfg.Dir, err)
		}
	}
	return nil
}

// obtain returns a file of the full size with the name of seq: one that was
// trimmed, whose blocks need no allocation when they are synced, or a new one.
func (j *Journal) obtain(seq int64) (localfs.File, error) {
	j.mu.Lock()
	if n := len(j.free); n > 0 {
		f := j.free[n-1]
		j.free = j.free[:n-1]
		j.mu.Unlock()
		if err := j.cfg.FS.Rename(j.path(f.head.seq), j.path(seq)); err != nil {
			return nil, errors.Join(fmt.Errorf("journal %s: use a file again: %w", j.cfg.Dir, err), j.drop(f.f, f.head.seq))
		}
		return f.f, nil
	}
	used := j.bytes()
	j.mu.Unlock()
	if used+j.state.fileSize > j.cfg.Limit {
		return nil, fmt.Errorf("journal %s: it has reached its limit of %d bytes: %w", j.cfg.Dir, j.cfg.Limit, errNoRoom)
	}
	if j.cfg.Guard != nil {
		if err := j.cfg.Guard.Take(j.state.fileSize); err != nil {
			return nil, j.noRoom(err, "ask for space")
		}
	}
	f, err := j.cfg.FS.Open(j.path(seq), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, j.noRoom(err, "create a file")
	}
	if err = f.Truncate(j.state.fileSize); err == nil {
		err = localfs.Allocate(f, 0, j.state.fileSize)
	}
	if err != nil {
		return nil, errors.Join(j.noRoom(err, "allocate a file"), j.drop(f, seq))
	}
	return f, nil
}

// drop closes and removes a file.
func (j *Journal) drop(f localfs.File, seq int64) error {
	return errors.Join(f.Close(), j.cfg.FS.Remove(j.path(seq)))
}

// noRoom makes errors of a full disk errNoRoom.
func (j *Journal) noRoom(err error, doing string) error {
	if isFull(err) {
		return fmt.Errorf("journal %s: %s: %w: %w", j.cfg.Dir, doing, errNoRoom, err)
	}
	return fmt.Errorf("journal %s: %s: %w", j.cfg.Dir, doing, err)
}

// shorten gives back what is behind the last record of a file that nothing
// more is appended to. Files that were filled are left, to be used again.
func (j *Journal) shorten(f *file) {
	if f == nil {
		return
	}
	j.mu.Lock()
	size := alignUp(f.end-f.head.seq*j.state.fileSize, pageSize)
	short := f.old && size < f.bytes
	j.mu.Unlock()
	if !short {
		return
	}
	if err := f.f.Truncate(size); err != nil {
		j.log.Warn("journal: cannot shorten a file", "dir", j.cfg.Dir, "err", err)
		return
	}
	j.mu.Lock()
	f.bytes = size
	j.mu.Unlock()
}

// bytes returns what the files take. It needs j.mu.
func (j *Journal) bytes() int64 {
	n := j.held
	for _, f := range j.files {
		n += f.bytes
	}
	for _, f := range j.free {
		n += f.bytes
	}
	return n
}

// find returns the file that has pos, for a reader, or nil if it is gone.
// The reader must call done.
func (j *Journal) find(pos int64) *file {
	j.mu.Lock()
	defer j.mu.Unlock()
	seq := j.state.seq(pos)
	for i := len(j.files) - 1; i >= 0; i-- {
		if f := j.files[i]; f.head.seq == seq {
			f.readers++
			return f
		}
	}
	return nil
}

// done says that a reader has f no longer.
func (j *Journal) done(f *file) {
	j.mu.Lock()
	f.readers--
	unused := f.readers == 0 && f.dead
	if unused {
		j.held -= f.bytes
	}
	j.mu.Unlock()
	if unused {
		j.retire(f)
	}
}

// spares is how many trimmed files are kept to be used again.
const spares = 2

// retire keeps a dead file that has no readers, to be used again, or removes
// it.
func (j *Journal) retire(f *file) {
	j.mu.Lock()
	keep := len(j.free) < spares && f.bytes == j.state.fileSize && !f.old && !j.closed
	if keep {
		j.free = append(j.free, f)
	}
	j.mu.Unlock()
	if !keep {
		if err := j.drop(f.f, f.head.seq); err != nil && !errors.Is(err, os.ErrClosed) {
			j.log.Warn("journal: cannot remove a file that is not needed", "dir", j.cfg.Dir, "err", err)
		}
	}
	j.mu.Lock()
	j.makeRoom()
	j.mu.Unlock()
}
