package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// A Config says how a Catalog works. The zero value is fine.
type Config struct {
	GatewayID string           // of this process, in the uploads it begins
	Logger    *slog.Logger     // nil: silent
	Now       func() time.Time // nil: time.Now

	// Clock measures the time of leases and of garbage. It never goes back
	// and nobody can set it. Nil: that of the machine since it started.
	Clock func() time.Duration

	Heartbeat time.Duration // how often to look whether the KV is there; 0: 2 s

	Observer Observer // learns of the changes made here; nil: nobody does
}

// A Catalog answers questions about images and changes what is known of them.
// Any number of goroutines may use it at once. Values it returns are the
// caller's.
type Catalog struct {
	kv    KV
	cfg   Config
	log   *slog.Logger
	store *store
	locks keyLocks
	ready atomic.Pointer[error] // points to nil: ready

	member atomic.Pointer[Membership] // nil: not joined
	absent sightings                  // gateways that have uploads and no lease
	waits  sightings                  // garbage that must not be collected yet

	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open reads the whole catalog from kv into memory and follows it from then
// on. An empty kv becomes an empty catalog. The kv stays the caller's to
// close, after the Catalog.
func Open(ctx context.Context, kv KV, cfg Config) (*Catalog, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Clock == nil {
		cfg.Clock = newClock()
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 2 * time.Second
	}
	c := &Catalog{kv: kv, cfg: cfg, log: cfg.Logger, locks: keyLocks{held: map[string]*keyLock{}}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.establish(ctx); err != nil {
		return nil, fmt.Errorf("catalog: open: %w", err)
	}
	s, err := c.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("catalog: open: %w", err)
	}
	c.store = newStore(s)
	c.setReady(nil)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.running.Go(func() { c.follow(run) })
	return c, nil
}

// Close stops following the KV. Reads go on being answered from what was
// known; changes fail.
func (c *Catalog) Close() error {
	err := fmt.Errorf("catalog: %w", ErrClosed)
	c.ready.Store(&err)
	c.stop()
	c.running.Wait()
	return nil
}

// Ready returns nil while changes are possible and reads are fresh, and else
// what is wrong.
func (c *Catalog) Ready() error { return *c.ready.Load() }

// Revision returns the revision of the KV up to which every change can be
// seen in reads.
func (c *Catalog) Revision() int64 { return c.store.revision() }

// setReady notes whether the KV is there. A closed Catalog stays closed.
func (c *Catalog) setReady(err error) {
	old := c.ready.Load()
	if old != nil && errors.Is(*old, ErrClosed) {
		return
	}
	if !c.ready.CompareAndSwap(old, &err) || old == nil {
		return
	}
	switch {
	case err != nil && *old == nil:
		c.log.Warn("catalog: the database is not available; reads go on, changes fail", "error", err)
	case err == nil && *old != nil:
		c.log.Info("catalog: the database is available again")
	}
}

// establish makes sure that the KV holds a catalog that this program knows.
func (c *Catalog) establish(ctx context.Context) error {
	if _, err := c.kv.Get(ctx, keyRestore); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return err
		}
		return fmt.Errorf("a restore into it was never finished: run the restore again: %w", fs.ErrInvalid)
	}
	p, err := c.kv.Get(ctx, keySchema)
	if errors.Is(err, fs.ErrNotExist) {
		return c.found(ctx)
	}
	if err != nil {
		return err
	}
	_, err = decodeSchema(p)
	return err
}

// found writes the schema of a new catalog. If another gateway was faster,
// that is as good.
func (c *Catalog) found(ctx context.Context) error {
	value, err := encode(keySchema, schemaRecord{recordVersion, uuid.NewString(), moment(c.cfg.Now())})
	if err != nil {
		return err
	}
	_, err = c.kv.Commit(ctx, Txn{If: []Cond{{Key: keySchema}}, Then: []Op{{Key: keySchema, Value: value}}})
	if errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

func decodeSchema(p Pair) (schemaRecord, error) {
	var r schemaRecord
	err := decode(p, &r, &r.V)
	return r, err
}

// commit makes a change and brings it into the index. It is conditional on the
// KV still holding the catalog that the index is of: nothing is written into
// a database that was emptied, or filled anew, under a running gateway.
func (c *Catalog) commit(ctx context.Context, txn Txn) (int64, error) {
	if err := c.Ready(); errors.Is(err, ErrClosed) {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	// Who hangs up in the midst must not leave it open whether the change was
	// made: what undoes it would look for it too early. A KV answers within
	// seconds.
	ctx = context.WithoutCancel(ctx)
	same := Cond{Key: keySchema}
	c.store.read(func(s *state) { same.Revision = s.schemaRev })
	txn.If = append(slices.Clip(txn.If), same)
	tell := func(int64) {}
	if c.cfg.Observer != nil {
		tell = c.observing(ctx, txn)
	}
	rev, err := c.kv.Commit(ctx, txn)
	if err != nil {
		if errors.Is(err, ErrConflict) {
			err = c.sameSchema(ctx, same.Revision, err)
		}
		if errors.Is(err, ErrUnavailable) {
			c.setReady(err)
		}
		return 0, err
	}
	c.store.committed(txn.Then, rev)
	tell(rev)
	return rev, nil
}

// sameSchema returns the conflict, unless it is about the catalog itself.
func (c *Catalog) sameSchema(ctx context.Context, rev int64, conflict error) error {
	p, err := c.kv.Get(ctx, keySchema)
	if err == nil && p.Revision == rev {
		return conflict
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("the database was emptied or filled anew, and is being read: %w", ErrUnavailable)
}

// tries is how often a change is decided before it is ErrConflict.
const tries = 8

// retry calls f, which decides on fresh data and commits, until it does not
// lose to another writer.
func (c *Catalog) retry(ctx context.Context, f func(try int) error) error {
	var err error
	for try := range tries {
		if err = f(try); !errors.Is(err, ErrConflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(time.Millisecond << try)):
		}
	}
	return err
}

// now is the time that goes into records.
func (c *Catalog) now() time.Time { return moment(c.cfg.Now()) }
