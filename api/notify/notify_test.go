package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// A place is a Sink that keeps what it gets.
type place struct {
	mu     sync.Mutex
	got    []Message
	err    error         // what Send answers
	block  chan struct{} // until it is closed, Send waits
	closed bool
}

func (p *place) Send(ctx context.Context, m Message) error {
	p.mu.Lock()
	block := p.block
	p.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.got = append(p.got, m)
	return nil
}

func (p *place) Close() error { p.closed = true; return nil }

func (p *place) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *place) messages() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func newNotifier(t *testing.T, p *place, cfg Config) *Notifier {
	t.Helper()
	cfg.Sinks = map[string]Sink{"place": p}
	cfg.PauseMin, cfg.PauseMax = time.Millisecond, time.Millisecond
	n := New(cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		n.Close(ctx)
	})
	return n
}

// finish closes n and returns what came of it.
func finish(t *testing.T, n *Notifier, p *place) []Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n.Close(ctx)
	return p.messages()
}

func body(t *testing.T, m Message) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(m.Body, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func types(list []Message) (out []string) {
	for _, m := range list {
		out = append(out, m.Type)
	}
	return out
}

func TestMessage(t *testing.T) {
	p := &place{}
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	n := newNotifier(t, p, Config{PublisherID: "image.h1", Now: func() time.Time { return at }})
	ctx := wire.WithRequestID(wire.WithIdentity(t.Context(), wire.Identity{UserID: "u", ProjectID: "p"}), "req-1", "")
	n.EmitError(ctx, "image.upload", "no room")
	list := finish(t, n, p)
	if len(list) != 1 || !p.closed {
		t.Fatalf("got %d messages, closed %t", len(list), p.closed)
	}
	got := body(t, list[0])
	if id, _ := got["_unique_id"].(string); len(id) != 32 {
		t.Errorf("_unique_id is %q, want 32 digits", id)
	}
	if got["message_id"] != list[0].ID || list[0].ID == "" {
		t.Errorf("message_id %v, want %q", got["message_id"], list[0].ID)
	}
	delete(got, "_unique_id")
	delete(got, "message_id")
	want := map[string]any{"publisher_id": "image.h1", "event_type": "image.upload", "priority": "ERROR", "payload": "no room",
		"timestamp": "2026-03-04 05:06:07.000008", "_context_request_id": "req-1", "_context_user_id": "u", "_context_project_id": "p"}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestDisabled(t *testing.T) {
	for _, c := range []struct {
		disabled, event string
		told            bool
	}{
		{"image.send", "image.send", false}, {"image.send", "image.create", true}, {"image", "image.member.create", false},
		{"image.member", "image.member.create", false}, {"image.member", "image.create", true},
		{"task", "task.run", false}, {"metadef_tag", "metadef_tag.create", false}, {"imag", "image.create", true},
	} {
		p := &place{}
		n := newNotifier(t, p, Config{Disabled: []string{c.disabled}})
		n.Emit(t.Context(), c.event, nil)
		if got := len(finish(t, n, p)) == 1; got != c.told {
			t.Errorf("disabled %s, event %s: told %t, want %t", c.disabled, c.event, got, c.told)
		}
	}
}

// TestNobody: without a Notifier, or without a Sink, nothing happens.
func TestNobody(t *testing.T) {
	for _, n := range []*Notifier{nil, New(Config{})} {
		n.Emit(t.Context(), "image.create", func() {}) // would not even be JSON
		n.ImageChanged(t.Context(), nil, &catalog.Image{})
		n.TaskChanged(t.Context(), &catalog.Task{ExpiresAt: time.Unix(1, 0)}, nil)
		n.Sent(t.Context(), catalog.Image{}, 1, 2)
		n.Close(t.Context())
		if len(n.Stats()) != 0 {
			t.Errorf("stats of nobody: %v", n.Stats())
		}
	}
}

func TestRetries(t *testing.T) {
	p := &place{err: errors.New("away")}
	n := newNotifier(t, p, Config{})
	for i := range 5 {
		n.Emit(t.Context(), fmt.Sprint("image.", i), nil)
	}
	await(t, n, func(s Stats) bool { return s.Failed >= 3 && !s.OK })
	p.fail(nil)
	got := types(finish(t, n, p))
	if want := []string{"image.0", "image.1", "image.2", "image.3", "image.4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := n.Stats()[0]; s.Sent != 5 || s.Dropped != 0 || s.Waiting != 0 || s.Bytes != 0 || !s.OK {
		t.Errorf("stats at the end: %+v", s)
	}
}

func await(t *testing.T, n *Notifier, ok func(Stats) bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(n.Stats()[0]); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still %+v", n.Stats()[0])
		}
	}
}

// TestFull: a place that hangs costs events, and never a caller's time.
func TestFull(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		room int
	}{
		{"events", Config{QueueEvents: 3}, 3},
		{"bytes", Config{QueueBytes: 2500}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			p := &place{block: make(chan struct{})}
			c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			n := newNotifier(t, p, c.cfg)
			for range 10 {
				n.Emit(t.Context(), "image.create", strings.Repeat("x", 900))
			}
			if s := n.Stats()[0]; s.Waiting != c.room || s.Dropped != uint64(10-c.room) {
				t.Errorf("%d wait and %d are dropped, want %d and %d", s.Waiting, s.Dropped, c.room, 10-c.room)
			}
			close(p.block)
			if got := len(finish(t, n, p)); got != c.room {
				t.Errorf("%d came through, want %d", got, c.room)
			}
			if got := strings.Count(log.String(), "events are dropped"); got != 1 {
				t.Errorf("the log says so %d times:\n%s", got, &log)
			}
		})
	}
}

// TestStop: the end does not wait for a place that hangs, and counts the rest.
func TestStop(t *testing.T) {
	p := &place{block: make(chan struct{})}
	n := newNotifier(t, p, Config{})
	for range 4 {
		n.Emit(t.Context(), "image.create", nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.Close(ctx)
	n.Emit(t.Context(), "image.late", nil)
	if s := n.Stats()[0]; s.Dropped != 5 || s.Sent != 0 || s.Waiting != 0 || !p.closed {
		t.Errorf("after the stop: %+v, closed %t", s, p.closed)
	}
}

func TestRefused(t *testing.T) {
	p := &place{err: &Refused{errors.New("never")}}
	n := newNotifier(t, p, Config{})
	n.Emit(t.Context(), "image.create", nil)
	await(t, n, func(s Stats) bool { return s.Refused == 1 && s.Waiting == 0 && s.OK })
}
