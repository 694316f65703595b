package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/backends/objectlog"
)

// journalGrace is how long a journal stays whose overlay has no record. Its
// overlay was deleted by another gateway, or somebody has given this one the
// wrong catalog, and will notice.
const journalGrace = 24 * time.Hour

// sweepJournals removes the journals of overlays that are gone. It is for one
// goroutine.
func (e *Exports) sweepJournals(ctx context.Context) error {
	entries, err := e.cfg.FS.ReadDir(e.journalDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	strays := map[string]time.Time{} // since when they are seen
	errs := []error{err}
	for _, entry := range entries {
		id := entry.Name()
		if uuid.Validate(id) != nil {
			continue // not ours
		}
		if _, err := e.cfg.Catalog.Overlay(ctx, id); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		since, seen := e.strays[id]
		if !seen {
			since = e.cfg.Now()
			e.log.WarnContext(ctx, "a journal is of an overlay that is gone; it is removed later",
				"path", filepath.Join(e.journalDir(), id), "after", journalGrace)
		}
		if e.cfg.Now().Sub(since) < journalGrace {
			strays[id] = since
			continue
		}
		if err := e.dropJournal(ctx, id); err != nil {
			strays[id] = since
			errs = append(errs, err)
		}
	}
	e.strays = strays
	return errors.Join(errs...)
}

// dropJournal removes the journal of an overlay, if nobody makes it just now.
func (e *Exports) dropJournal(ctx context.Context, id string) error {
	defer e.keys.lock(id)()
	if _, err := e.cfg.Catalog.Overlay(ctx, id); !errors.Is(err, fs.ErrNotExist) || e.isOpen(id) {
		return nil
	}
	err := objectlog.Remove(ctx, objectlog.Config{ID: id, Dir: filepath.Join(e.journalDir(), id), FS: e.cfg.FS})
	if err != nil {
		return fmt.Errorf("remove the journal of an overlay that is gone: %w", err)
	}
	e.log.InfoContext(ctx, "the journal of an overlay that is gone was removed", "overlay", id)
	return nil
}
