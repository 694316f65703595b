package ingest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// skew is how far the clock of a store may differ from ours.
const skew = time.Minute

// ownedPrefix begins the keys of what overlays and the gateways themselves
// keep in a store: no record of an image names them, their owners free them.
const ownedPrefix = "platter/"

// A Report counts what a sweep freed.
type Report struct {
	Abandoned int   // attempts that no process works on
	Collected int   // objects that the catalog had queued for deletion
	Orphans   int   // objects that no record named
	Bytes     int64 // of the orphans
}

// Recover ends the attempts that the last run of this gateway left behind.
// It is called once, before the doors open.
func (in *Ingest) Recover(ctx context.Context) error {
	n, err := in.abandon(ctx)
	if n > 0 {
		in.log.InfoContext(ctx, "uploads that a stop had cut off were undone", "uploads", n)
	}
	in.Kick()
	return err
}

// Run frees what deletions, failures and crashes left, until ctx ends.
func (in *Ingest) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { in.watch(ctx) })
	defer wg.Wait()
	garbage, orphans := time.NewTicker(in.cfg.GarbageEvery), time.NewTicker(in.cfg.OrphanEvery)
	defer garbage.Stop()
	defer orphans.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-in.kick:
			_, err = in.collect(ctx)
		case <-garbage.C:
			_, err = in.Tidy(ctx)
		case <-orphans.C:
			_, err = in.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			in.log.WarnContext(ctx, "freeing deleted bytes did not end well; it is tried again", "err", err)
		}
	}
}

