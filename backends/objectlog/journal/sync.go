package journal

import (
	"context"
	"errors"
	"fmt"
)

// Sync returns when all records whose Append returned before are on stable
// storage, or trimmed. All who wait share one fdatasync: the first calls it,
// those who come meanwhile wait for the next one.
func (j *Journal) Sync(ctx context.Context) error {
	if j.readOnly {
		return fmt.Errorf("journal %s: sync an old one: %w", j.cfg.Dir, errors.ErrUnsupported)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	target := j.written
	for {
		if err := j.usable(); err != nil {
			return err
		}
		if max(j.synced, j.start) >= target {
			return nil
		}
		if running := j.syncing; running != nil {
			j.mu.Unlock()
			var err error
			select {
			case <-running:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			j.mu.Lock()
			if err != nil {
				return err
			}
			continue
		}
		j.syncing = make(chan struct{})
		j.mu.Unlock()
		upTo, err := j.syncFiles()
		j.mu.Lock()
		if err == nil {
			j.synced = max(j.synced, upTo)
		}
		close(j.syncing)
		j.syncing = nil
		if err != nil {
			return err
		}
	}
}

// syncFiles makes durable what is written, and returns where that ends.
func (j *Journal) syncFiles() (upTo int64, err error) {
	upTo, dirty, named := j.seal()
	for _, f := range dirty {
		if err == nil && f.redo {
			err = j.again(f)
		}
		if err == nil {
			err = f.f.Sync()
		}
	}
	if err == nil && named != nil {
		err = j.cfg.FS.SyncDir(j.cfg.Dir)
	}
	if err != nil {
		err = j.fail(fmt.Errorf("journal %s: sync: %w", j.cfg.Dir, err))
	}
	j.mu.Lock()
	for _, f := range dirty {
		if err == nil {
			f.synced = max(f.synced, min(f.end, upTo))
		}
	}
	if err == nil && named != nil {
		named.named = true
	}
	j.mu.Unlock()
	for _, f := range dirty {
		j.done(f)
	}
	return upTo, err
}

// again writes what is in f and not known to be on stable storage.
func (j *Journal) again(f *file) error {
	end := alignUp(f.end-f.head.seq*j.state.fileSize, pageSize)
	p := make([]byte, min(max(end-f.redoFrom, 0), window))
	for at := f.redoFrom; at < end; at += int64(len(p)) {
		p = p[:min(int64(len(p)), end-at)]
		if err := readFull(f.f, p, at); err != nil {
			return err
		}
		if _, err := f.f.WriteAt(p, at); err != nil {
			return err
		}
	}
	f.redo = false // only who syncs looks at it, and there is one at a time
	return nil
}

// seal ends the page that the last record ends in: what follows goes to the
// next one, so that nothing that was synced is ever written again. It returns
// where the records end, the files that must be synced for that, each with one
// more reader, and the one, if any, whose name must be.
func (j *Journal) seal() (upTo int64, dirty []*file, named *file) {
	// Who writes finishes first; its records come along.
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tail = alignUp(j.tail, pageSize)
	for _, f := range j.files {
		if f.end > f.synced {
			f.readers++
			dirty = append(dirty, f)
		}
	}
	// Only the last one can be without a durable name.
	if last := j.last(); last != nil && !last.named {
		named = last
	}
	return j.written, dirty, named
}

// fail makes err the error of everything from now on, unless there is one
// already, and returns that.
func (j *Journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken == nil {
		j.broken = err
		j.log.Error("journal: broken, nothing more is written to it", "dir", j.cfg.Dir, "err", err)
		j.makeRoom()
	}
	return j.broken
}
