package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/api/metadefs"
	"github.com/seed-478a8fee/platter/api/notify"
	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// Data is where the bytes of images go to and come from. Package ingest has
// the real one.
type Data interface {
	// Put reads body to its end and makes it the data of the image id. size
	// is the number of bytes, or -1; store may be "".
	Put(ctx context.Context, id string, body io.Reader, size int64, store string) error

	// Open opens the native bytes of img.
	Open(ctx context.Context, img catalog.Image) (block.ReadCloser, error)
}

// A Config says how a Server works. Catalog and Data are required.
type Config struct {
	Catalog *catalog.Catalog
	Data    Data

	Auth   wire.Authenticator // nil: everybody is an admin without a project
	Policy wire.Policy        // nil: the defaults of package policy

	Protect *protect.Rules // of properties; nil: everybody may use all

	PublicEndpoint string   // begins the links to this server; "": what the request says
	Listen         string   // the address it listens on, one of the hosts that Auth nil answers to
	Hosts          []string // more of them
	CORS           CORS     // web pages of other sites that may use the API
	ProxyHeaders   bool     // believe X-Forwarded-Proto

	Limits           Limits
	Paging           Paging
	DiskFormats      []string // nil: Glance's
	ContainerFormats []string // nil: Glance's
	Stores           []Store  // named, the default one marked; shown when there are several
	DefaultStore     string   // where an import goes that names none
	DisableFile      string   // /healthcheck answers 503 while it exists

	Ready  func() error    // what /readyz asks; nil: the catalog
	Ailing func() []string // what else is wrong, for whoever looks at /readyz; nil: nothing

	// Deletable tells why the bytes of an image cannot be deleted, which only
	// their store knows; nil: nothing hinders.
	Deletable func(ctx context.Context, img catalog.Image) error

	// Locator has the URLs of locations, which clients see by the two flags,
	// and may change by the second. nil: nobody sees any.
	Locator       Locator
	ShowDirectURL bool
	ShowLocations bool
	MaxLocations  int // of one image; 0 is 10

	Importer *importer.Importer // nil: no method of import is enabled
	Notify   *notify.Notifier   // tells of what the catalog does not see; nil: nobody is told
	Cache    ImageCache         // of whole images; nil: there is none

	Platter http.Handler // serves /platter/; nil: nothing does
	Logger  *slog.Logger // nil: silence
	Observe func(Request)
}

// Limits bounds what one image may have. 0 is Glance's default, negative is
// no limit.
type Limits struct {
	Members    int // 128
	Tags       int // 128
	Properties int // 128
}

// Paging says how many images or tasks a page has. 0 is Glance's default.
type Paging struct {
	Default int // 25
	Max     int // 1000
}

// A Store is one of several named stores, as clients see it.
type Store struct {
	ID          string
	Description string
	Type        string // file, rbd, …
	Weight      int
	Default     bool
	ReadOnly    bool
	Properties  map[string]any // for administrators
}

// A Request is what Config.Observe learns of one that is over.
type Request struct {
	Method string
	Route  string // "GET /v2/images/{id}"; "": none matched
	Status int
	Bytes  int64 // of the body that was sent
	Took   time.Duration
}

// A Server is the Image API as an http.Handler.
type Server struct {
	cfg     Config
	checker checker
	guard   guard
	router  *wire.Router
	schemas map[string]json.RawMessage
	pieces  sync.Pool // of *[pieceSize]byte
	peers   *http.Client
	adding  sync.Mutex // held while a member is counted and added
}

