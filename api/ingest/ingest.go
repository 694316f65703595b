package ingest

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// A Config says where images go and what they may be. Catalog and Stores are
// required.
type Config struct {
	Catalog *catalog.Catalog

	// Stores are the places for bytes, by name. DefaultStore is the one for
	// uploads that name none; it may be left out if there is only one.
	Stores       map[string]backends.Store
	DefaultStore string

	// Shared are the stores that others keep objects in, too: what no record
	// names is not freed there, and Adopt may take it.
	Shared map[string]bool

	// GatewayID is written into the record of each attempt. After a restart
	// the attempts with this id are over.
	GatewayID string

	SizeCap            int64  // bytes of one image; 0 is 1 TiB, negative no limit
	RequireFormatMatch *bool  // refuse what is not what its disk_format says; nil is true
	Strict             bool   // refuse also a raw image that looks like another format
	HashAlgo           string // sha512 (default), sha384, sha256 or sha1

	Grace        time.Duration // age at which bytes that no record names are freed; 0 is 1 hour
	OrphanEvery  time.Duration // how often Run looks for them; 0 is 1 hour
	GarbageEvery time.Duration // how often Run retries deletions; 0 is 30 s
	DeadAfter    time.Duration // how long a gateway may be away before its uploads are given up; 0 is 1 min
	RetryPause   time.Duration // between tries while the catalog is away; 0 is 500 ms

	// Read opens the native bytes of an image at one of its locations, for
	// Open; nil is the store itself. Activated is told of every image that has
	// just become active, before Put returns, and Freed of every object of a
	// deleted image whose bytes are gone; they may be nil.
	Read      func(ctx context.Context, img catalog.Image, loc catalog.Location) (block.ReadCloser, error)
	Activated func(ctx context.Context, img catalog.Image)
	Freed     func(store, key string)

	// Fails tells whether a store is known not to answer: what another one has
	// as well is read there. Nil: nobody knows.
	Fails func(store string) bool

	Logger  *slog.Logger     // nil is silence
	Observe func(Attempt)    // told of every upload when it is over; may be nil
	Now     func() time.Time // nil is time.Now
}

// An Attempt is what became of one upload.
type Attempt struct {
	Image, Upload, Store string
	Bytes                int64
	Took                 time.Duration
	Err                  error // nil: the image is active
}

// An Ingest is the one way in for image bytes.
type Ingest struct {
	cfg  Config
	log  *slog.Logger
	kick chan struct{} // there is something to delete
	bufs chunks        // of the uploads

	mu   sync.Mutex
	live map[string]bool // uploads of this process, by id
}

// New checks cfg and returns an Ingest. It does not touch the catalog: call
// Recover once before the doors open, and keep Run running.
func New(cfg Config) (*Ingest, error) {
	if cfg.Catalog == nil || len(cfg.Stores) == 0 {
		return nil, errors.New("ingest: a catalog and at least one store are required")
	}
	if cfg.DefaultStore == "" && len(cfg.Stores) == 1 {
		cfg.DefaultStore = slices.Collect(maps.Keys(cfg.Stores))[0]
	}
	if cfg.Stores[cfg.DefaultStore] == nil {
		return nil, fmt.Errorf("ingest: default store %q: %w; there are %s", cfg.DefaultStore, ErrStore, cfg.names())
	}
	cfg.setDefaults()
	if _, err := newHash(cfg.HashAlgo); err != nil {
		return nil, err
	}
	in := &Ingest{cfg: cfg, log: cfg.Logger, kick: make(chan struct{}, 1), live: map[string]bool{}}
	return in, nil
}

