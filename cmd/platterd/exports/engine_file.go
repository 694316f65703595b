package exports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
	"github.com/seed-478a8fee/platter/catalog"
)

// fileEngine is the name of overlays that are qcow2 files of this gateway.
const fileEngine = "file"

// files keeps overlays, and ephemeral disks, as qcow2 files in folders of this
// gateway. They never move.
type files struct{ e *Exports }

func (f files) path(id string) string { return filepath.Join(f.e.overlayDir(), id+".qcow2") }

func (f files) config(ov catalog.Overlay) delta.Config {
	return delta.Config{
		FS: f.e.cfg.FS, Guard: f.e.cfg.Guard, Path: f.path(ov.ID), Size: ov.Size,
		Backing: f.e.imageURI(ov.ImageID), BackingFormat: "raw", Quota: f.e.cfg.OverlayQuota, Logger: f.e.log,
	}
}

func (f files) create(ctx context.Context, ov catalog.Overlay, _ catalog.Image) error {
	d, err := delta.Create(ctx, f.config(ov))
	if err != nil {
		return fmt.Errorf("make overlay %s: %w", ov.ID, err)
	}
	return d.Close()
}

func (f files) open(ctx context.Context, ov catalog.Overlay, img catalog.Image, _ bool) (*volume, error) {
	base, err := f.e.OpenDisk(ctx, img)
	if err != nil {
		return nil, err
	}
	d, err := delta.Open(ctx, f.config(ov))
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return fileVolume(base, d), nil
}

// openEphemeral opens the disk of an ephemeral attachment, and makes it when
// it is first opened.
func (f files) openEphemeral(ctx context.Context, id string, img catalog.Image) (*volume, error) {
	base, err := f.e.OpenDisk(ctx, img)
	if err != nil {
		return nil, err
	}
	cfg := delta.Config{
		FS: f.e.cfg.FS, Guard: f.e.cfg.Guard, Path: f.e.ephemeralPath(id), Size: sectors(base.Size()),
		Backing: f.e.imageURI(img.ID), BackingFormat: "raw", Quota: f.e.cfg.EphemeralQuota, Logger: f.e.log,
	}
	d, err := delta.Open(ctx, cfg)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = delta.Create(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the ephemeral disk of attachment %s: %w", id, err), base.Close())
	}
	return fileVolume(base, d), nil
}

// openVolatile makes a disk without a name that is gone when it is closed.
func (f files) openVolatile(ctx context.Context, name string, img catalog.Image) (*volume, error) {
	base, err := f.e.OpenDisk(ctx, img)
	if err != nil {
		return nil, err
	}
	d, err := delta.Create(ctx, delta.Config{
		FS: f.e.cfg.FS, Guard: f.e.cfg.Guard, Path: f.e.ephemeralPath(name),
		Size: sectors(base.Size()), Quota: f.e.cfg.EphemeralQuota, Volatile: true, Logger: f.e.log,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the ephemeral disk: %w", err), base.Close())
	}
	return fileVolume(base, d), nil
}

// fileVolume is a delta over its base, as a volume that closes both.
func fileVolume(base block.ReadCloser, d *delta.Delta) *volume {
	return &volume{
		disk: overlay.New(base, d), base: base, snaps: fileSnapshots{d}, changes: d.Changes, used: d.Usage,
		list: func(context.Context) ([]catalog.OverlaySnapshot, error) {
			var out []catalog.OverlaySnapshot
			for _, s := range d.Snapshots() {
				out = append(out, catalog.OverlaySnapshot{ID: s.ID, Name: s.Name, CreatedAt: s.Created})
			}
			return out, nil
		},
		close: func() error {
			return errors.Join(d.Flush(context.Background()), d.Close(), base.Close())
		},
	}
}

// fileSnapshots are the internal snapshots of a delta.
type fileSnapshots struct{ d *delta.Delta }

func (s fileSnapshots) Snapshot(ctx context.Context, name string) (string, error) {
	return s.d.Snapshot(ctx, name)
}

func (s fileSnapshots) DeleteSnapshot(ctx context.Context, id string) error {
	return s.d.DeleteSnapshot(ctx, id)
}

func (s fileSnapshots) OpenSnapshot(ctx context.Context, id string) (block.ReadCloser, error) {
	return s.d.OpenSnapshot(ctx, id)
}

func (f files) remove(ctx context.Context, ov catalog.Overlay) error {
	if err := f.e.remove(f.e.overlayDir(), f.path(ov.ID)); err != nil {
		return fmt.Errorf("delete the file of overlay %s: %w", ov.ID, err)
	}
	return absent(f.e.cfg.Catalog.DeleteOverlay(ctx, ov.ID))
}

func (f files) stored(_ context.Context, id string) int64 {
	for _, path := range []string{f.path(id), f.e.ephemeralPath(id)} {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err == nil {
			return st.Blocks * 512
		} else if !errors.Is(err, fs.ErrNotExist) {
			return 0
		}
	}
	return 0
}

// mend opens an overlay after a crash, without its image: what lies below is
// not to be read.
func (f files) mend(ctx context.Context, ov catalog.Overlay) (*volume, error) {
	d, err := delta.Open(ctx, f.config(ov))
	if err != nil {
		return nil, err
	}
	return fileVolume(nothing{}, d), nil
}

// nothing is a base that has no bytes.
type nothing struct{}

func (nothing) Size() int64 { return 0 }

func (nothing) ReadAt(_ context.Context, p []byte, off int64) error {
	return block.CheckRange(off, int64(len(p)), 0)
}

func (nothing) Close() error { return nil }

// imageURI is how QEMU finds the base of an overlay while a gateway runs.
func (e *Exports) imageURI(id string) string {
	if e.cfg.Socket != "" {
		return (&url.URL{Scheme: "nbd+unix", Path: "/" + id, RawQuery: "socket=" + url.QueryEscape(e.cfg.Socket)}).String()
	}
	if e.cfg.TCP != "" {
		return (&url.URL{Scheme: "nbd", Host: e.cfg.TCP, Path: "/" + id}).String()
	}
	return ""
}

func (f files) resize(context.Context, catalog.Overlay, int64) error { return errors.ErrUnsupported }