// watch wakes Run when an image is deleted, so that its bytes go at once.
func (in *Ingest) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for change, err := range in.cfg.Catalog.Watch(ctx, in.cfg.Catalog.Revision()) {
			if err != nil {
				break
			}
			if change.Deleted && change.Kind == "image" {
				in.Kick()
			}
		}
		select { // a watch ends when the catalog is away
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Kick makes Run look for deleted locations now. It does not wait.
func (in *Ingest) Kick() {
	select {
	case in.kick <- struct{}{}:
	default: // it is already told
	}
}

// Tidy ends attempts that nobody works on and frees what the catalog has
// queued. It is cheap.
func (in *Ingest) Tidy(ctx context.Context) (Report, error) {
	var rep Report
	var errs [2]error
	rep.Abandoned, errs[0] = in.abandon(ctx)
	rep.Collected, errs[1] = in.collect(ctx)
	return rep, errors.Join(errs[:]...)
}

// Sweep is Tidy, and then lists every store that can be listed and frees each
// object that is older than the grace period and that no record names. A store
// that is shared with others cannot be listed: nothing is freed there that the
// catalog has not queued.
func (in *Ingest) Sweep(ctx context.Context) (Report, error) {
	rep, err := in.Tidy(ctx)
	errs := []error{err}
	for name, s := range in.cfg.Stores {
		n, bytes, err := in.orphans(ctx, name, s)
		rep.Orphans += n
		rep.Bytes += bytes
		errs = append(errs, err)
	}
	return rep, errors.Join(errs...)
}

// abandon ends the attempts of this gateway that no goroutine of it has, and
// those of gateways that are gone.
func (in *Ingest) abandon(ctx context.Context) (int, error) {
	ups, err := in.cfg.Catalog.Uploads(ctx)
	if err != nil {
		return 0, fmt.Errorf("ingest: list uploads: %w", err)
	}
	n := 0
	var errs []error
	for _, up := range ups {
		if up.Gateway != in.cfg.GatewayID || in.isLive(up.ID) {
			continue
		}
		err := in.cfg.Catalog.AbandonUpload(ctx, up)
		if err != nil {
			errs = append(errs, fmt.Errorf("ingest: abandon upload %s of image %s: %w", up.ID, up.Image, err))
			continue
		}
		n++
	}
	dead, err := in.cfg.Catalog.AbandonDead(ctx, in.cfg.DeadAfter)
	if err != nil {
		errs = append(errs, fmt.Errorf("ingest: abandon uploads of gateways that are gone: %w", err))
	}
	if dead > 0 {
		in.log.WarnContext(ctx, "uploads of gateways that are gone were undone", "uploads", dead)
	}
	return n + dead, errors.Join(errs...)
}

// collect frees the objects that the catalog has queued. What cannot be freed
// stays queued.
func (in *Ingest) collect(ctx context.Context) (int, error) {
	queue, err := in.cfg.Catalog.Garbage(ctx)
	if err != nil {
		return 0, fmt.Errorf("ingest: list deleted locations: %w", err)
	}
	n := 0
	var errs []error
	away := map[string]bool{} // stores that are not to be asked once more in vain
	for _, g := range queue {
		if away[g.Store] {
			continue
		}
		if err := in.free(ctx, g); err != nil {
			errs = append(errs, err)
			away[g.Store] = !errors.Is(err, syscall.EBUSY)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

func (in *Ingest) free(ctx context.Context, g catalog.Garbage) error {
	s := in.cfg.Stores[g.Store]
	if s == nil {
		return nil // another gateway has that store, or the configuration will again
	}
	// What cannot be deleted at all was never ours to delete.
	if err := s.Delete(ctx, g.Key); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("ingest: store %s: delete %s: %w", g.Store, g.Key, err)
	}
	if in.cfg.Freed != nil {
		in.cfg.Freed(g.Store, g.Key)
	}
	if err := in.cfg.Catalog.Collected(ctx, g); err != nil {
		return fmt.Errorf("ingest: store %s: %s is deleted but still queued: %w", g.Store, g.Key, err)
	}
	return nil
}

// removeNow frees the object of an attempt that was abandoned, rather than
// leaving it to the next round: a disk that is full should not stay full.
func (in *Ingest) removeNow(ctx context.Context, up catalog.Upload) {
	queue, err := in.cfg.Catalog.Garbage(ctx)
	for _, g := range queue {
		if err == nil && g.Store == up.Store && g.Key == up.Key {
			err = in.free(ctx, g)
		}
	}
	if err != nil {
		in.log.WarnContext(ctx, "the bytes of a failed upload could not be removed; the sweeper tries again",
			"store", up.Store, "key", up.Key, "err", err)
	}
}

// orphans frees what no record names in one store. The store is listed first
// and the records are read after: an object seen in the listing whose upload
// has ended since then is found in the image.
func (in *Ingest) orphans(ctx context.Context, name string, s backends.Store) (n int, bytes int64, err error) {
	var old []backends.Entry
	limit := in.cfg.Now().Add(-in.cfg.Grace)
	for e, err := range backends.List(ctx, s) {
		if err != nil {
			return 0, 0, fmt.Errorf("ingest: store %s: list: %w", name, err)
		}
		if in.cfg.Shared[name] && !e.Partial {
			continue // it may be somebody else's
		}
		if e.Modified.Before(limit) && !strings.HasPrefix(e.Key, ownedPrefix) {
			old = append(old, e)
		}
	}
	if len(old) == 0 {
		return 0, 0, nil
	}
	known, err := in.known(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range old {
		if known.has(e) {
			continue
		}
		if err := s.Delete(ctx, e.Key); err != nil {
			return n, bytes, fmt.Errorf("ingest: store %s: delete the orphan %s: %w", name, e.Key, err)
		}
		in.log.WarnContext(ctx, "bytes that no record names were removed",
			"store", name, "key", e.Key, "bytes", e.Size, "modified", e.Modified, "partial", e.Partial)
		n++
		bytes += e.Size
	}
	return n, bytes, nil
}

// The known objects of a store are those that must stay.
type known struct {
	keys   map[string]string
	oldest time.Time // when the first of the running uploads began; zero if none runs
}

// has tells whether a record names e. The name of an unfinished object need
// not be its key to be: it belongs to a running upload if it was written
// since that began.
func (k known) has(e backends.Entry) bool {
	if _, ok := k.keys[e.Key]; ok {
		return true
	}
	return e.Partial && !k.oldest.IsZero() && e.Modified.After(k.oldest.Add(-skew))
}

func (in *Ingest) known(ctx context.Context, store string) (known, error) {
	needed, err := in.cfg.Catalog.Objects(ctx, store)
	if err != nil {
		return known{}, fmt.Errorf("ingest: list the objects of store %s that are needed: %w", store, err)
	}
	ups, err := in.cfg.Catalog.Uploads(ctx)
	if err != nil {
		return known{}, fmt.Errorf("ingest: list uploads: %w", err)
	}
	k := known{keys: needed}
	for _, up := range ups {
		if up.Store == store && (k.oldest.IsZero() || up.StartedAt.Before(k.oldest)) {
			k.oldest = up.StartedAt
		}
	}
	return k, nil
}

// isGone tells whether an error says that the image, or the record of the
// attempt, is no longer there.
func isGone(err error) bool {
	return errors.Is(err, catalog.ErrGone) || errors.Is(err, fs.ErrNotExist)
}