func (cfg *Config) setDefaults() {
	if cfg.SizeCap == 0 {
		cfg.SizeCap = 1 << 40
	}
	if cfg.RequireFormatMatch == nil {
		yes := true
		cfg.RequireFormatMatch = &yes
	}
	if cfg.HashAlgo == "" {
		cfg.HashAlgo = "sha512"
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.Grace, time.Hour}, {&cfg.OrphanEvery, time.Hour}, {&cfg.GarbageEvery, 30 * time.Second}, {&cfg.RetryPause, 500 * time.Millisecond}, {&cfg.DeadAfter, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
}

func (cfg *Config) names() string {
	return strings.Join(slices.Sorted(maps.Keys(cfg.Stores)), ", ")
}

// newHash returns the strong hash of an image.
func newHash(algo string) (hash.Hash, error) {
	switch algo {
	case "sha512":
		return sha512.New(), nil
	case "sha384":
		return sha512.New384(), nil
	case "sha256":
		return sha256.New(), nil
	case "sha1":
		return sha1.New(), nil
	}
	return nil, fmt.Errorf("ingest: hash algorithm %q is not known; use sha512, sha384, sha256 or sha1", algo)
}

// newChecksum returns the hash that old clients compare.
func newChecksum() hash.Hash { return md5.New() }

// Stores returns the names of the stores, sorted, and the default one.
func (in *Ingest) Stores() (names []string, def string) {
	return slices.Sorted(maps.Keys(in.cfg.Stores)), in.cfg.DefaultStore
}

// Open opens the native bytes of img, from the first location that can be
// opened. An image without bytes is fs.ErrNotExist.
func (in *Ingest) Open(ctx context.Context, img catalog.Image) (block.ReadCloser, error) {
	var errs []error
	for _, l := range in.ordered(img.Locations) {
		r, err := in.read(ctx, img, l)
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("store %s: %w", l.Store, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("image %s has no data yet: %w", img.ID, fs.ErrNotExist)
	}
	if _, err := in.cfg.Catalog.Image(ctx, img.ID); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %s was deleted: %w", img.ID, fs.ErrNotExist)
	}
	// Bytes that the record promises and no store has are a fault of ours:
	// the text says what is missing, the type must not say "no such image".
	err := errors.Join(errs...)
	if errors.Is(err, context.Canceled) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrStore) {
		return nil, fmt.Errorf("ingest: open image %s: no location can be read: %v", img.ID, err)
	}
	return nil, fmt.Errorf("ingest: open image %s: %w: %v", img.ID, ErrAway, err)
}

// freeTime bounds how long a store is asked who needs an object: one that is
// away is no reason not to delete.
const freeTime = 5 * time.Second

// Deletable is an ErrInUse while something that only a store knows of needs the
// bytes of an image, such as clones that others made. What the catalog knows of
// it sees to itself.
func (in *Ingest) Deletable(ctx context.Context, img catalog.Image) error {
	list, err := in.cfg.Catalog.Overlays(ctx, catalog.OverlayQuery{ImageID: img.ID})
	if err != nil || len(list) > 0 {
		return err // those may be the clones, and the catalog names them
	}
	ctx, cancel := context.WithTimeout(ctx, freeTime)
	defer cancel()
	for _, l := range img.Locations {
		s := in.cfg.Stores[l.Store]
		if s == nil || in.cfg.Fails != nil && in.cfg.Fails(l.Store) {
			continue
		}
		if err := backends.Free(ctx, s, l.Key); errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("image %s: %w: %v", img.ID, ErrInUse, err)
		}
	}
	return nil
}

// ordered returns locations with those in stores that fail at the end.
func (in *Ingest) ordered(list []catalog.Location) []catalog.Location {
	if in.cfg.Fails == nil || len(list) < 2 {
		return list
	}
	fails := map[string]int{}
	for _, l := range list {
		if in.cfg.Fails(l.Store) {
			fails[l.Store] = 1
		}
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b catalog.Location) int { return fails[a.Store] - fails[b.Store] })
	return list
}

// storeError is an error of a store while it takes bytes. What the caller did,
// or can do something about, stays what it is; the rest is the store's.
func storeError(store string, err error) error {
	for _, own := range []error{
		syscall.ENOSPC, syscall.EDQUOT, fs.ErrExist, fs.ErrInvalid, fs.ErrClosed, errors.ErrUnsupported, io.ErrUnexpectedEOF,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, own) {
			return fmt.Errorf("store %s: %w", store, err)
		}
	}
	return fmt.Errorf("store %s: %w: %v", store, ErrAway, err)
}

// read opens the native bytes of img at one location.
func (in *Ingest) read(ctx context.Context, img catalog.Image, l catalog.Location) (block.ReadCloser, error) {
	s := in.cfg.Stores[l.Store]
	switch {
	case s == nil:
		return nil, ErrStore
	case in.cfg.Read != nil:
		return in.cfg.Read(ctx, img, l)
	}
	return s.Open(ctx, l.Key)
}

func (in *Ingest) begun(upload string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.live[upload] = true
}

func (in *Ingest) over(upload string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.live, upload)
}

func (in *Ingest) isLive(upload string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.live[upload]
}