// New builds a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Catalog == nil || cfg.Data == nil {
		return nil, errors.New("api: a catalog and a place for data are required")
	}
	var err error
	if cfg.Policy == nil {
		if cfg.Policy, err = policy.New(policy.Config{}); err != nil {
			return nil, fmt.Errorf("api: %w", err)
		}
	}
	cfg.setDefaults()
	s := &Server{cfg: cfg, guard: newGuard(cfg)}
	s.peers = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.pieces.New = func() any { return new([pieceSize]byte) }
	if s.checker, err = newChecker(cfg); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.schemas, err = schemas(cfg); err != nil {
		return nil, fmt.Errorf("api: schemas: %w", err)
	}
	definitions, err := metadefs.New(metadefs.Config{
		Catalog: cfg.Catalog, Policy: cfg.Policy, BaseURL: s.baseURL, Default: cfg.Paging.Default, Max: cfg.Paging.Max, Notify: cfg.Notify, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.router, err = wire.NewRouter(append(s.routes(), definitions.Routes()...)); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return s, nil
}

func (cfg *Config) setDefaults() {
	cfg.CORS = cfg.CORS.defaults()
	for _, n := range []*int{&cfg.Limits.Members, &cfg.Limits.Tags, &cfg.Limits.Properties} {
		if *n == 0 {
			*n = 128
		}
	}
	if cfg.MaxLocations == 0 {
		cfg.MaxLocations = maxLocations
	}
	if cfg.Paging.Default == 0 {
		cfg.Paging.Default = 25
	}
	if cfg.Paging.Max == 0 {
		cfg.Paging.Max = 1000
	}
	if cfg.DiskFormats == nil {
		cfg.DiskFormats = defaultDiskFormats()
	}
	if cfg.ContainerFormats == nil {
		cfg.ContainerFormats = defaultContainerFormats()
	}
	if cfg.Ready == nil {
		cfg.Ready = cfg.Catalog.Ready
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Stores = slices.SortedFunc(slices.Values(cfg.Stores), func(a, b Store) int { return strings.Compare(a.ID, b.ID) })
}

// Routes returns the table of routes.
func (s *Server) Routes() []wire.Route { return s.router.Routes() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &wire.Recorder{ResponseWriter: w}
	global, err := wire.GlobalID(r)
	id := wire.NewRequestID()
	r = r.WithContext(wire.WithRequestID(r.Context(), id, global))
	// r is our own copy now: in the other the HTTP server looks for its own
	// body, to know of clients that wait for "100 Continue".
	r.Body = wire.PatientBody(w, r)
	rec.Header().Set(wire.RequestIDHeader, id)
	defer func() { s.over(rec, r, start, recover()) }()
	if s.cfg.CORS.answer(rec.Header(), r) {
		rec.WriteHeader(http.StatusNoContent)
		return
	}
	if err == nil {
		r, err = s.admit(r)
	}
	if err == nil {
		err = s.dispatch(rec, r)
	}
	wire.Refuse(rec, r, err)
}

// over logs a request. A panic becomes an answer, unless it was meant to cut
// the connection or the answer has begun.
func (s *Server) over(rec *wire.Recorder, r *http.Request, start time.Time, panicked any) {
	defer rec.Done()
	if panicked != nil && panicked != http.ErrAbortHandler {
		rec.Err = fmt.Errorf("panic: %v", panicked)
		s.cfg.Logger.Error("a handler panicked", "request_id", wire.RequestID(r.Context()),
			"panic", panicked, "stack", string(debug.Stack()))
		if rec.Status == 0 {
			wire.WriteError(rec, r, rec.Err)
			panicked = nil
		}
	}
	took := time.Since(start)
	rec.Log(r.Context(), s.cfg.Logger, r, took)
	if s.cfg.Observe != nil {
		s.cfg.Observe(Request{Method: r.Method, Route: rec.Route, Status: rec.Status, Bytes: rec.Bytes, Took: took})
	}
	if panicked != nil {
		panic(http.ErrAbortHandler)
	}
}

// admit finds out who asks, where that is needed.
func (s *Server) admit(r *http.Request) (*http.Request, error) {
	if s.cfg.Auth == nil {
		if err := s.guard.check(r); err != nil {
			return r, err
		}
		return r.WithContext(wire.WithIdentity(r.Context(), wire.Identity{Admin: true, Roles: []string{"admin"}})), nil
	}
	if s.isPublic(r) {
		return r, nil
	}
	who, err := s.cfg.Auth.Authenticate(r)
	if err != nil {
		return r, err
	}
	if who.ReadOnly && len(who.Roles) == 0 {
		// Rules ask for roles, and a download for that of a member. To change
		// anything is refused here, whatever the rules say.
		who.Roles = []string{"reader", "member"}
	}
	if who.ReadOnly && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return r, wire.Errorf(http.StatusForbidden, "Who comes without a token may only read here. Send a token to do more.")
	}
	who.Admin = s.isAdmin(r.Context(), who)
	return r.WithContext(wire.WithIdentity(r.Context(), who)), nil
}

// isPublic tells whether a request needs no token.
func (s *Server) isPublic(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/platter/") {
		return slices.Contains([]string{"/platter/v1/openapi.json", "/platter/v1/healthz", "/platter/v1/readyz"}, r.URL.Path)
	}
	if slices.Contains([]string{"/versions", "/versions/", "/healthcheck", "/healthz", "/readyz"}, r.URL.Path) {
		return true
	}
	_, known := s.versioned(r)
	return !known
}

// dispatch passes a request to what its path begins with.
func (s *Server) dispatch(rec *wire.Recorder, r *http.Request) error {
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/platter/") && s.cfg.Platter != nil:
		s.cfg.Platter.ServeHTTP(rec, r)
		return nil
	case path == "/versions" || strings.HasPrefix(path, "/versions/"):
		return s.writeVersions(rec, r, http.StatusOK)
	case path == "/healthcheck":
		return s.healthcheck(rec, r)
	case path == "/healthz":
		return writeText(rec, http.StatusOK, "ok\n")
	case path == "/readyz":
		return s.readyz(rec)
	}
	rest, known := s.versioned(r)
	if !known {
		return s.writeVersions(rec, r, http.StatusMultipleChoices)
	}
	route, err := s.router.FindAt(r, "/v2"+rest)
	if err != nil {
		return err
	}
	wire.NoteRoute(rec, route)
	return route.Handle(rec, r)
}
