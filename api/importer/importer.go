package importer

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// The methods of an import, in the words of the Image API.
const (
	Direct = "glance-direct"
	Web    = "web-download"
	Copy   = "copy-image"
	Glance = "glance-download"
)

// TaskType is the type of the tasks of imports.
const TaskType = "api_image_import"

// The properties of an image that say how its import is.
const (
	lockKey      = "os_glance_import_task"
	remainingKey = "os_glance_importing_to_stores"
	failedKey    = "os_glance_failed_import"
	stageKey     = "os_glance_stage_host"
)

// The errors of a request.
var (
	// ErrLocked is the error of a second import while one is under way.
	ErrLocked = errors.New("image has active task")

	// ErrElsewhere is the error of an import of what another gateway has
	// staged. See StagedAt.
	ErrElsewhere = errors.New("the data was staged at another gateway")

	// ErrBusy is the error of an import when too many wait already.
	ErrBusy = errors.New("too many imports are under way; try again when some have ended")
)

// Bytes is what brings bytes into stores: package ingest.
type Bytes interface {
	// Fill makes body the bytes of an image in one store.
	Fill(ctx context.Context, id string, body io.Reader, size int64, store string) error

	// CopyTo brings a copy from a store that has them to another one.
	CopyTo(ctx context.Context, id, store string, moved func(n int64)) error

	// Activate makes an image active that has its bytes.
	Activate(ctx context.Context, id string, f func(*catalog.Image)) error
}

// A Fetcher reads from the web.
type Fetcher interface {
	// Check tells why a URI may not be fetched, or nil.
	Check(uri string) error

	// Open begins to read it. size is -1 if nobody knows.
	Open(ctx context.Context, uri string) (body io.ReadCloser, size int64, err error)
}

// A Config says what an Importer works with. Catalog, Bytes, Staging and
// GatewayID are required.
type Config struct {
	Catalog   *catalog.Catalog
	Bytes     Bytes
	GatewayID string

	Staging backends.Store // for what is staged
	Shared  bool           // all gateways have that very store
	SelfURL string         // where the other gateways reach this one; "": nowhere
	SizeCap int64          // bytes of one image; 0 is 1 TiB, negative no limit

	OneStore bool // clients are not told the names of stores

	Fetch  Fetcher // nil: there is no web-download
	Remote *Remote // nil: there is no glance-download

	Parallel  int           // imports that run at once; 0 is 4
	Pending   int           // that wait besides; 0 is 256
	TaskLife  time.Duration // how long the record of one stays; 0 is 48 h
	DeadAfter time.Duration // how long a gateway may be away before others take over; 0 is 3 min: its copies are given up before
	Every     time.Duration // between notes of how far one is; 0 is 3 s

	Logger *slog.Logger     // nil is silence
	Now    func() time.Time // nil is time.Now
}

// An Importer runs imports.
type Importer struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{}

	life context.Context // ends when all must stop
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	running map[string]bool // tasks of this process, waiting ones too
	staging map[string]bool // images whose data is being staged here
	away    map[string]time.Time
}

// New makes an Importer. Call Recover before the doors open, and keep Run
// running; Close ends it.
func New(cfg Config) *Importer {
	cfg.SizeCap = cmp.Or(cfg.SizeCap, 1<<40)
	cfg.Parallel = cmp.Or(cfg.Parallel, 4)
	cfg.Pending = cmp.Or(cfg.Pending, 256)
	cfg.TaskLife = cmp.Or(cfg.TaskLife, 48*time.Hour)
	cfg.DeadAfter = cmp.Or(cfg.DeadAfter, 3*time.Minute)
	cfg.Every = cmp.Or(cfg.Every, 3*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := &Importer{
		cfg: cfg, log: cfg.Logger, slots: make(chan struct{}, cfg.Parallel),
		running: map[string]bool{}, staging: map[string]bool{}, away: map[string]time.Time{},
	}
	m.life, m.stop = context.WithCancel(context.Background())
	return m
}

// Methods returns the methods that there are.
func (m *Importer) Methods() []string {
	list := []string{Direct}
	if m.cfg.Fetch != nil {
		list = append(list, Web)
	}
	list = append(list, Copy)
	if m.cfg.Remote != nil {
		list = append(list, Glance)
	}
	return list
}

// CheckURI tells why a URI may not be fetched, or nil.
func (m *Importer) CheckURI(uri string) error {
	if m.cfg.Fetch == nil {
		return errors.ErrUnsupported
	}
	return m.cfg.Fetch.Check(uri)
}

// Close stops the imports, which go on at the next start, and waits for them.
func (m *Importer) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.wg.Wait()
}

// begin counts an import, or says why it cannot be taken. The caller's next
// call is launch or over.
func (m *Importer) begin(task string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return fs.ErrClosed
	case m.running[task]:
		return fs.ErrExist
	case len(m.running) >= m.cfg.Parallel+m.cfg.Pending:
		return ErrBusy
	}
	m.running[task] = true
	m.wg.Add(1)
	return nil
}

func (m *Importer) over(task string) {
	m.mu.Lock()
	delete(m.running, task)
	m.mu.Unlock()
	m.wg.Done()
}

// launch runs an import that was begun, behind its task.
func (m *Importer) launch(j *job) {
	go func() { // Close waits for it
		defer m.over(j.task)
		select {
		case m.slots <- struct{}{}:
			defer func() { <-m.slots }()
			m.run(m.life, j)
		case <-m.life.Done():
		}
	}()
}
