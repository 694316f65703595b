package exports

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/catalog"
)

// logEngine is the name of overlays that are logs of objects.
const logEngine = "object-log"

// drainTime bounds how long closing an overlay waits for its store. What is
// left then stays in the journal, and settle brings it over.
const drainTime = 3 * time.Second

// logs keeps overlays as logs of objects in one store.
type logs struct {
	e          *Exports
	store      string
	objects    backends.Store
	durability objectlog.Durability
}

// config says where a log is. With a tenure it is opened, and not only looked
// at.
func (l logs) config(ov catalog.Overlay, t *tenure) objectlog.Config {
	e := l.e
	cfg := objectlog.Config{
		ID: ov.ID, Store: l.objects, Prefix: "platter/overlays/" + ov.ID + "/", Heads: heads{e.cfg.Catalog, ov.ID, l.store},
		Epoch: ov.Epoch, HeldSince: ov.HeldSince, Size: ov.Size, Dir: filepath.Join(e.journalDir(), ov.ID), FS: e.cfg.FS, Guard: e.cfg.Guard,
		Durability: l.durability, JournalLimit: e.cfg.JournalLimit, Full: e.cfg.JournalFull, Quota: e.cfg.OverlayQuota,
		Logger: e.log.With("overlay", ov.ID), Now: e.cfg.Now,
	}
	if ov.Durability == "store" {
		cfg.Durability = objectlog.Store
	}
	if t != nil && e.members.join != nil {
		t.epoch, cfg.Gate = ov.Epoch, t.gate
	}
	if e.cfg.Steps != nil {
		cfg.Steps = func(ctx context.Context, step string) error { return e.cfg.Steps(ctx, ov.ID, step) }
	}
	return cfg
}

func (l logs) create(ctx context.Context, ov catalog.Overlay, _ catalog.Image) error {
	ov, err := l.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: l.e.cfg.GatewayID})
	if err != nil {
		return err
	}
	log, err := objectlog.Create(ctx, l.config(ov, nil))
	if err != nil {
		return fmt.Errorf("make overlay %s in store %s: %w", ov.ID, l.store, err)
	}
	err = log.Close()
	if err == nil {
		_, err = l.e.cfg.Catalog.ReleaseOverlay(ctx, ov.ID, ov.Epoch)
	}
	return err
}

func (l logs) open(ctx context.Context, ov catalog.Overlay, img catalog.Image, accept bool) (*volume, error) {
	base, err := l.e.OpenDisk(ctx, img)
	if err != nil {
		return nil, err
	}
	log, release, err := l.take(ctx, ov, accept, 0)
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return l.volume(log, base, func() error { return errors.Join(release(), base.Close()) }), nil
}

// take opens a log under a new epoch, and gives it another size if that is not
// 0. release closes it again, and gives the overlay back if no journal is needed
// for it any more.
func (l logs) take(ctx context.Context, before catalog.Overlay, accept bool, size int64) (log *objectlog.Log, release func() error, err error) {
	if err := os.MkdirAll(l.e.journalDir(), 0o700); err != nil {
		return nil, nil, err
	}
	t := l.e.begins(before.ID)
	ov, err := l.e.cfg.Catalog.TakeOverlay(ctx, before.ID, catalog.Take{Gateway: l.e.cfg.GatewayID, AcceptLoss: accept})
	if err != nil {
		return nil, nil, conflict(err)
	}
	cfg := l.config(ov, t)
	// The record may say less than the disk has, after a resizing that broke
	// off: to be opened is no reason to lose anything.
	cfg.Size, cfg.AcceptLoss = size, accept
	log, err = objectlog.Open(ctx, cfg)
	if err != nil {
		l.e.giveBack(ctx, before, ov)
		return nil, nil, conflict(err)
	}
	return log, func() error { return l.give(log, ov) }, nil
}

// errNextProcess is why a store lacks what the next process brings over.
var errNextProcess = errors.New("another process goes on with it")

// give closes a log.
func (l logs) give(log *objectlog.Log, ov catalog.Overlay) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.e.drain)
	defer cancel()
	flushed, drained := log.Flush(ctx), errNextProcess
	if !l.e.hurried.Load() {
		drained = log.Drain(ctx)
	}
	err := errors.Join(flushed, log.Close())
	if err == nil && drained == nil {
		_, err = l.e.cfg.Catalog.ReleaseOverlay(context.Background(), ov.ID, ov.Epoch)
	} else if err == nil {
		l.e.log.Info("an overlay was closed while its store lacks the last of it; that follows from the journal", "overlay", ov.ID, "err", drained)
	}
	return err
}

