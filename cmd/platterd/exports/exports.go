package exports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/fusefs"
	"github.com/seed-478a8fee/platter/nbd"
)

// A Config says what to join. Catalog, Stores, Opener, Ingest and DataDir are
// required.
type Config struct {
	Catalog *catalog.Catalog
	Stores  map[string]backends.Store
	Opener  *disk.Opener
	Ingest  *ingest.Ingest

	DefaultStore string // where overlays go if nobody says; "": to files here

	// Far names the stores that are read through the Opener's cache. With
	// Traces what is read first of their images is remembered.
	Far    map[string]bool
	Traces bool

	// Fails tells whether a store is known not to answer: what another one has
	// as well is read there. Nil: nobody knows.
	Fails func(store string) bool

	// Used is told of every image that is opened; nil: nobody is.
	Used func(img catalog.Image)

	// Overlays says, by store, how overlays are kept there. A store that is
	// not in it has them as files of this gateway.
	Overlays map[string]Overlays

	// Join takes this gateway's place among others that use the same catalog,
	// again after a lease has ended; nil: there are none.
	Join func(ctx context.Context) (*catalog.Membership, error)

	JournalLimit int64        // bytes of the journal of one object-log overlay; 0 is 1 GiB
	JournalFull  journal.Full // what a write does when it is full

	// Steps is called before and after everything that others can see of an
	// object-log overlay; see objectlog.Config. nil is nobody.
	Steps func(ctx context.Context, overlay, step string) error

	DataDir   string // overlays and ephemeral deltas go to folders beneath it
	GatewayID string

	FS    localfs.FS    // nil: the machine's own
	Guard localfs.Guard // keeps space free for others; nil: none

	// Socket and TCP say where NBD is served, for URIs: the path of the
	// socket, and host:port. What is "" is not served.
	Socket, TCP string

	// TLS says that TCP speaks TLS as well, TLSRequired that it speaks nothing else.
	// ClientCertificates says that over TLS the client shows one. Elsewhere is
	// the host:port that clients on other machines are told; "" is TCP.
	TLS, TLSRequired, ClientCertificates bool
	Elsewhere                            string

	// Rules say what clients may open over the network. None: everything.
	Rules []Rule

	// TokensOnly hides everything but attach/TOKEN, as auth keystone wants.
	TokensOnly bool

	// Kick cuts NBD connections by their numbers and waits until their
	// exports are closed. Nil: the sessions end, the connections stay.
	Kick func(conns []uint64)

	// Record writes image.json; nil: a plain form of the record.
	Record func(ctx context.Context, img catalog.Image) ([]byte, error)

	MaxOverlaySize int64 // bytes of the disk; 0 is 64 TiB
	OverlayQuota   int64 // bytes stored for one overlay; 0: as much as its size needs
	EphemeralQuota int64 // bytes stored for one ephemeral disk; 0 is 16 GiB

	UnusedAfter time.Duration // an attachment never used expires; 0 is 1 hour
	TaskLife    time.Duration // how long an ended task is kept; 0 is 48 hours
	MaxCaptures int           // that copy at once; 0 is 2
	MaxPending  int           // captures that wait; 0 is 16
	Project     string        // whose images the file tree shows; "": all

	Logger *slog.Logger     // nil is silence
	Now    func() time.Time // nil is time.Now
}

// Overlays says how overlays are kept in a store.
type Overlays struct {
	// Objects is where the objects of logs are; segments are read through it,
	// so it may be a cache above the store. Nil: no logs.
	Objects    backends.Store
	Durability objectlog.Durability

	// RBD returns the store of clones, if it can be reached. Nil: no clones.
	RBD func(ctx context.Context) (*rbd.Store, error)
}

// Exports joins the catalog and the bytes. Any number of goroutines may use it
// at once.
type Exports struct {
	cfg  Config
	log  *slog.Logger
	keys keyLocks

	pause    time.Duration // between tries while the catalog is away
	handover time.Duration
	drain    time.Duration // see drainTime
	hurried  atomic.Bool   // see Hurry

	members members

	files  files
	places map[string]place // of overlays, by store

	parents  parents
	captures captures

	mu       sync.Mutex
	closed   bool
	disks    map[string]*shared
	doomed   map[string]bool // overlays that are being deleted
	sessions map[*session]struct{}

	strays map[string]time.Time // see sweepJournals
}

