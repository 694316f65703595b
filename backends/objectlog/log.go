package objectlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// A Log is an open overlay. Any number of goroutines may use it at once.
type Log struct {
	cfg   Config
	size  int64
	src   *source
	j     *journal.Journal
	dir   string       // of j
	lock  localfs.File // held while the log is open
	aside []string     // journals that were not replayed

	life   context.Context // of the work in the background
	stop   context.CancelFunc
	wg     sync.WaitGroup
	broken atomic.Pointer[error] // why nothing more is acknowledged
	closed atomic.Bool

	// Whoever looks up where bytes are, or changes it, holds mu.
	mu       sync.RWMutex
	fresh    *extent.Map // what was written, as far as the journal has it
	stored   *disk       // what the head has; lies below fresh
	live     extent.Live // how much of each segment stored refers to
	empty    []int64     // segments that it may refer to no more
	counts   counts
	appended int64 // where the last record ends that is in fresh
	zeros    int64 // number of the next zero mark
	queue    []queued
	queued   int64 // bytes of it
	spare    []queued
	ticking  bool      // the sealer knows that there is something
	ticked   time.Time // since when

	gen    generation // the sealer's alone, as the next two
	seq    ref        // the last segment sealed
	sealed int64      // position up to which all is sealed

	work    sync.Mutex
	bell    chan struct{} // closed, and made anew, when something below changed
	room    chan struct{} // the same, when the journal was trimmed
	head    *state        // what the catalog has; changed by the committer alone
	flights []*flight     // sealed and not committed, in order
	covered int64         // position up to which the head has all
	force   int64         // position up to which is to be sealed without waiting
	job     *job          // the checkpoint that is being made
	maps    int64         // number of the next one
	asks    []*ask        // for snapshots
	drops   []*drop       // of snapshots
	open    map[int64]int // readers of snapshots
	newSize int64         // what the disk's size is to become, or 0
	trouble [2]trouble    // of the store, of the catalog
	dirty   atomic.Bool   // the head says so

	kept    []generation // committed, and still in fresh; the committer's alone
	crowded atomic.Bool
	reap    bool          // some graves may be needed no more; the committer's alone
	resized int64         // segment after which the disk may have been resized: snapshots there may refer to more
	slots   chan struct{} // one for each flight

	sealWake, commitWake, cleanWake chan struct{}
	copies                          chan *copied

	uploaded, cleaned atomic.Int64
}

// counts are sums over the segments that stored refers to.
type counts struct {
	payload, live int64 // bytes
	small         int   // segments that are less than half full
	pinned        int64 // bytes of payload of those that only snapshots need
	pending       int64 // bytes of data in the journal that the head does not have
}

// Whom a trouble is with.
const (
	withStore = iota
	withCatalog
)

// trouble is what the store or the catalog last failed with.
type trouble struct {
	err   error
	since time.Time
}

func newLog(o *opening) *Log {
	cfg, s, d := o.cfg, o.s, o.d
	window := cfg.Parallel + 2
	l := &Log{
		cfg: cfg, size: s.size, src: o.src, j: o.j, dir: o.dir, lock: o.lock,
		fresh: extent.New(), stored: d, live: d.m.Count(), seq: s.last,
		bell: make(chan struct{}), room: make(chan struct{}), head: s, maps: s.maps, open: make(map[int64]int),
		slots:    make(chan struct{}, window),
		sealWake: make(chan struct{}, 1), commitWake: make(chan struct{}, 1), cleanWake: make(chan struct{}, 1),
		copies: make(chan *copied),
	}
	s.window = int64(window)
	for seq, r := range d.segs {
		l.counts.add(r, l.cfg.SegmentSize)
		l.counts.live += l.live[seq]
		if l.live[seq] == 0 {
			l.empty = append(l.empty, seq)
		}
	}
	for _, g := range d.dead {
		l.counts.pinned += g.payload
	}
	l.reap, l.resized = len(d.dead) > 0, s.last.seq
	l.life, l.stop = context.WithCancel(context.Background())
	return l
}

