// Package disk builds the stack that is one image, and shares it.
//
// A stack is an object of a store, the format inside it, and the stack
// beneath that it is laid over, if the Spec says so: every layer a Reader on
// a Reader. However many users a disk has, it is built once; the Opener counts
// the users and closes what it opened after the last, or a moment later.
//
// What lies beneath an image is what its Spec says, never what its header
// says. An image that claims a backing file and has no Base reads as zeros
// where it has nothing.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/probe"
)

// A Spec says what to build.
type Spec struct {
	// Key names the stack: two Specs of one Key share one.
	Key string

	// Store and Object are where the image's own bytes are.
	Store  backends.Store
	Object string

	// Far says what is known of an object that is not on this machine, and
	// has it read through the cache, if there is one. nil: the store is near.
	Far *Far

	// Format is how to read them. "raw" and "" are the bytes as they are.
	Format string

	// Base is what lies beneath, or nil for zeros.
	Base *Spec
}

// maxDepth is how many images may lie on each other.
const maxDepth = 64

// readAhead is how many bytes of a compressed disk are inflated ahead of each who
// reads it in order, at most.
const readAhead = 8 << 20

// A Config says how an Opener builds. Its zero value works.
type Config struct {
	// Check puts probe.Check between every two layers. For tests.
	Check bool

	// ClusterCache is how many bytes of decoded clusters all disks together
	// keep. Default: 128 MiB.
	ClusterCache int64

	// Cache keeps what was read of far objects. nil: they are read as near
	// ones are. The owner closes it after the Opener.
	Cache *cache.Cache

	// Traces keeps in which order far objects are read first. nil: nobody.
	Traces Traces

	// Keep is how long a disk that is a file on this machine stays open after
	// its last View is closed, for who opens it next. A file that is deleted
	// meanwhile takes its space for so long, unless Drop is told of it. Default:
	// not at all.
	Keep time.Duration

	// Logger hears of broken contracts and of errors of closing.
	// Default: silence.
	Logger *slog.Logger
}

// An Opener builds disks and shares them.
type Opener struct {
	check   bool
	log     *slog.Logger
	formats format.Config
	cache   *cache.Cache
	traces  Traces

	mu     sync.Mutex
	stacks map[string]*stack
	closed bool
	builds sync.WaitGroup  // and tracings
	life   context.Context // of the builds
	end    context.CancelFunc

	tracings map[*tracing]bool

	keepFor  time.Duration
	kept     []kept // guarded by mu, like the next; those kept longest come first
	sweeping bool   // sweep will be called
	sweeper  *time.Timer
}

// New returns an Opener.
func New(cfg Config) *Opener {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ClusterCache == 0 {
		cfg.ClusterCache = 128 << 20
	}
	o := &Opener{
		check: cfg.Check, log: cfg.Logger, stacks: make(map[string]*stack), tracings: make(map[*tracing]bool),
		cache: cfg.Cache, traces: cfg.Traces, keepFor: cfg.Keep,
		formats: format.Config{Clusters: decode.NewCache(cfg.ClusterCache), Ahead: readAhead},
	}
	o.life, o.end = context.WithCancel(context.Background())
	return o
}

// Open returns a view of the disk that spec describes, and builds the disk if
// nobody has it open. The caller closes the View.
func (o *Opener) Open(ctx context.Context, spec Spec) (*View, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	s, err := o.join(ctx, spec)
	if err != nil {
		return nil, err
	}
	if !s.isBuilt() {
		select {
		case <-s.built:
		case <-ctx.Done():
			o.leave(s)
			return nil, fmt.Errorf("open disk %s: %w", spec.Key, ctx.Err())
		}
	}
	if s.err != nil {
		o.leave(s)
		return nil, fmt.Errorf("open disk %s: %w", spec.Key, s.err)
	}
	return &View{opener: o, stack: s, r: s.r}, nil
}

// validate refuses a Spec that cannot be built. A Key that is beneath itself
// would wait for itself.
func validate(spec Spec) error {
	var keys []string
	for s := &spec; s != nil; s = s.Base {
		switch {
		case s.Far != nil && s.Far.Generation == "":
			return fmt.Errorf("open disk %s: it is far and its generation is missing: %w", s.Key, fs.ErrInvalid)
		case s.Key == "" || s.Store == nil:
			return fmt.Errorf("open disk %q: its key or its store is missing: %w", s.Key, fs.ErrInvalid)
		case slices.Contains(keys, s.Key):
			return fmt.Errorf("open disk %s: it lies beneath itself: %w", s.Key, fs.ErrInvalid)
		case len(keys) == maxDepth:
			return fmt.Errorf("open disk %s: more than %d images on each other: %w", spec.Key, maxDepth, fs.ErrInvalid)
		}
		keys = append(keys, s.Key)
	}
	return nil
}

