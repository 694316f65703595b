package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// The folders of journals in Config.Dir, followed by their epoch in hex.
const (
	journalDir = "journal-"
	asideDir   = "aside-" // set aside

	lockName = "lock" // a file that is locked while the log is open
)

func (c Config) journal(prefix string, epoch int64) string {
	return filepath.Join(c.Dir, fmt.Sprintf("%s%08x", prefix, epoch))
}

// Create makes an empty overlay of cfg.Size bytes. If its head is not empty it
// is fs.ErrExist.
func Create(ctx context.Context, cfg Config) (*Log, error) {
	l, err := open(ctx, cfg, func(h Head) (*state, error) {
		if len(h.State) > 0 {
			return nil, fmt.Errorf("there is one already: %w", fs.ErrExist)
		}
		return &state{size: cfg.Size, maps: 1, next: 1}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("overlay %s: create: %w", cfg.ID, err)
	}
	return l, nil
}

// Open opens an overlay under a new epoch, and resizes it if cfg.Size is not
// its size. If its head is empty it is fs.ErrNotExist.
//
// What the journal has is there again if it is the one that goes with the
// head. Any other that is found is set aside. If the head says that a journal
// is needed which is not here, Open is a *LossError and has changed nothing.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := open(ctx, cfg, func(h Head) (*state, error) {
		if len(h.State) == 0 {
			return nil, fmt.Errorf("there is none: %w", fs.ErrNotExist)
		}
		return decodeState(h.State)
	})
	if err != nil {
		return nil, fmt.Errorf("overlay %s: open: %w", cfg.ID, err)
	}
	return l, nil
}

// An opening is what Open finds, and what it makes of it.
type opening struct {
	cfg  Config
	head Head
	s    *state
	src  *source
	d    *disk
	lock localfs.File
	j    *journal.Journal
	dir  string
	l    *Log
}

func open(ctx context.Context, cfg Config, read func(Head) (*state, error)) (l *Log, err error) {
	cfg, err = cfg.defaults()
	if err != nil {
		return nil, err
	}
	o := &opening{cfg: cfg}
	defer func() {
		if err != nil {
			o.undo()
		}
	}()
	if err := o.takeLock(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", cfg.Dir, err)
	}
	if err := o.load(ctx, read); err != nil {
		return nil, err
	}
	if err := o.openJournal(ctx); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// The journal calls apply from now on, the work begins when all is there.
	if err := o.claim(ctx); err != nil {
		return nil, err
	}
	o.tidy(ctx)
	if err := o.l.step(ctx, StepClaimed); err != nil {
		return nil, err
	}
	if err := o.l.start(ctx); err != nil {
		o.j, o.src, o.lock = nil, nil, nil
		return nil, errors.Join(err, o.l.Close())
	}
	return o.l, nil
}

func (o *opening) undo() {
	if o.l != nil {
		o.l.stop()
	}
	if o.j != nil {
		o.j.Close() // the error that brought us here says more
	}
	if o.src != nil {
		o.src.close()
	}
	if o.lock != nil {
		o.lock.Close() // as above
	}
}