func (c *counts) add(r ref, full int64) {
	c.payload += r.payload
	if r.payload < full/2 {
		c.small++
	}
}

func (c *counts) sub(r ref, full int64) {
	c.payload -= r.payload
	if r.payload < full/2 {
		c.small--
	}
}

// start begins the work in the background, and resizes the disk if it is to
// have another size.
func (l *Log) start(ctx context.Context) error {
	l.wg.Go(l.seal)
	l.wg.Go(l.commit)
	if l.cfg.Size != 0 && l.cfg.Size != l.size {
		if err := l.resize(ctx, l.cfg.Size); err != nil {
			return err
		}
	}
	l.wg.Go(l.clean)
	return nil
}

// wake lets a goroutine of ours look again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ring tells all who wait that something changed. With work held.
func (l *Log) ring() {
	close(l.bell)
	l.bell = make(chan struct{})
}

// wait returns when ready does, which is called with work held.
func (l *Log) wait(ctx context.Context, ready func() bool) error {
	for {
		l.work.Lock()
		ok, bell := ready(), l.bell
		l.work.Unlock()
		if ok {
			return nil
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.life.Done():
			return l.dead()
		}
	}
}

// dead is why nothing more is acknowledged, or nil.
func (l *Log) dead() error {
	if err := l.broken.Load(); err != nil {
		return *err
	}
	if l.closed.Load() {
		return fs.ErrClosed
	}
	return nil
}

// fail ends the log: it acknowledges nothing more, and leaves the store and
// the catalog alone. Reads go on.
func (l *Log) fail(err error) {
	if !l.broken.CompareAndSwap(nil, &err) {
		return
	}
	level := l.cfg.Logger.Error
	if errors.Is(err, ErrFenced) {
		level = l.cfg.Logger.Warn
	}
	level("overlay takes no more writes until it is opened again", "overlay", l.cfg.ID, "epoch", l.cfg.Epoch, "err", err)
	l.stop()
}

// check is what every access begins with.
func (l *Log) check(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, l.size); err != nil {
		return err
	}
	if l.closed.Load() {
		return l.wrap("use", fs.ErrClosed)
	}
	return ctx.Err()
}

func (l *Log) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("overlay %s: %s: %w", l.cfg.ID, doing, err)
}

// Size returns the size of the disk in bytes.
func (l *Log) Size() int64 { return l.size }

// Close stops all work and closes the journal. What was not flushed may be
// lost; what is not in the store stays in the journal, and stays needed. A
// journal that has nothing else is removed.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	err := l.end()
	if l.broken.Load() == nil && l.covered == l.appended && !l.dirty.Load() {
		err = errors.Join(err, journal.Remove(journal.Config{FS: l.cfg.FS, Dir: l.dir}))
	}
	return l.wrap("close", errors.Join(err, l.lock.Close()))
}

// end is Close without what tells it from the end of the process.
func (l *Log) end() error {
	l.closed.Store(true)
	l.stop()
	l.wg.Wait()
	l.src.close()
	return l.j.Close()
}

// pause waits before another try, longer each time. It is false when the log
// ended.
func (l *Log) pause(n *time.Duration) bool {
	t := time.NewTimer(*n)
	defer t.Stop()
	*n = min(*n*2, 50*l.cfg.Retry)
	select {
	case <-t.C:
		return true
	case <-l.life.Done():
		return false
	}
}

// note keeps what the store or the catalog failed with, for Stats; nil is that
// it works again.
func (l *Log) note(with int, doing string, err error) {
	l.work.Lock()
	defer l.work.Unlock()
	t := &l.trouble[with]
	switch {
	case err == nil && t.err != nil:
		l.cfg.Logger.Info("overlay is stored again", "overlay", l.cfg.ID, "doing", doing, "after", l.cfg.Now().Sub(t.since))
		*t = trouble{}
	case err != nil && t.err == nil:
		l.cfg.Logger.Warn("overlay cannot be stored, trying again", "overlay", l.cfg.ID, "doing", doing, "err", err)
		*t = trouble{err, l.cfg.Now()}
	case err != nil:
		t.err = err
	}
}
