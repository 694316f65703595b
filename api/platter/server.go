package platter

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// Overlays makes, keeps and reads the writable disks. The owner of the Server
// provides it.
type Overlays interface {
	// CreateOverlay makes an overlay.
	CreateOverlay(ctx context.Context, req OverlayRequest) (catalog.Overlay, error)

	// DeleteOverlay deletes an overlay and what was written to it. While
	// somebody has it open the error names them.
	DeleteOverlay(ctx context.Context, id string) error

	// Snapshot keeps the state of an overlay at this moment.
	Snapshot(ctx context.Context, id, name string) (catalog.OverlaySnapshot, error)

	// DeleteSnapshot forgets it again.
	DeleteSnapshot(ctx context.Context, id, snapshot string) error

	// Capture begins to make an image of an overlay.
	Capture(ctx context.Context, req CaptureRequest) (catalog.Task, error)
}

// Reshaper changes overlays that are there.
type Reshaper interface {
	// Resize gives an overlay that nobody has open another size, in bytes. It
	// can only grow. An engine that cannot do it is errors.ErrUnsupported.
	Resize(ctx context.Context, id string, size int64) (catalog.Overlay, error)

	// Flatten begins to copy into an overlay what it takes from its image, so
	// that it stands alone. It may be in use. An engine that cannot do it is
	// errors.ErrUnsupported.
	Flatten(ctx context.Context, req FlattenRequest) (catalog.Task, error)
}

// Attachments gives clients the right to open exports.
type Attachments interface {
	// Attach makes an attachment. Its secret is in the result only.
	Attach(ctx context.Context, req AttachRequest) (Attached, error)

	// Detach cuts the connections of an attachment and forgets it. When it
	// returns, no request of it can change a byte.
	Detach(ctx context.Context, id string) error
}

// Disks shows what is open and opens more.
type Disks interface {
	// OpenDisk opens the disk bytes of an image. A format that cannot be
	// decoded is errors.ErrUnsupported.
	OpenDisk(ctx context.Context, img catalog.Image) (block.ReadCloser, error)

	// Use tells how many bytes an overlay or attachment stores and who has
	// it open.
	Use(ctx context.Context, id string) Use
}

// A Use is who uses a disk, and what it takes.
type Use struct {
	Bytes   int64
	Clients []ClientInfo
}

// A ClientInfo is a client that has a disk open.
type ClientInfo struct {
	Client, Transport string
	Since             time.Time
}

// An OverlayRequest says what overlay to make.
type OverlayRequest struct {
	Image catalog.Image
	Name  string
	Owner string
	Size  int64  // bytes; 0: that of the image
	Store string // "": files of this gateway
}

// An AttachRequest says what to attach; Image or Overlay is set.
type AttachRequest struct {
	Image     *catalog.Image
	Overlay   *catalog.Overlay
	Mode      catalog.AttachMode
	Transport string
	Owner     string

	// TLSDir is the folder on the client's machine with ca-cert.pem and, where
	// they are needed, client-cert.pem and client-key.pem; "": QEMU's own.
	TLSDir string

	// AcceptLoss lets this gateway take an overlay whose last writes are only
	// in the journal of another gateway. They are lost then.
	AcceptLoss bool
}

// Attached is a new attachment with what opens it. All but Attachment holds
// its secret.
type Attached struct {
	Attachment                       catalog.Attachment
	URI, QEMU, LibvirtXML, NBDClient string
}

// A CaptureRequest says which overlay becomes what image. Image has what the
// user chose: id (may be ""), name, formats, visibility, tags, properties….
type CaptureRequest struct {
	Overlay   catalog.Overlay
	Image     catalog.Image
	Store     string // "": the default
	Owner     string
	UserID    string
	RequestID string
}

// A FlattenRequest says which overlay is to stand alone.
type FlattenRequest struct {
	Overlay                  catalog.Overlay
	Owner, UserID, RequestID string
}

// A Config says what to serve. Catalog, Overlays, Attachments and Disks are
// required.
type Config struct {
	Catalog     *catalog.Catalog
	Overlays    Overlays
	Attachments Attachments
	Disks       Disks

	Adopter  Adopter  // nil: nothing is adopted
	Reshaper Reshaper // nil: overlays stay as they were made
	Places   Places   // nil: nothing is known of stores and caches
	Conns    Conns    // nil: nothing is known of connections

	Policy    wire.Policy    // nil: everybody may do everything
	Protect   *protect.Rules // of properties; nil: everybody may use all
	BodyLimit int64          // bytes of a JSON body; 0 is wire.MaxJSON
	KeepAlive time.Duration  // between signs of life of a quiet watch; 0 is 15 s
	Logger    *slog.Logger   // nil is silence
}

// A Server answers everything under /platter/v1.
type Server struct {
	cfg    Config
	log    *slog.Logger
	router *wire.Router

	stopped chan struct{} // closed when streams must end

	mu      sync.Mutex
	closed  bool
	streams sync.WaitGroup // added to while mu is held and closed is false
}

// New returns a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Catalog == nil || cfg.Overlays == nil || cfg.Attachments == nil || cfg.Disks == nil {
		return nil, errors.New("platter: a catalog, overlays, attachments and disks are required")
	}
	if cfg.BodyLimit == 0 {
		cfg.BodyLimit = wire.MaxJSON
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 15 * time.Second
	}
	s := &Server{cfg: cfg, log: cfg.Logger, stopped: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	s.router, err = wire.NewRouter(s.routes())
	return s, err
}

// Close ends the streams that would otherwise last for ever, and waits for
// them. Other requests go on.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stopped)
	}
	s.mu.Unlock()
	s.streams.Wait()
	return nil
}

// enter counts a stream, which calls s.streams.Done at its end.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return wire.Errorf(http.StatusServiceUnavailable, "The gateway is shutting down.").With("Retry-After", "5")
	}
	s.streams.Add(1)
	return nil
}

// ServeHTTP answers a request whose path begins with /platter/v1.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// allow asks the policy.
func (s *Server) allow(ctx context.Context, rule string, t wire.Target) error {
	if s.cfg.Policy == nil {
		return nil
	}
	return s.cfg.Policy.Allow(ctx, wire.IdentityFrom(ctx), rule, t)
}

// allowHidden asks the policy about something that is there. Who may not even
// see it, which is the rule see, learns that there is none.
func (s *Server) allowHidden(ctx context.Context, rule, see string, t wire.Target) error {
	err := s.allow(ctx, rule, t)
	if err != nil && (rule == see || s.allow(ctx, see, t) != nil) {
		return notFound(t.Kind, t.ID)
	}
	return err
}

// own is the target of what concerns only what who asks has.
func (s *Server) own(r *http.Request, kind string) wire.Target {
	return wire.Target{Kind: kind, Owner: wire.IdentityFrom(r.Context()).ProjectID}
}

// Routes returns the table that the Server answers by, for documents.
func (s *Server) Routes() []wire.Route { return s.router.Routes() }