// join counts one more user of a stack and begins to build it if it is new.
// The building is for all who wait, so no one of them can cancel it.
func (o *Opener) join(ctx context.Context, spec Spec) (*stack, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, fmt.Errorf("open disk %s: %w", spec.Key, fs.ErrClosed)
	}
	if s := o.stacks[spec.Key]; s != nil && !o.outdated(s, spec) {
		if !s.is(spec) {
			return nil, fmt.Errorf("open disk %s: it is open as %s, not as %s: %w", spec.Key, describe(s.spec), describe(spec), fs.ErrInvalid)
		}
		if s.users++; s.users == 1 {
			o.reuse(s)
		}
		return s, nil
	}
	s := &stack{key: spec.Key, spec: spec, since: time.Now(), users: 1, built: make(chan struct{})}
	o.stacks[spec.Key] = s
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(o.life, cancel)
	o.builds.Go(func() {
		defer close(s.built)
		defer cancel()
		defer stop()
		if s.err = o.build(ctx, s, spec); s.err != nil {
			o.forget(s)
		}
	})
	return s, nil
}

// forget lets the next Open of a stack that could not be built try again.
func (o *Opener) forget(s *stack) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stacks[s.key] == s {
		delete(o.stacks, s.key)
	}
}

// leave counts one user less and closes the stack after the last, unless it is
// kept. It does not wait for a build that nobody waits for any more.
func (o *Opener) leave(s *stack) error {
	o.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		if ok, gone := o.keep(s); ok {
			o.mu.Unlock()
			if gone != nil {
				o.close(gone)
			}
			return nil
		}
	}
	if last && o.stacks[s.key] == s {
		delete(o.stacks, s.key)
	}
	if last && !s.isBuilt() {
		o.builds.Go(func() {
			<-s.built
			o.close(s)
		})
		last = false
	}
	o.mu.Unlock()
	if !last {
		return nil
	}
	return o.close(s)
}

func (o *Opener) close(s *stack) error {
	err := s.close()
	if err != nil {
		o.log.Error("close disk", "key", s.key, "err", err)
	}
	return err
}

// Close gives up what is being built, ends the recording of traces and lets
// nothing more be opened. Views that are still open go on, and are an error.
func (o *Opener) Close() error {
	o.mu.Lock()
	o.closed = true
	for t := range o.tracings {
		t.cancel()
	}
	gone := o.drop(len(o.kept))
	o.mu.Unlock()
	o.end()
	o.builds.Wait()
	for _, s := range gone {
		o.close(s)
	}
	var open []string
	for _, s := range o.List() {
		open = append(open, s.Key)
	}
	if len(open) > 0 {
		return fmt.Errorf("disks still open: %s", strings.Join(open, ", "))
	}
	return nil
}

// An Info tells about an open disk.
type Info struct {
	Key   string
	Users int // open views, and disks that lie on it
}

// List returns the disks that are in use, in the order of their keys.
func (o *Opener) List() []Info {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []Info
	for _, s := range o.stacks {
		if s.users == 0 {
			continue // only kept
		}
		list = append(list, Info{Key: s.key, Users: s.users})
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// build fills s, or closes what it opened.
func (o *Opener) build(ctx context.Context, s *stack, spec Spec) error {
	err := o.layers(ctx, s, spec)
	if err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

func (o *Opener) layers(ctx context.Context, s *stack, spec Spec) error {
	object, err := o.object(ctx, s, spec)
	if err != nil {
		return err
	}
	s.r = o.checked(object, spec.Key+" object")
	s.near = near(object) && spec.Base == nil
	if spec.Format != "" && spec.Format != "raw" {
		image, err := o.decode(ctx, s.r, spec)
		if err != nil {
			return err
		}
		s.opened = append(s.opened, image.Close)
		s.r = o.checked(image, spec.Key+" "+spec.Format)
	}
	if spec.Base == nil {
		return nil
	}
	base, err := o.Open(ctx, *spec.Base)
	if err != nil {
		return err
	}
	s.opened = append(s.opened, base.Close)
	s.r = o.checked(overlay.Over(s.r, base), spec.Key+" over "+spec.Base.Key)
	return nil
}

func (o *Opener) decode(ctx context.Context, r block.Reader, spec Spec) (format.Image, error) {
	formats := o.formats
	// Objects never change, so a disk that is opened again finds what was
	// decoded of it: a guest that reboots, a client that comes back.
	formats.Name = fmt.Sprintf("%s: object %q, %d bytes", spec.Key, spec.Object, r.Size())
	f, ok := formats.ByName(spec.Format)
	if !ok {
		return nil, fmt.Errorf("format %q is not one that can be read as a disk: %w", spec.Format, errors.ErrUnsupported)
	}
	return f.Open(ctx, r)
}

// checked puts a check on top of r, if there are to be any.
func (o *Opener) checked(r block.Reader, name string) block.Reader {
	if !o.check {
		return r
	}
	return probe.Check(r, name, func(err error) { o.log.Error("layer", "err", err) })
}
