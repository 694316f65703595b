package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// ErrNoFUSE says that this machine, container or user cannot mount FUSE file
// systems. The error that wraps it says what is missing and what to do.
var ErrNoFUSE = errors.New("FUSE is not available")

// A Config says what to mount where. Dir and Library are required.
type Config struct {
	// Dir is the directory to mount on. It is created if it is missing and
	// must be empty. A mount that a crashed gateway left there is taken over.
	Dir     string
	Library Library

	// AllowOther lets users other than the one who mounts read the tree.
	AllowOther bool

	// Gateway and Revision are shown in .platter/status; Revision is asked
	// at each reading and may be nil.
	Gateway  string
	Revision func() int64

	// Logger takes what goes wrong behind the kernel's back. Nil is silence.
	Logger *slog.Logger
}

// A Tree is a mounted tree of images.
type Tree struct {
	cfg    Config
	log    *slog.Logger
	since  time.Time
	byID   *byID
	byName *byName
	server *fuse.Server
	space  atomic.Pointer[space] // what df was told last

	mu      sync.Mutex
	handles map[*handle]struct{} // open data files and records

	closing sync.Once
	err     error
}

// Mount mounts the tree and returns once it can be used. ctx covers the
// mounting only; the tree stays until Close. The error is ErrNoFUSE where
// FUSE cannot be used at all.
func Mount(ctx context.Context, cfg Config) (*Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := available("/dev/fuse", os.Geteuid()); err != nil {
		return nil, err
	}
	t := newTree(cfg)
	dir, err := claim(cfg.Dir, t.log)
	if err != nil {
		return nil, err
	}
	t.cfg.Dir = dir
	t.server, err = fs.Mount(dir, &root{t: t}, t.options())
	if err != nil {
		return nil, mountError(dir, err)
	}
	return t, nil
}

func newTree(cfg Config) *Tree {
	t := &Tree{cfg: cfg, log: cfg.Logger, since: time.Now(), handles: map[*handle]struct{}{}}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.byID, t.byName = &byID{t: t}, &byName{t: t}
	return t
}

// options returns what was measured to be good: reads of 1 MiB, which do not
// fit into a pipe and so must not be spliced, and as much read-ahead as the
// kernel allows.
func (t *Tree) options() *fs.Options {
	keep := keepLong
	opts := &fs.Options{
		EntryTimeout: &keep,
		AttrTimeout:  &keep,
		MountOptions: fuse.MountOptions{
			FsName:                   "platter",
			Name:                     "platter",
			AllowOther:               t.cfg.AllowOther,
			MaxWrite:                 1 << 20,
			MaxReadAhead:             1 << 20,
			MaxBackground:            64,
			DisableSplice:            true,
			IgnoreSecurityLabels:     true,
			EnableSymlinkCaching:     true,
			ExplicitDataCacheControl: true,
			ExtraCapabilities:        fuse.CAP_READDIRPLUS_AUTO,
			PanicHandler:             t.panicked,
		},
	}
	if t.cfg.AllowOther {
		opts.Options = append(opts.Options, "default_permissions")
	}
	if os.Geteuid() == 0 {
		opts.DirectMount = true
		opts.DirectMountFlags = syscall.MS_RDONLY | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	} else {
		opts.Options = append(opts.Options, "ro", "noexec")
	}
	return opts
}

func (t *Tree) panicked(v any) fuse.Status {
	t.log.Error("fusefs: panic in a request", "panic", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

func mountError(dir string, err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("fusefs: mounting on %s: %w: %w: run as root, or give the container "+
			"--device /dev/fuse --cap-add SYS_ADMIN, or switch the file view off", dir, ErrNoFUSE, err)
	}
	return fmt.Errorf("fusefs: mounting on %s: %w", dir, err)
}

// Changed makes the kernel forget what it knows of the record of an image and
// of its names: names are those it has and had, as far as they are known.
func (t *Tree) Changed(ctx context.Context, id string, names ...string) {
	if dir := t.byID.GetChild(id); dir != nil {
		for _, child := range dir.Children() {
			child.NotifyContent(-1, 0) // attributes only: the bytes are the same
		}
		dir.NotifyContent(-1, 0)
	}
	for _, name := range t.known(ctx, id, names) {
		t.byName.forget(ctx, id, name)
	}
}

// Removed makes an image vanish at once. Files that are open go on.
func (t *Tree) Removed(ctx context.Context, id string, names ...string) {
	names = t.known(ctx, id, names)
	if dir := t.byID.GetChild(id); dir != nil {
		t.byID.NotifyDelete(id, dir)
	} else {
		t.byID.NotifyEntry(id)
	}
	for _, name := range names {
		t.byName.forget(ctx, id, name)
	}
}

// known adds to names those that the tree itself has seen the image under.
func (t *Tree) known(ctx context.Context, id string, names []string) []string {
	all := map[string]bool{}
	for _, name := range names {
		all[name] = true
	}
	if dir := t.byID.GetChild(id); dir != nil {
		all[dir.Operations().(*imageDir).last.Load().Name] = true
	}
	if img, err := t.cfg.Library.Image(ctx, id); err == nil {
		all[img.Name] = true
	}
	delete(all, "")
	out := make([]string, 0, len(all))
	for name := range all {
		out = append(out, name)
	}
	return out
}

// Close unmounts the tree and waits until it has stopped. Nothing is left,
// even where somebody still has a file open: its reads fail from now on.
func (t *Tree) Close() error {
	t.closing.Do(func() { t.err = t.close() })
	return t.err
}

func (t *Tree) close() error {
	if err := unmount(t.cfg.Dir); err != nil {
		return err
	}
	t.server.Wait()
	t.mu.Lock()
	left := t.handles
	t.handles = map[*handle]struct{}{}
	t.mu.Unlock()
	for h := range left {
		t.closed(h.r.Close())
	}
	return nil
}
