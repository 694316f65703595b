package journal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

const (
	stateName = "journal"
	stateTemp = "journal.new"

	defaultLimit    = 1 << 30
	defaultFileSize = 16 << 20
	leastFiles      = 4
)

func (cfg *Config) defaults() {
	if cfg.FS == nil {
		cfg.FS = localfs.OS()
	}
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	if cfg.FileSize == 0 {
		cfg.FileSize = min(defaultFileSize, cfg.Limit/leastFiles)
	}
	cfg.FileSize = max(alignUp(cfg.FileSize, pageSize), minFileSize)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

func newJournal(cfg Config, s *state) *Journal {
	j := &Journal{
		cfg: cfg, state: s, log: cfg.Logger,
		room: make(chan struct{}), crowded: make(chan struct{}, 1),
	}
	j.cfg.Limit = max(cfg.Limit/s.fileSize, leastFiles) * s.fileSize
	j.requests.New = func() any { return &request{wake: make(chan struct{}, 1)} }
	return j
}

// Create makes an empty journal in cfg.Dir, which is made if it is missing. If
// there is a journal already it is fs.ErrExist.
func Create(ctx context.Context, cfg Config) (*Journal, error) {
	cfg.defaults()
	if len(cfg.ID) > maxID || cfg.Limit < 0 || cfg.FileSize > maxFileSize {
		return nil, fmt.Errorf("journal %s: a name of %d bytes, a limit of %d, files of %d: %w", cfg.Dir, len(cfg.ID), cfg.Limit, cfg.FileSize, fs.ErrInvalid)
	}
	if err := makeState(cfg); err != nil {
		return nil, fmt.Errorf("journal %s: create: %w", cfg.Dir, err)
	}
	return Open(ctx, cfg)
}

func makeState(cfg Config) error {
	err := localfs.MkdirAll(cfg.FS, cfg.Dir)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	path, temp := filepath.Join(cfg.Dir, stateName), filepath.Join(cfg.Dir, stateTemp)
	if f, err := cfg.FS.Open(path, os.O_RDONLY, 0); err == nil {
		f.Close()
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What a Remove left that did not come to its end.
	if err := removeFiles(cfg); err != nil {
		return err
	}
	s := &state{Identity: Identity{ID: cfg.ID, Epoch: cfg.Epoch}, fileSize: cfg.FileSize}
	rand.Read(s.salt[:]) // never fails
	p := make([]byte, stateSize)
	copy(p, s.encode())
	copy(p[slotAt(0):], slot{count: 1, start: s.first(0)}.encode(s.salt[:]))
	f, err := cfg.FS.Open(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(p, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := localfs.RenameNew(cfg.FS, temp, path); err != nil {
		return err
	}
	return cfg.FS.SyncDir(cfg.Dir)
}

// Open opens the journal in cfg.Dir. If there is none it is fs.ErrNotExist; one
// of another overlay or epoch is ErrForeign; one that is open already is
// syscall.EBUSY, where the file system knows locks. What a crash left is read
// with Records, from Start; nothing but locks changes on disk before the first
// Append or Trim.
func Open(ctx context.Context, cfg Config) (*Journal, error) {
	return open(ctx, cfg, false)
}

// OpenOld opens a journal for reading, whosever it is: Append, Sync and Trim
// are errors.ErrUnsupported. cfg.ID and cfg.Epoch are not looked at. Of one
// that is damaged it has what comes before the damage. It takes no lock.
func OpenOld(ctx context.Context, cfg Config) (*Journal, error) {
	return open(ctx, cfg, true)
}

func open(ctx context.Context, cfg Config, readOnly bool) (*Journal, error) {
	cfg.defaults()
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := cfg.FS.Open(filepath.Join(cfg.Dir, stateName), flag, 0)
	if err != nil {
		return nil, fmt.Errorf("journal %s: open: %w", cfg.Dir, err)
	}
	s, sl, err := readState(f)
	if err == nil && !readOnly {
		err = s.belongs(cfg)
	}
	if err == nil && !readOnly {
		if err = localfs.LockImage(f); errors.Is(err, errors.ErrUnsupported) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: open: %w", cfg.Dir, err), f.Close())
	}
	j := newJournal(cfg, s)
	j.readOnly, j.slots = readOnly, sl
	j.slots.f = f
	if err := j.recover(ctx, flag); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: recover: %w", cfg.Dir, err), j.Close())
	}
	return j, nil
}

// belongs returns ErrForeign unless the journal is the one that cfg names.
func (s *state) belongs(cfg Config) error {
	if s.ID != cfg.ID || s.Epoch != cfg.Epoch {
		return fmt.Errorf("it is of overlay %q, epoch %d, not of %q, epoch %d: %w", s.ID, s.Epoch, cfg.ID, cfg.Epoch, ErrForeign)
	}
	return nil
}

// readState reads the state file.
func readState(f localfs.File) (*state, slots, error) {
	p := make([]byte, stateSize)
	if err := readFull(f, p, 0); err != nil {
		return nil, slots{}, err
	}
	s, err := decodeState(p[:pageSize])
	if err != nil {
		return nil, slots{}, err
	}
	sl := slots{unsure: true}
	for i := range 2 {
		if got, ok := decodeSlot(p[slotAt(i):][:sectorSize], s.salt[:]); ok && got.count > sl.last.count {
			sl.last, sl.durable = got, i
		}
	}
	if sl.last.start < s.first(0) || sl.last.start > 1<<62 {
		return nil, slots{}, fmt.Errorf("it does not say where it starts: %w", ErrDamaged)
	}
	return s, sl, nil
}

// Identify returns whose journal cfg.Dir holds, or fs.ErrNotExist.
func Identify(cfg Config) (Identity, error) {
	cfg.defaults()
	f, err := cfg.FS.Open(filepath.Join(cfg.Dir, stateName), os.O_RDONLY, 0)
	if err != nil {
		return Identity{}, fmt.Errorf("journal %s: identify: %w", cfg.Dir, err)
	}
	defer f.Close()
	s, _, err := readState(f)
	if err != nil {
		return Identity{}, fmt.Errorf("journal %s: identify: %w", cfg.Dir, err)
	}
	return s.Identity, nil
}

// SetAside moves the journal in folder cfg.Dir, which nobody has open, to the
// folder to, a name that is free, and makes that last.
func SetAside(cfg Config, to string) error {
	cfg.defaults()
	from, into := filepath.Dir(cfg.Dir), filepath.Dir(to)
	err := localfs.MkdirAll(cfg.FS, into)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		err = localfs.RenameNew(cfg.FS, cfg.Dir, to)
	}
	if err == nil {
		err = cfg.FS.SyncDir(into)
	}
	if err == nil && from != into {
		err = cfg.FS.SyncDir(from)
	}
	if err != nil {
		return fmt.Errorf("journal %s: set aside as %s: %w", cfg.Dir, to, err)
	}
	return nil
}

// Remove deletes the journal in cfg.Dir, which nobody has open, whosever it is,
// and the folder if nothing else is in it. To remove nothing is not an error.
func Remove(cfg Config) error {
	cfg.defaults()
	// First what makes it a journal, so that half a Remove leaves none.
	err := cfg.FS.Remove(filepath.Join(cfg.Dir, stateName))
	if err == nil {
		err = cfg.FS.SyncDir(cfg.Dir)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = removeFiles(cfg)
	}
	if err != nil {
		return fmt.Errorf("journal %s: remove: %w", cfg.Dir, err)
	}
	// If the folder is not empty it is not only ours.
	_ = cfg.FS.Remove(cfg.Dir)
	return nil
}

// removeFiles removes the files of records, and what Create did not finish.
func removeFiles(cfg Config) error {
	entries, err := cfg.FS.ReadDir(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if _, ok := parseName(e.Name()); !ok && e.Name() != stateTemp {
			continue
		}
		if gone := cfg.FS.Remove(filepath.Join(cfg.Dir, e.Name())); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// names returns the numbers of the files in the folder, ascending.
func (j *Journal) names() (seqs []int64, _ error) {
	entries, err := j.cfg.FS.ReadDir(j.cfg.Dir)
	for _, e := range entries {
		if seq, ok := parseName(e.Name()); ok {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, err
}
