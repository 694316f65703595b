package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// A Config says what to serve and within which limits. Only Exports is
// required; the zero value of every other field is the default it names, and
// a negative number means no limit where one can be done without.
type Config struct {
	// Exports is what to serve.
	Exports Exports

	// Logger gets a line per connection and per trouble; nil is silence.
	Logger *slog.Logger

	// Observer is told of connections and requests; nil is nobody.
	Observer Observer

	// HandshakeTimeout is how long a client may take until data flows, not
	// counting the time that Exports takes. Default 10 s.
	HandshakeTimeout time.Duration

	// MaxRequest is the most bytes that one READ or WRITE may carry, at least
	// 1 MiB. Clients that do not ask expect 32 MiB to work. Default 32 MiB.
	MaxRequest int

	// MaxConns is how many connections there may be. When there are so many,
	// a new one takes the place of the one whose handshake has lasted longest;
	// where all have an export open, it is closed. Default 1024.
	MaxConns int

	// MaxConnsPerClient is how many may come from one network address, in the
	// same way; it does not count unix sockets. Default 256.
	MaxConnsPerClient int

	// MaxWorkers is how many requests of one connection may be under way at
	// once. Default 64.
	MaxWorkers int

	// MaxInFlightBytes is how many bytes the requests of one connection that
	// are under way, or answered but not yet taken by the client, may hold.
	// Default 64 MiB, at least twice MaxRequest.
	MaxInFlightBytes int64

	// MaxInFlightTotal is the same for all connections together. When it is
	// used up, clients that do not take their replies are cut off after
	// StallTimeout; small requests go on all the while. Default 256 MiB, at
	// least MaxInFlightBytes.
	MaxInFlightTotal int64

	// StallTimeout is how long a client may leave bytes lying when others
	// need the memory. Default 10 s.
	StallTimeout time.Duration

	// TLS is what clients that start TLS get; nil refuses it. Versions before
	// 1.2 are never spoken and sessions never resumed, whatever it says. To
	// change certificates without a restart set GetConfigForClient.
	TLS *tls.Config

	// TLSFailed is told of every TLS handshake that fails, and why; nil is
	// nobody.
	TLSFailed func(err error)

	// TLSRequired refuses to clients on network sockets all but to start TLS;
	// on unix sockets they need not.
	TLSRequired bool
}