// volume is a log over its base.
func (l logs) volume(log *objectlog.Log, base block.Reader, release func() error) *volume {
	return &volume{
		disk: overlay.New(base, log), base: base, snaps: log, changes: log.Changes, used: log.Usage, close: release, log: log.Stats,
		list: func(context.Context) ([]catalog.OverlaySnapshot, error) {
			var out []catalog.OverlaySnapshot
			for _, s := range log.Snapshots() {
				out = append(out, catalog.OverlaySnapshot{ID: s.ID, Name: s.Name, CreatedAt: s.Created})
			}
			return out, nil
		},
	}
}

func (l logs) remove(ctx context.Context, ov catalog.Overlay) error {
	// A new epoch: whoever may still write to it cannot add an object that is
	// not in the list.
	ov, err := l.e.cfg.Catalog.TakeOverlay(ctx, ov.ID, catalog.Take{Gateway: l.e.cfg.GatewayID, AcceptLoss: true})
	if err != nil {
		return absent(conflict(err))
	}
	cfg := l.config(ov, nil)
	keys, err := objectlog.Objects(ctx, cfg)
	if errors.Is(err, objectlog.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
		// It will never be better, and what is damaged must go, too.
		l.e.log.ErrorContext(ctx, "an overlay that is damaged is deleted, and not all its objects are known; delete what is left under its prefix",
			"overlay", ov.ID, "store", l.store, "prefix", cfg.Prefix, "err", err)
	} else if err != nil {
		return fmt.Errorf("list the objects of overlay %s: %w", ov.ID, err)
	}
	garbage := make([]catalog.Garbage, 0, len(keys))
	for _, key := range keys {
		garbage = append(garbage, catalog.Garbage{Store: l.store, Key: key})
	}
	if err := absent(l.e.cfg.Catalog.DeleteOverlay(ctx, ov.ID, garbage...)); err != nil {
		return err
	}
	return absent(objectlog.Remove(ctx, cfg))
}

func (l logs) stored(ctx context.Context, id string) int64 { return 0 }

func (l logs) resize(ctx context.Context, ov catalog.Overlay, size int64) error {
	_, release, err := l.take(ctx, ov, false, size)
	if err != nil {
		return err
	}
	return release()
}

// Logs tells about the logs that are open, by overlay.
func (e *Exports) Logs() map[string]objectlog.Stats {
	e.mu.Lock()
	open := make([]*shared, 0, len(e.disks))
	for _, d := range e.disks {
		open = append(open, d)
	}
	e.mu.Unlock()
	out := map[string]objectlog.Stats{}
	for _, d := range open {
		select {
		case <-d.ready:
			if d.vol != nil && d.vol.log != nil {
				out[d.key] = d.vol.log()
			}
		default: // it is being opened
		}
	}
	return out
}

// conflict is an error of taking an overlay, for those who asked: that it is
// another's is no failure of ours.
func conflict(err error) error {
	var held *catalog.HeldError
	var loss *catalog.LossError
	var gone *objectlog.LossError
	switch {
	case errors.As(err, &held):
		return wire.Errorf(409, "%w: %w", err, fs.ErrPermission)
	case errors.As(err, &loss), errors.As(err, &gone):
		return wire.Errorf(409, "%w: attach it with accept_loss (platter attach --accept-loss) if what that journal holds may be lost: %w", err, fs.ErrPermission)
	}
	return err
}

// heads keeps the head of one log in the catalog. There the epoch of a head is
// that of the owner, whether it has committed anything or not; a log wants to
// know who committed, so that is the first of the data.
type heads struct {
	c         *catalog.Catalog
	id, store string
}

// Load returns the head.
func (h heads) Load(ctx context.Context) (objectlog.Head, error) {
	got, err := h.c.OverlayHead(ctx, h.id)
	if err != nil || len(got.Data) == 0 {
		return objectlog.Head{}, err
	}
	epoch, n := binary.Varint(got.Data)
	if n <= 0 {
		return objectlog.Head{}, fmt.Errorf("the head of overlay %s: %w", h.id, objectlog.ErrCorrupt)
	}
	return objectlog.Head{Epoch: epoch, Sequence: got.Sequence, Dirty: got.Dirty, State: got.Data[n:]}, nil
}

// Commit replaces the head.
func (h heads) Commit(ctx context.Context, head objectlog.Head) error {
	garbage := make([]catalog.Garbage, 0, len(head.Garbage))
	for _, key := range head.Garbage {
		garbage = append(garbage, catalog.Garbage{Store: h.store, Key: key})
	}
	err := h.c.CommitHead(ctx, h.id, catalog.OverlayHead{
		Epoch: head.Epoch, Sequence: head.Sequence, Dirty: head.Dirty,
		Data: append(binary.AppendVarint(nil, head.Epoch), head.State...),
	}, garbage)
	if errors.Is(err, catalog.ErrFenced) {
		return errors.Join(objectlog.ErrFenced, err)
	}
	return err
}