// What the doors ask for.
var (
	_ nbd.Exports         = (*Exports)(nil)
	_ fusefs.Library      = (*Library)(nil)
	_ platter.Overlays    = (*Exports)(nil)
	_ platter.Attachments = (*Exports)(nil)
	_ platter.Disks       = (*Exports)(nil)
)

// New returns an Exports. Call Recover before the doors open, keep Run
// running, and Close at the end, after the doors.
func New(cfg Config) (*Exports, error) {
	if cfg.Catalog == nil || cfg.Opener == nil || cfg.Ingest == nil || cfg.DataDir == "" || len(cfg.Stores) == 0 {
		return nil, errors.New("exports: a catalog, stores, an opener, an ingest and a data directory are required")
	}
	cfg.setDefaults()
	cfg.TCP, cfg.Elsewhere = reach(cfg.TCP), reach(cmp.Or(cfg.Elsewhere, cfg.TCP))
	e := &Exports{cfg: cfg, log: cfg.Logger, pause: endPause, handover: handover, drain: drainTime, disks: map[string]*shared{}, doomed: map[string]bool{}, sessions: map[*session]struct{}{}}
	e.members.join = cfg.Join
	e.files, e.places = files{e}, e.engines()
	e.parents.init()
	e.captures.init(cfg.MaxCaptures, cfg.MaxPending)
	for _, dir := range []string{e.overlayDir(), e.ephemeralDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder for overlays: %w; the data directory must be one that this user can write to", err)
		}
	}
	return e, nil
}

func (cfg *Config) setDefaults() {
	if cfg.FS == nil {
		cfg.FS = localfs.OS()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	orDefault(&cfg.MaxOverlaySize, 64<<40)
	orDefault(&cfg.EphemeralQuota, 16<<30)
	orDefault(&cfg.UnusedAfter, time.Hour)
	orDefault(&cfg.TaskLife, 48*time.Hour)
	orDefault(&cfg.MaxCaptures, 2)
	orDefault(&cfg.MaxPending, 16)
}

func orDefault[T ~int | ~int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func (e *Exports) journalDir() string   { return filepath.Join(e.cfg.DataDir, "journals") }
func (e *Exports) overlayDir() string   { return filepath.Join(e.cfg.DataDir, "overlays") }
func (e *Exports) ephemeralDir() string { return filepath.Join(e.cfg.DataDir, "ephemeral") }

func (e *Exports) ephemeralPath(attachment string) string {
	return filepath.Join(e.ephemeralDir(), attachment+".qcow2")
}

// Run removes attachments that were never used and tasks that are old, and
// brings over what journals hold of overlays that nobody uses, until ctx ends.
func (e *Exports) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { e.settle(ctx) })
	wg.Go(func() {
		e.members.run(ctx, func(err error) {
			e.log.ErrorContext(ctx, "this gateway could not join the others again; it is tried again", "err", err)
		})
	})
	tick := time.NewTicker(min(time.Minute, max(e.cfg.UnusedAfter/4, time.Second)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := e.expire(ctx); err != nil && ctx.Err() == nil {
				e.log.WarnContext(ctx, "what has expired could not be removed; it is tried again", "err", err)
			}
		}
	}
}

// Hurry makes disks close without waiting for stores to have what journals
// here have: another process with the same data directory goes on at once.
func (e *Exports) Hurry() { e.hurried.Store(true) }

// Close ends captures and sessions, then flushes and closes every disk. It
// returns what a flush said. The doors are closed before it.
func (e *Exports) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.parents.stop()
	e.captures.stop()
	e.endSessions(func(*session) bool { return true })
	e.mu.Lock()
	left := make([]*shared, 0, len(e.disks))
	for _, d := range e.disks {
		left = append(left, d)
	}
	e.mu.Unlock()
	var errs []error
	for _, d := range left {
		<-d.done
		errs = append(errs, d.closeErr)
	}
	return errors.Join(append(errs, e.members.close())...)
}
