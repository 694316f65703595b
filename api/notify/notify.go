package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A Priority says how much an event matters, in the broker's words.
type Priority string

// The priorities that Glance uses.
const (
	Info  Priority = "INFO"
	Error Priority = "ERROR"
)

// A Message is one event, as it goes out.
type Message struct {
	ID       string
	Type     string // image.create
	Priority Priority
	Body     []byte // JSON: what oslo.messaging has in its envelope
}

// A Sink is a place that events go to. It is used by one goroutine.
type Sink interface {
	// Send brings one message there and returns once it is safe. A Refused
	// error means that it never will be; after any other the caller tries
	// again.
	Send(ctx context.Context, m Message) error

	// Close ends connections.
	Close() error
}

// A Refused error is of a message that would be refused again.
type Refused struct{ Err error }

// Error returns what the place said.
func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Err }

// A Config says what is told, and where. The zero Config tells nobody.
type Config struct {
	Sinks       map[string]Sink // by names for log and metrics; the Notifier closes them
	PublisherID string          // "": image.localhost, as Glance
	Disabled    []string        // events, or groups such as image or metadef_tag, that are not told

	QueueEvents int   // that wait for each Sink; 0: 10000
	QueueBytes  int64 // of their bodies; 0: 16 MiB

	SendWithin time.Duration // of one attempt; 0: 15 s
	PauseMin   time.Duration // after the first failed attempt; 0: 200 ms
	PauseMax   time.Duration // after many; 0: 30 s

	Logger *slog.Logger     // nil: silence
	Now    func() time.Time // nil: time.Now
}

// A Notifier tells of events. A nil one tells nobody.
type Notifier struct {
	cfg    Config
	queues []*queue
}

// New starts a Notifier. Close ends it.
func New(cfg Config) *Notifier {
	cfg.PublisherID = cmp.Or(cfg.PublisherID, "image.localhost")
	cfg.QueueEvents = cmp.Or(cfg.QueueEvents, 10_000)
	cfg.QueueBytes = cmp.Or(cfg.QueueBytes, 16<<20)
	cfg.SendWithin = cmp.Or(cfg.SendWithin, 15*time.Second)
	cfg.PauseMin = cmp.Or(cfg.PauseMin, 200*time.Millisecond)
	cfg.PauseMax = cmp.Or(cfg.PauseMax, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	n := &Notifier{cfg: cfg}
	for name, sink := range cfg.Sinks {
		n.queues = append(n.queues, newQueue(name, sink, cfg))
	}
	slices.SortFunc(n.queues, func(a, b *queue) int { return strings.Compare(a.name, b.name) })
	return n
}

// Emit tells of an event, and does not wait for anybody. payload becomes JSON
// at once.
func (n *Notifier) Emit(ctx context.Context, event string, payload any) {
	n.emit(ctx, Info, event, payload)
}

// EmitError is Emit for what went wrong; payload is often a text.
func (n *Notifier) EmitError(ctx context.Context, event string, payload any) {
	n.emit(ctx, Error, event, payload)
}

func (n *Notifier) emit(ctx context.Context, p Priority, event string, payload any) {
	if n == nil || len(n.queues) == 0 || n.disabled(event) {
		return
	}
	m, err := n.message(ctx, p, event, payload)
	if err != nil {
		n.cfg.Logger.ErrorContext(ctx, "an event could not be written as JSON and is lost", "event", event, "err", err)
		return
	}
	for _, q := range n.queues {
		q.add(m)
	}
}

// disabled tells whether nobody wants to know of an event: its own name counts,
// and the part before its first point, as in Glance; so does "image.member",
// which Glance promises.
func (n *Notifier) disabled(event string) bool {
	group, _, _ := strings.Cut(event, ".")
	parent := event[:max(0, strings.LastIndexByte(event, '.'))]
	return slices.ContainsFunc(n.cfg.Disabled, func(d string) bool { return d == event || d == group || d == parent })
}

// message writes the event as oslo.messaging does: the context as keys of its
// own, which the receiver takes apart again.
func (n *Notifier) message(ctx context.Context, p Priority, event string, payload any) (Message, error) {
	m := Message{ID: uuid.NewString(), Type: event, Priority: p}
	who := wire.IdentityFrom(ctx)
	body := map[string]any{
		"message_id": m.ID, "publisher_id": n.cfg.PublisherID, "event_type": event, "priority": p, "payload": payload,
		"timestamp":  n.cfg.Now().UTC().Format("2006-01-02 15:04:05.000000"),
		"_unique_id": strings.ReplaceAll(uuid.NewString(), "-", ""),
	}
	for key, value := range map[string]string{
		"request_id": wire.RequestID(ctx), "global_request_id": wire.GlobalRequestID(ctx),
		"user_id": who.UserID, "project_id": who.ProjectID,
	} {
		if value != "" {
			body["_context_"+key] = value
		}
	}
	var err error
	m.Body, err = json.Marshal(body)
	return m, err
}

// Close stops taking events, lets the queues run empty until ctx ends, and
// closes the Sinks. What is left is counted as dropped, and said in the log.
func (n *Notifier) Close(ctx context.Context) {
	if n == nil {
		return
	}
	for _, q := range n.queues {
		q.end()
	}
	for _, q := range n.queues {
		q.drain(ctx)
	}
}

// Stats is what became of the events for one Sink.
type Stats struct {
	Sink    string
	Sent    uint64 // and confirmed
	Dropped uint64 // the queue was full, or the gateway stopped
	Refused uint64 // by the place itself, for good
	Failed  uint64 // attempts
	Waiting int    // events in the queue
	Bytes   int64  // of them
	OK      bool   // the last attempt went well, or there was none
}

// Stats returns the state of every Sink, by name.
func (n *Notifier) Stats() []Stats {
	var out []Stats
	if n != nil {
		for _, q := range n.queues {
			out = append(out, q.state())
		}
	}
	return out
}