// withDefaults returns cfg with every zero field filled in.
func (cfg Config) withDefaults() Config {
	cfg.HandshakeTimeout = orDefault(cfg.HandshakeTimeout, 10*time.Second)
	cfg.MaxRequest = max(orDefault(cfg.MaxRequest, defaultMaxRequest), 1<<20)
	cfg.MaxConns = orDefault(cfg.MaxConns, 1024)
	cfg.MaxConnsPerClient = orDefault(cfg.MaxConnsPerClient, 256)
	cfg.MaxWorkers = max(orDefault(cfg.MaxWorkers, 64), 1)
	cfg.MaxInFlightBytes = max(orDefault(cfg.MaxInFlightBytes, 64<<20), 2*int64(cfg.MaxRequest)+1<<20)
	cfg.MaxInFlightTotal = max(orDefault(cfg.MaxInFlightTotal, 256<<20), cfg.MaxInFlightBytes)
	cfg.StallTimeout = orDefault(cfg.StallTimeout, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// orDefault returns v, or d if v is zero.
func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// A Server serves block devices to NBD clients.
type Server struct {
	cfg    Config
	log    *slog.Logger
	memory *semaphore.Weighted // bytes in flight on all connections
	pools  pools
	crew   crew
	tls    *tls.Config // nil without TLS
	closed atomic.Bool
	epoch  time.Time

	mu        sync.Mutex
	lastID    uint64
	conns     map[uint64]*conn
	counted   int // of conns, those that count against MaxConns
	perClient map[string]int
	listeners map[net.Listener]bool
	refused   int       // clients turned away since the last line about it
	complain  time.Time // not before this is there another such line
}

// New returns a Server. Call Serve to make it serve, and Shutdown at the end.
func New(cfg Config) (*Server, error) {
	if cfg.Exports == nil {
		return nil, errors.New("nbd: Config.Exports is nil: there is nothing to serve")
	}
	if cfg.MaxRequest < 0 || cfg.MaxRequest > 1<<30 {
		return nil, fmt.Errorf("nbd: MaxRequest %d is not between 1 MiB and 1 GiB", cfg.MaxRequest)
	}
	if cfg.MaxInFlightBytes < 0 || cfg.MaxInFlightTotal < 0 || cfg.MaxWorkers < 0 || cfg.HandshakeTimeout < 0 || cfg.StallTimeout < 0 {
		return nil, errors.New("nbd: a limit on memory, workers or time is negative")
	}
	if cfg.TLSRequired && cfg.TLS == nil {
		return nil, errors.New("nbd: Config.TLSRequired without Config.TLS: no client on a network socket could do anything")
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg:       cfg,
		log:       cfg.Logger,
		tls:       hardened(cfg.TLS),
		epoch:     time.Now(),
		memory:    semaphore.NewWeighted(cfg.MaxInFlightTotal),
		conns:     map[uint64]*conn{},
		perClient: map[string]int{},
		listeners: map[net.Listener]bool{},
	}, nil
}

// Serve accepts connections on l until ctx ends or Shutdown is called, then
// closes l and returns nil. It may be called for several listeners. The
// connections outlive ctx: Shutdown ends them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if !s.listen(l) {
		return nil
	}
	defer s.unlisten(l)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	a := &acceptor{s: s, l: l, over: make(chan error, 1)}
	go a.accept(ctx) // it, or who goes on for it, ends with over or as a connection's goroutine
	return <-a.over
}

// listen notes l as one to close at Shutdown, unless that has begun.
func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return false
	}
	s.listeners[l] = true
	return true
}

func (s *Server) unlisten(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// stopPatience is how long Shutdown waits for a client to take a reply.
const stopPatience = 2 * time.Second

// Shutdown stops accepting, lets the requests in flight end, takes up no new
// ones, closes the connections softly and waits for them; a client
// that takes no replies for 2 s is cut off. When ctx
// ends first it cuts them off, and its error is ctx's; then a request that
// does not heed its context may still be running.
func (s *Server) Shutdown(ctx context.Context) error {
	conns := s.close()
	for _, c := range conns {
		c.drain()
	}
	if err := s.await(ctx, conns); err != nil {
		return fmt.Errorf("nbd: shutdown: requests were still in flight: %w", err)
	}
	return nil
}

// close stops accepting and returns the connections there are.
func (s *Server) close() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	for l := range s.listeners {
		l.Close()
	}
	return s.live()
}

// await waits for the end of conns and of the workers. When ctx ends first it
// cuts off what is left, and its error is ctx's.
func (s *Server) await(ctx context.Context, conns []*conn) error {
	err := s.waitAll(ctx, conns)
	if err != nil {
		for _, c := range conns {
			select {
			case <-c.done: // its socket may be another server's by now
			default:
				c.cut(errCutOff)
			}
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.waitAll(grace, conns) == nil {
			s.crew.stop()
		}
		return err
	}
	s.crew.stop()
	return nil
}

// waitAll waits until each of conns has ended. Clients that do not take their
// replies are not waited for: they are cut off.
func (s *Server) waitAll(ctx context.Context, conns []*conn) error {
	tick := time.NewTicker(stopPatience / 8)
	defer tick.Stop()
	for len(conns) > 0 {
		select {
		case <-conns[0].done:
			conns = conns[1:]
		case <-tick.C:
			s.cutStalled(stopPatience, 0)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// clock returns the nanoseconds since the Server was made, never 0.
func (s *Server) clock() int64 { return int64(time.Since(s.epoch)) + 1 }

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
