package platter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// maxSeen bounds what a watch remembers of the records it has shown.
const maxSeen = 100_000

type changeView struct {
	Revision int64  `json:"revision"`
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	Deleted  bool   `json:"deleted"`
}

// A news is one step of a watch.
type news struct {
	change catalog.Change
	err    error
}

// watch sends the changes of the catalog as server-sent events, until the
// client hangs up, its token ends or the Server is closed.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "revision")
	if err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:watch_catalog", s.own(r, "catalog")); err != nil {
		return err
	}
	rev, err := s.startRevision(r, q)
	if err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.streams.Done()
	ctx, cancel := context.WithCancel(r.Context())
	if end := wire.IdentityFrom(ctx).Expires; !end.IsZero() {
		cancel()
		ctx, cancel = context.WithDeadline(r.Context(), end)
	}
	defer cancel()

	ch := make(chan news)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(ctx, rev, ch)
	}()
	defer func() { cancel(); <-done }()
	return s.stream(ctx, w, ch)
}

// startRevision finds out after which revision to begin. A browser that
// connects again says it in a header.
func (s *Server) startRevision(r *http.Request, q url.Values) (int64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = q.Get("revision")
	}
	if text == "" {
		return s.cfg.Catalog.Revision(), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badRequest("The revision %.32q is not a number.", text)
	}
	return n, nil
}

// follow brings what the catalog says to ch, until ctx ends.
func (s *Server) follow(ctx context.Context, rev int64, ch chan<- news) {
	defer close(ch)
	for change, err := range s.cfg.Catalog.Watch(ctx, rev) {
		select {
		case ch <- news{change, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (s *Server) stream(ctx context.Context, w http.ResponseWriter, ch <-chan news) error {
	quiet := time.NewTicker(s.cfg.KeepAlive)
	defer quiet.Stop()
	// What is wrong from the start is an ordinary error; a sign of life
	// decides that nothing is.
	begun := false
	begin := func() {
		if !begun {
			h := w.Header()
			h.Set("Content-Type", "text/event-stream")
			h.Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
			begun = true
		}
	}
	first := time.NewTimer(min(s.cfg.KeepAlive, 100*time.Millisecond))
	defer first.Stop()
	seen := map[string]bool{}
	for {
		var text string
		select {
		case <-s.stopped:
			begin()
			return nil
		case n, open := <-ch:
			if !open || ctx.Err() != nil {
				begin()
				return nil
			}
			if n.err != nil && !begun {
				return n.err
			}
			if n.err == nil && !s.shows(ctx, n.change, seen) {
				continue
			}
			text = event(n)
		case <-first.C:
			text = ": hello\n\n"
		case <-quiet.C:
			text = ": quiet\n\n"
		}
		begin()
		if _, err := io.WriteString(w, text); err != nil {
			return nil // the client is gone
		}
		http.NewResponseController(w).Flush() // what cannot flush sends soon enough
	}
}

// event writes one step down. After an error the catalog's watch has ended,
// and with it the stream: the client reads everything anew.
func event(n news) string {
	if n.err != nil {
		text, _ := json.Marshal(map[string]string{"message": n.err.Error()}) // strings always encode
		return fmt.Sprintf("event: error\ndata: %s\n\n", text)
	}
	c := n.change
	data, _ := json.Marshal(changeView{c.Revision, c.Kind, c.ID, c.Deleted}) // nothing in it can fail
	return fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", c.Revision, c.Kind, data)
}

// shows tells whether who asks may see the record that has changed. Of those
// that are gone, one is shown that was seen before.
func (s *Server) shows(ctx context.Context, c catalog.Change, seen map[string]bool) bool {
	who := wire.IdentityFrom(ctx)
	if who.Admin {
		return true
	}
	key := c.Kind + "/" + c.ID
	if c.Deleted {
		return seen[key]
	}
	if !s.sees(ctx, who, c) {
		return seen[key]
	}
	if len(seen) < maxSeen {
		seen[key] = true
	}
	return true
}

func (s *Server) sees(ctx context.Context, who wire.Identity, c catalog.Change) bool {
	switch c.Kind {
	case "image":
		img, err := s.cfg.Catalog.Image(ctx, c.ID)
		return err == nil && s.cfg.Catalog.CanSee(viewer(who), img)
	case "overlay":
		ov, err := s.cfg.Catalog.Overlay(ctx, c.ID)
		return err == nil && owns(who, ov.Owner)
	case "attachment":
		a, err := s.cfg.Catalog.Attachment(ctx, c.ID)
		return err == nil && owns(who, a.Owner)
	case "task":
		t, err := s.cfg.Catalog.Task(ctx, c.ID)
		return err == nil && owns(who, t.Owner)
	}
	return false
}