// takeLock keeps others of this machine out of the folder: syscall.EBUSY. A
// file system without locks leaves that to the caller.
func (o *opening) takeLock() error {
	err := localfs.MkdirAll(o.cfg.FS, o.cfg.Dir)
	if err == nil {
		o.lock, err = o.cfg.FS.Open(filepath.Join(o.cfg.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err == nil {
		err = localfs.LockImage(o.lock)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// step is Log.step before there is a Log.
func (o *opening) step(ctx context.Context, name string) error {
	if o.cfg.Steps == nil {
		return nil
	}
	return o.cfg.Steps(ctx, name)
}

// load reads the head and what it refers to.
func (o *opening) load(ctx context.Context, read func(Head) (*state, error)) error {
	if err := o.step(ctx, StepLoad); err != nil {
		return err
	}
	var err error
	if o.head, err = o.cfg.Heads.Load(ctx); err != nil {
		return fmt.Errorf("load the head: %w", err)
	}
	switch {
	case o.head.Epoch > o.cfg.Epoch:
		return fmt.Errorf("the head is of epoch %d, this is %d: %w", o.head.Epoch, o.cfg.Epoch, ErrFenced)
	case o.head.Epoch == o.cfg.Epoch && len(o.head.State) > 0:
		return fmt.Errorf("epoch %d was used before; each time takes a new one: %w", o.cfg.Epoch, fs.ErrInvalid)
	}
	if o.s, err = read(o.head); err != nil {
		return err
	}
	o.src = newSource(o.cfg.Store, o.cfg.Prefix, o.cfg.ID, o.cfg.ReadCache)
	if o.d, err = loadDisk(ctx, o.src, o.s); err != nil {
		return err
	}
	return o.step(ctx, StepLoaded)
}

func (o *opening) journalConfig(dir string, epoch int64) journal.Config {
	return journal.Config{
		FS: o.cfg.FS, Guard: o.cfg.Guard, Dir: dir, ID: o.cfg.ID, Epoch: epoch,
		Limit: o.cfg.JournalLimit, Full: journal.Fail, Logger: o.cfg.Logger,
		Apply: func(recs []journal.Record) { o.l.apply(recs) },
	}
}

// replay opens the journal that the head goes on with, and takes over what it
// has and the store has not, as it is read. Of what the store has it reads
// next to nothing.
func (o *opening) replay(ctx context.Context) error {
	o.dir = o.cfg.journal(journalDir, o.s.journal)
	cfg := o.journalConfig(o.dir, o.s.journal)
	o.l = newLog(o)
	o.l.covered, o.l.sealed, o.l.appended = o.s.upto, o.s.upto, o.s.upto
	cfg.Since = o.s.upto
	var one [1]journal.Record
	cfg.Found = func(r journal.Record) error {
		if r.Next <= o.s.upto {
			return nil
		}
		if err := block.CheckRange(r.Off, r.Len, o.l.size); err != nil && r.Kind != journal.Mark {
			return err
		}
		one[0] = r
		o.l.apply(one[:])
		return nil
	}
	var err error
	if o.j, err = journal.Open(ctx, cfg); err != nil {
		return err
	}
	o.l.j = o.j
	if st := o.j.Stats(); o.s.upto < st.Start {
		return fmt.Errorf("it begins at %d, and the store has what is before %d: %w", st.Start, o.s.upto, journal.ErrDamaged)
	}
	return nil
}

// openJournal opens the journal that the head goes on with, if it is here and
// has something that the store has not. Else it makes a new one.
func (o *opening) openJournal(ctx context.Context) error {
	var err error
	if o.s.journal > 0 && o.s.journal >= o.cfg.HeldSince {
		err = o.replay(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, journal.ErrForeign):
			if o.head.Dirty && !o.cfg.AcceptLoss {
				return &LossError{o.s.journal}
			}
		case errors.Is(err, journal.ErrDamaged), errors.Is(err, journal.ErrNewer):
			// It is here and cannot be believed. What the store has goes on
			// if that is wanted; tidy sets it aside.
			if !o.cfg.AcceptLoss {
				return fmt.Errorf("%w: %w", &LossError{o.s.journal}, err)
			}
			o.cfg.Logger.WarnContext(ctx, "objectlog: a journal cannot be read, and its loss is accepted", "epoch", o.s.journal, "err", err)
		case err != nil:
			return err
		case o.j.Stats().End > o.s.upto:
			return nil // there is more in it
		}
		// If it could be opened, all that it has is in the store, or was never
		// synced. What would be appended now could lie before s.upto and be
		// passed over later.
		if err := o.leaveJournal(); err != nil {
			return err
		}
	}
	if o.s.journal > 0 {
		o.s.past = append(o.s.past, past{o.s.journal, o.s.upto})
		o.s.past = slices.Delete(o.s.past, 0, max(0, len(o.s.past)-maxPast))
	}
	o.dir = o.cfg.journal(journalDir, o.cfg.Epoch)
	cfg := o.journalConfig(o.dir, o.cfg.Epoch)
	o.j, err = journal.Create(ctx, cfg)
	if errors.Is(err, fs.ErrExist) {
		// Of an attempt with this epoch that never came so far as to claim it.
		if err = journal.Remove(cfg); err == nil {
			o.j, err = journal.Create(ctx, cfg)
		}
	}
	if err != nil {
		return err
	}
	o.s.journal, o.s.upto = o.cfg.Epoch, o.j.Stats().Start
	o.l = newLog(o)
	o.l.covered, o.l.sealed, o.l.appended = o.s.upto, o.s.upto, o.s.upto
	return nil
}

// leaveJournal closes a journal, if there is one, and forgets what was found.
func (o *opening) leaveJournal() error {
	if o.l != nil {
		o.l.stop()
		o.l = nil
	}
	if o.j == nil {
		return nil
	}
	err := o.j.Close()
	o.j = nil
	return err
}

// claim commits the head under the new epoch, before anything is read or
// written: who opened the overlay before can commit nothing any more, and no
// journal but ours goes with the head. What the epoch before may have stored
// beyond its head is garbage.
func (o *opening) claim(ctx context.Context) error {
	if err := o.step(ctx, StepClaim); err != nil {
		return err
	}
	h := Head{Epoch: o.cfg.Epoch, Sequence: o.s.last.seq, Garbage: o.leftovers()}
	h.Dirty = o.head.Dirty && o.l.appended > o.s.upto
	o.s.window = int64(cap(o.l.slots))
	h.State = o.s.encode()
	if err := o.cfg.Heads.Commit(ctx, h); err != nil {
		return fmt.Errorf("commit the head under epoch %d: %w", h.Epoch, err)
	}
	o.l.dirty.Store(h.Dirty)
	return nil
}

// leftovers are the keys that the last epoch may have used beyond its head.
func (o *opening) leftovers() []string {
	if o.head.Epoch == 0 {
		return nil
	}
	prior, err := decodeState(o.head.State)
	if err != nil {
		return nil // a new overlay has none
	}
	return prior.leftovers(o.cfg.Prefix, o.head.Epoch)
}

// leftovers are the keys that epoch, of which s is the last head, may have used
// besides those that s refers to.
func (s *state) leftovers(prefix string, epoch int64) []string {
	var keys []string
	for i := range s.window {
		keys = append(keys, segmentKey(prefix, epoch, s.last.seq+1+i))
	}
	for _, number := range []int64{s.maps - 1, s.maps} {
		key := mapKey(prefix, epoch, number)
		used := func(m mapRef) bool { return m.key(prefix) == key }
		if !used(s.base) && !slices.ContainsFunc(s.snaps, func(n snapshot) bool { return used(n.m) }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// tidy removes journals that have nothing of worth and sets the others aside.
// What it fails at is tried again by the next Open.
func (o *opening) tidy(ctx context.Context) {
	entries, err := o.cfg.FS.ReadDir(o.cfg.Dir)
	if err != nil {
		o.cfg.Logger.Warn("old journals of an overlay cannot be looked for", "overlay", o.cfg.ID, "err", err)
		return
	}
	for _, e := range entries {
		path := filepath.Join(o.cfg.Dir, e.Name())
		if strings.HasPrefix(e.Name(), asideDir) {
			o.l.aside = append(o.l.aside, path)
			continue
		}
		hex, ok := strings.CutPrefix(e.Name(), journalDir)
		epoch, err := strconv.ParseInt(hex, 16, 64)
		if !ok || err != nil || path == o.dir {
			continue
		}
		if err := o.settleOld(ctx, path, epoch); err != nil {
			o.cfg.Logger.Warn("an old journal of an overlay cannot be set aside", "overlay", o.cfg.ID, "path", path, "err", err)
		}
	}
}

func (o *opening) settleOld(ctx context.Context, path string, epoch int64) error {
	cfg := o.journalConfig(path, epoch)
	end, err := endOf(ctx, cfg)
	if err == nil && o.worthless(epoch, end) {
		return journal.Remove(cfg)
	}
	to := o.cfg.journal(asideDir, epoch)
	if err := journal.SetAside(cfg, to); err != nil {
		return err
	}
	o.l.aside = append(o.l.aside, to)
	o.cfg.Logger.Warn("a journal of an overlay was set aside: another epoch went on without it", "overlay", o.cfg.ID, "path", to)
	return nil
}

// endOf returns where the last record of a journal ends, 0 if it has none.
func endOf(ctx context.Context, cfg journal.Config) (int64, error) {
	j, err := journal.OpenOld(ctx, cfg)
	if err != nil {
		return 0, err
	}
	st := j.Stats()
	if err := j.Close(); err != nil || st.Start == st.End {
		return 0, err
	}
	return st.End, nil
}

// worthless tells whether a journal that ends at end has nothing that was
// acknowledged and is not in the store.
func (o *opening) worthless(epoch, end int64) bool {
	if end == 0 || epoch > o.head.Epoch {
		return true // nothing is acknowledged before the epoch is claimed
	}
	return slices.ContainsFunc(o.s.past, func(p past) bool { return p.journal == epoch && end <= p.upto })
}
