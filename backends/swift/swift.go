// Package swift keeps objects in a container of OpenStack Swift, or of another
// server that speaks its API, such as Ceph's object gateway.
//
// The layout is the plain one, as Glance's own driver has it: the object at
// key K is the Swift object PREFIX+K, byte for byte. What is longer than a
// segment is stored as the objects K-00001, K-00002 and so on, and K itself is
// a manifest of them: a dynamic one (X-Object-Manifest), as Glance writes it,
// or a static one if the Config says so. Manifests of others are read, of
// either kind. Nothing in a container belongs to us but what the catalog names,
// so a Store lists nothing and deletes nothing but the very key it is told,
// with its segments.
//
// A read goes to the segments themselves: through a manifest it would cost the
// proxy twice as much. What we wrote carries the sizes in its metadata, so to
// open it is one request.
//
// Servers differ in what they silently ignore. [Open] tries on a scratch object
// what this one does, Capabilities tells it, and nothing below relies on what
// was not seen to work:
//
//   - an object appears by a PUT with If-None-Match: *. Where that is ignored
//     the key is looked up before. Both leave a gap between the server's look
//     and its PUT. In this process one Writer at a time passes it; between
//     gateways only the catalog, which gives out every key once, does;
//   - every PUT carries the MD5 of its bytes, which the server checks, and its
//     answer is checked once more;
//   - a ranged GET must be answered 206 with exactly the range, the length and
//     the object that were asked for.
//
// Package ncw/swift signs in, to Swift's own tempauth and to Keystone. The
// requests are made here, because each must be able to be sent again, and none
// may hang. See DESIGN.md.
package swift

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A Config says where the container is. AuthURL, User, Key and Container must
// be set.
type Config struct {
	// AuthURL is where to sign in: it ends in /auth/v1.0 for Swift's own
	// tempauth and for Ceph, in /v3 for Keystone.
	AuthURL string

	// AuthVersion is 1, 2 or 3. Default: what AuthURL says.
	AuthVersion int

	User string // with version 1: ACCOUNT:USER
	Key  string // or password

	// Project is what Keystone calls the account, with its domain and the
	// user's. Default of the domains: "Default".
	Project, ProjectDomain, UserDomain string

	// Region and Internal choose among the endpoints that Keystone knows.
	// Default: the first, public.
	Region   string
	Internal bool

	// StorageURL replaces the endpoint that signing in gives, or is "".
	StorageURL string

	Container       string
	CreateContainer bool // if it is missing

	// Prefix begins the name of every object. It is "" for a container shared
	// with Glance.
	Prefix string

	// Reference is the name of this account in Glance's swift_store_config_file,
	// or "". With it, a URI is swift+config://REFERENCE/CONTAINER/NAME.
	Reference string

	// SegmentSize is the largest object that is stored in one piece, in
	// bytes, and how large the pieces of others are. Default: 200 MiB, as
	// Glance's.
	SegmentSize int64

	// Static makes manifests static, where the server checks them. Default:
	// dynamic, as Glance's are.
	Static bool

	// Parallel is how many pieces of one large read are asked for at once,
	// and one more than how many segments of an upload wait to be sent.
	// Default: 2.
	Parallel int

	// Timeout is how long a server may be silent, before and in the midst of
	// an answer. Default: 30 s. Copies and manifests, where servers work
	// before they answer, get 20 times as long.
	Timeout time.Duration

	// Retry is how long a request that writes is tried again. Default: 1
	// minute. Reads are tried four times, within a second or two; who can
	// wait longer asks again.
	Retry time.Duration

	// SpoolDir is where segments wait to be sent that do not fit into memory:
	// Parallel+1 for each upload. Default: the folder for temporary files.
	SpoolDir string

	// Guard keeps space free in SpoolDir. Default: none does.
	Guard localfs.Guard

	// CAFile is a PEM file of the authorities to trust besides the system's.
	CAFile string

	// Insecure accepts any certificate. It is for tests of a set-up.
	Insecure bool

	// Logger hears of what is tried again and of what could not be cleaned
	// up. Default: silence.
	Logger *slog.Logger

	// Transport, if set, is put around the connections, to count, delay or
	// disturb requests.
	Transport func(http.RoundTripper) http.RoundTripper
}

const (
	defaultSegment = 200 << 20
	maxObject      = 5 << 30 // what Swift takes in one piece unless told otherwise
	maxSegments    = 99_999  // more would not be in the order of their names
)

