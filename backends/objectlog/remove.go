package objectlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// Objects returns the keys of all objects that the overlay may have in the
// store, for who deletes it as a whole. Nobody has it open. Of cfg it needs ID,
// Store, Prefix and Heads.
func Objects(ctx context.Context, cfg Config) ([]string, error) {
	keys, err := objects(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("overlay %s: list its objects: %w", cfg.ID, err)
	}
	return keys, nil
}

func objects(ctx context.Context, cfg Config) ([]string, error) {
	h, err := cfg.Heads.Load(ctx)
	if err != nil || len(h.State) == 0 {
		return nil, err
	}
	s, err := decodeState(h.State)
	if err != nil {
		return nil, err
	}
	keys := s.leftovers(cfg.Prefix, h.Epoch)
	maps := []mapRef{s.base}
	for _, n := range s.snaps {
		maps = append(maps, n.m)
	}
	for _, r := range s.tail {
		keys = append(keys, r.key(cfg.Prefix))
	}
	id := digest(sha256.Sum256([]byte(cfg.ID)))
	for _, m := range maps {
		if m.number == 0 {
			continue
		}
		keys = append(keys, m.key(cfg.Prefix))
		d, err := loadMap(ctx, cfg.Store, cfg.Prefix, id, m)
		if err != nil {
			return nil, err
		}
		for _, r := range d.segs {
			keys = append(keys, r.key(cfg.Prefix))
		}
		for _, g := range d.dead {
			keys = append(keys, g.key(cfg.Prefix))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// Remove deletes what an overlay has on this machine, journals that were set
// aside included. Nobody has it open. Of cfg it needs ID, Dir and FS.
func Remove(_ context.Context, cfg Config) error {
	if cfg.FS == nil {
		cfg.FS = localfs.OS()
	}
	entries, err := cfg.FS.ReadDir(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), journalDir) || strings.HasPrefix(e.Name(), asideDir) {
			err = errors.Join(err, journal.Remove(journal.Config{FS: cfg.FS, Dir: filepath.Join(cfg.Dir, e.Name())}))
		}
	}
	if lock := filepath.Join(cfg.Dir, lockName); err == nil {
		if err = cfg.FS.Remove(lock); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = cfg.FS.Remove(cfg.Dir)
		}
	}
	if err != nil {
		return fmt.Errorf("overlay %s: remove its journal: %w", cfg.ID, err)
	}
	return nil
}
