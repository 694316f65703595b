package embedded

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
)

// harmless has what etcd warns of, or calls an error, though in a server of
// one member behind a private socket it is as it should be.
func harmless() []string {
	return []string{
		"etcd: Running http and grpc server on single port. This is not recommended for production.",
		"etcd: simple token is not cryptographically signed", // nobody logs in
		"etcd: Failed to detect schema version",              // a new database has none yet
		"etcd: failed to update storage version",             // for the same reason; it is tried again
	}
}

// early is a part of what raft says, with numbers around it, when it is ready
// for its first election a moment before it may have one.
const early = " cannot campaign at term "

// quiet is a handler that calls harmless things debugging, and, once the
// server is being closed, everything: etcd reports each closed listener as an
// error.
type quiet struct {
	next    slog.Handler
	closing *atomic.Bool
}

// Enabled tells whether anybody wants records of this level.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool { return q.next.Enabled(ctx, level) }

// Handle passes a record on, calmer where that is right.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if q.closing.Load() || slices.Contains(harmless(), r.Message) || strings.Contains(r.Message, early) {
		r = r.Clone()
		r.Level = slog.LevelDebug
		if !q.next.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return q.next.Handle(ctx, r)
}

// WithAttrs returns a handler whose records have these attributes.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quiet{q.next.WithAttrs(attrs), q.closing}
}

// WithGroup returns a handler whose attributes are in a group.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.next.WithGroup(name), q.closing} }