func (c Config) defaults() Config {
	if c.SegmentSize == 0 {
		c.SegmentSize = defaultSegment
	}
	if c.Parallel <= 0 {
		c.Parallel = 2
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Retry <= 0 {
		c.Retry = time.Minute
	}
	if c.SpoolDir == "" {
		c.SpoolDir = os.TempDir()
	}
	if c.UserDomain == "" {
		c.UserDomain = "Default"
	}
	if c.ProjectDomain == "" {
		c.ProjectDomain = "Default"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// check returns what is wrong with the Config.
func (c Config) check() error {
	for name, text := range map[string]string{"auth_url": c.AuthURL, "storage_url": c.StorageURL} {
		u, err := url.Parse(text)
		if text == "" && name == "storage_url" {
			continue
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("%s is not http://HOST/... or https://HOST/...: %w", name, fs.ErrInvalid)
		}
	}
	switch {
	case c.AuthVersion < 0 || c.AuthVersion > 3:
		return fmt.Errorf("auth_version %d is none of 1, 2, 3: %w", c.AuthVersion, fs.ErrInvalid)
	case c.User == "" || c.Key == "":
		return fmt.Errorf("user or key is missing: %w", fs.ErrInvalid)
	case c.Container == "" || len(c.Container) > 256 || strings.Contains(c.Container, "/"):
		return fmt.Errorf("%q is no name of a container: %w", c.Container, fs.ErrInvalid)
	case c.SegmentSize < 1 || c.SegmentSize > maxObject:
		return fmt.Errorf("segments of %d bytes: Swift takes %d at most: %w", c.SegmentSize, int64(maxObject), fs.ErrInvalid)
	}
	if err := backends.CheckKey(c.Prefix + "x"); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

// A Store keeps objects in a container. It is a backends.Store, Prober,
// Locator, Copier and Meter.
type Store struct {
	cfg     Config
	client  *http.Client
	watch   *watch
	session *session
	can     abilities
	making  turns // objects that are put: who looks and puts is alone
	sending turns // objects whose segments a Writer is sending
}

// Open signs in, looks for the container, and tries what the server can do, on
// scratch objects that are deleted again. The error says what is wrong with
// which part of cfg, and what helps.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.defaults()
	s, err := connect(cfg)
	if err != nil {
		return nil, fmt.Errorf("swift: %w", err)
	}
	if err = s.haveContainer(ctx); err == nil {
		s.can, err = s.probe(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("swift: open container %s at %s: %w", cfg.Container, cfg.AuthURL, err)
	}
	return s, nil
}

// connect makes the client. It asks the server nothing.
func connect(cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	w, err := newWatch(cfg)
	if err != nil {
		return nil, err
	}
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Store{
		cfg: cfg, watch: w, session: newSession(cfg, w),
		client: &http.Client{Transport: w, CheckRedirect: noRedirects},
	}, nil
}

// Close lets go of idle connections. Readers and Writers that are open go on.
func (s *Store) Close() error {
	s.watch.closeIdle()
	return nil
}

// haveContainer looks for the container, and makes it where that is wanted.
func (s *Store) haveContainer(ctx context.Context) error {
	_, err := s.ask(ctx, s.reading(), request{method: http.MethodHead, container: s.cfg.Container})
	if statusOf(err) != http.StatusNotFound {
		return s.explain(err)
	}
	if !s.cfg.CreateContainer {
		return fmt.Errorf("there is no container %s: create it, correct container, or set create_container", s.cfg.Container)
	}
	_, err = s.ask(ctx, s.writing(), request{method: http.MethodPut, container: s.cfg.Container})
	return s.explain(err)
}

// name returns the name of the Swift object of a key.
func (s *Store) name(key string) string { return s.cfg.Prefix + key }

// URI returns the location of an object as Glance's driver writes it, but
// without a password: swift+config://REFERENCE/CONTAINER/NAME, or with the
// address of AuthURL, swift+http://HOST/v3/CONTAINER/NAME or swift+https://...
func (s *Store) URI(key string) string {
	rest := "/" + s.cfg.Container + "/" + s.name(key)
	if s.cfg.Reference != "" {
		return "swift+config://" + s.cfg.Reference + rest
	}
	return "swift+" + strings.TrimRight(s.cfg.AuthURL, "/") + rest
}

// Usage returns the container's quota and what is left of it. Without a quota
// nobody can tell.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	h, err := s.ask(ctx, s.reading(), request{method: http.MethodHead, container: s.cfg.Container})
	if err != nil {
		return backends.Usage{}, fmt.Errorf("swift: usage of container %s: %w", s.cfg.Container, s.explain(err))
	}
	quota, used := number(h, "X-Container-Meta-Quota-Bytes"), number(h, "X-Container-Bytes-Used")
	if quota <= 0 || used < 0 {
		return backends.Usage{}, nil
	}
	return backends.Usage{Total: quota, Free: max(0, quota-used)}, nil
}

// check returns an error if nothing should be done with the key.
func check(ctx context.Context, key string) error {
	if err := backends.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

var (
	_ backends.Store   = (*Store)(nil)
	_ backends.Prober  = (*Store)(nil)
	_ backends.Locator = (*Store)(nil)
	_ backends.Copier  = (*Store)(nil)
	_ backends.Meter   = (*Store)(nil)
)
