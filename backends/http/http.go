// Package http reads objects from web servers. It can write and delete
// nothing: Create and Delete are errors.ErrUnsupported.
//
// A key is the path of a file below Config.Base, or a whole URL as [URLKey]
// writes it, so that locations of Glance's http store have keys too.
//
// A server that gives ranges is read in place. Each range must be answered 206
// with exactly the range, the length and the version (ETag, Last-Modified) that
// the object was opened with. A server that does not, or that tells no version,
// is read once, to a file without a name (a spool) that readers share and that
// goes when it is no longer wanted.
//
// Keys may come from strangers. So only hosts that the Config allows are asked,
// redirects are followed by the same rules, and a host's name is resolved here,
// once for each connection, which is made to an address that was checked:
// unless allowed, none that is private, of this machine, or of this network.
package http

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A Config says which servers may be asked. Base or Allow must be set.
type Config struct {
	// Base is the URL of the folder that keys are below, or "" if every key
	// is a whole URL. It has no password and no query.
	Base string

	// Allow are the servers that may be asked besides that of Base: HOST for
	// the usual ports, HOST:PORT, or "*" for all.
	Allow []string

	// AllowPrivate allows private, loopback and link-local addresses.
	AllowPrivate bool

	// Redirects is how many are followed for one request. Default: 5.
	Redirects int

	// Parallel is how many pieces of one large read are asked for at once.
	// Default: 4.
	Parallel int

	// Timeout is how long a server may be silent, before and in the midst of
	// an answer. Default: 30 s.
	Timeout time.Duration

	// SpoolDir is where spools are. Default: the folder for temporary files.
	SpoolDir string

	// SpoolSize is how many bytes all spools may have. Default: 16 GiB.
	SpoolSize int64

	// Guard keeps space free in SpoolDir. Default: none does.
	Guard localfs.Guard

	// CAFile is a PEM file of the authorities to trust besides the system's.
	CAFile string

	// Logger hears of what is tried again and of what is spooled. Default:
	// silence.
	Logger *slog.Logger

	// Resolve, if set, replaces the system's look-up of names.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// Transport, if set, is put around the connections, to count, delay or
	// disturb requests.
	Transport func(http.RoundTripper) http.RoundTripper
}

func (c Config) defaults() Config {
	if c.Redirects <= 0 {
		c.Redirects = 5
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.SpoolDir == "" {
		c.SpoolDir = os.TempDir()
	}
	if c.SpoolSize <= 0 {
		c.SpoolSize = 16 << 30
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Store reads objects of web servers. It is a backends.Store and Locator.
type Store struct {
	cfg    Config
	base   *url.URL // or nil
	watch  *watch
	gate   gate
	spools *spools
}

// Open makes a Store. It asks no server.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.defaults()
	s := &Store{cfg: cfg}
	var err error
	if s.base, err = baseOf(cfg.Base); err == nil {
		s.gate, err = newGate(cfg, s.base)
	}
	if err == nil {
		s.watch, err = newWatch(cfg, s.gate)
	}
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	s.spools = newSpools(cfg)
	return s, nil
}

func baseOf(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := parse(text)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint is not http://HOST/FOLDER or https://HOST/FOLDER, without a password or query: %w", errors.Join(err, fs.ErrInvalid))
	}
	return u, nil
}

// parse takes an http or https URL without a password.
func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("no URL: %w", fs.ErrInvalid) // which may have a password: not shown
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return nil, fmt.Errorf("%s is no http or https URL, or has a password: %w", u.Redacted(), fs.ErrInvalid)
	}
	return u, nil
}

// Close ends spooling and lets go of idle connections. Readers that are open
// keep what they have.
func (s *Store) Close() error {
	s.spools.close()
	s.watch.closeIdle()
	return nil
}

// urlElement is the first element of the keys that are whole URLs.
const urlElement = "_url/"

// URLKey returns the key of a whole URL: "_url/" and the URL in the alphabet
// of base64 for URLs. A URL of more than 187 bytes, one with a password and one
// that is not http or https is fs.ErrInvalid. What differs in the fragment is
// the same file under several keys.
func URLKey(text string) (string, error) {
	if _, err := parse(text); err != nil {
		return "", fmt.Errorf("http: %w", err)
	}
	key := urlElement + base64.RawURLEncoding.EncodeToString([]byte(text))
	if err := backends.CheckKey(key); err != nil {
		return "", fmt.Errorf("http: URL of %d bytes: %w", len(text), err)
	}
	return key, nil
}

// address returns the URL of a key.
func (s *Store) address(key string) (*url.URL, error) {
	if err := backends.CheckKey(key); err != nil {
		return nil, err
	}
	if code, ok := strings.CutPrefix(key, urlElement); ok {
		text, err := base64.RawURLEncoding.DecodeString(code)
		if err != nil {
			return nil, fmt.Errorf("key %s holds no URL: %w", key, fs.ErrInvalid)
		}
		return parse(string(text))
	}
	if s.base == nil {
		return nil, fmt.Errorf("key %s is no URL, and no endpoint is configured: %w", key, fs.ErrInvalid)
	}
	return s.base.JoinPath(key), nil
}

// URI returns the URL of an object, as Glance's http store has it.
func (s *Store) URI(key string) string {
	u, err := s.address(key)
	if err != nil {
		return ""
	}
	return u.String()
}

// Open opens an object.
func (s *Store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	u, err := s.address(key)
	if err == nil {
		err = ctx.Err()
	}
	var r block.ReadCloser
	if err == nil {
		r, err = s.open(ctx, u)
	}
	if err != nil {
		return nil, fmt.Errorf("http: open %s: %w", key, err)
	}
	return r, nil
}

// Create is errors.ErrUnsupported.
func (s *Store) Create(_ context.Context, key string, _ int64) (backends.Writer, error) {
	if err := backends.CheckKey(key); err != nil {
		return nil, fmt.Errorf("http: create: %w", err)
	}
	return nil, fmt.Errorf("http: create %s: web servers are only read: %w", key, errors.ErrUnsupported)
}

// Delete is errors.ErrUnsupported.
func (s *Store) Delete(_ context.Context, key string) error {
	return fmt.Errorf("http: delete %s: web servers are only read: %w", key, errors.ErrUnsupported)
}

var (
	_ backends.Store   = (*Store)(nil)
	_ backends.Locator = (*Store)(nil)
)
