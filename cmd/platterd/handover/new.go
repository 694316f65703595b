package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrNobody says that no gateway runs on a directory that could be asked.
var ErrNobody = errors.New("no gateway that could be asked runs there")

// A hello is the first word of a new process.
type hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

// An end says that all items were sent.
type end struct {
	Items int   `json:"items"`
	Since int64 `json:"since"` // nanoseconds of the Unix epoch
}

// A Predecessor is the gateway whose place a new process takes.
type Predecessor struct {
	// Since is when its clients began to wait; known once the items are here.
	Since time.Time

	link *link
}

// Ask asks the gateway that runs on dir to make room for this process, whose
// version is told for the log. After it the gateway closes itself: what comes
// next is Receive. ErrNobody wraps why it could not be asked.
func Ask(ctx context.Context, dir, version string) (*Predecessor, error) {
	path, free, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer free()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("handover: %w: %w", ErrNobody, err)
	}
	p := &Predecessor{link: newLink(conn.(*net.UnixConn))}
	if err := p.ask(ctx, version); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Predecessor) ask(ctx context.Context, version string) error {
	defer p.link.bound(ctx)()
	if err := p.link.sendJSON(msgHello, hello{Protocol, version}); err != nil {
		return err
	}
	kind, body, err := p.link.receive()
	switch {
	case err != nil:
		return err
	case kind == msgRefused:
		return fmt.Errorf("handover: the running gateway refuses: %.4096s", body)
	case kind != msgWelcome:
		return fmt.Errorf("%w: %q in place of a welcome", errMalformed, kind)
	}
	return nil
}

// Receive returns all that the other one had open. Whoever calls it owns the
// descriptors.
func (p *Predecessor) Receive(ctx context.Context) (items []Item, err error) {
	defer p.link.bound(ctx)()
	defer func() {
		if err != nil {
			for i := range items {
				items[i].Close()
			}
			items = nil
		}
	}()
	for {
		kind, body, err := p.link.receive()
		if err != nil {
			return items, err
		}
		switch kind {
		case msgItems:
			batch, err := parseItems(body)
			if err != nil {
				return items, err
			}
			fds, err := p.link.take(len(batch))
			if err != nil {
				return items, err
			}
			for i, fd := range fds {
				batch[i].FD = fd
			}
			items = append(items, batch...)
		case msgEnd:
			var e end
			if err := json.Unmarshal(body, &e); err != nil {
				return items, fmt.Errorf("%w: %w", errMalformed, err)
			}
			if e.Items != len(items) || len(p.link.fds) > 0 {
				return items, fmt.Errorf("%w: %d items of %d, and %d descriptors left", errMalformed, len(items), e.Items, len(p.link.fds))
			}
			p.Since = time.Unix(0, e.Since)
			return items, nil
		case msgRefused:
			return items, fmt.Errorf("handover: the running gateway goes on by itself: %.4096s", body)
		default:
			return items, fmt.Errorf("%w: %q among the items", errMalformed, kind)
		}
	}
}

// Taken says that everything is open, and returns when this process is the
// owner: nil, too, if the other one has died. Before it nobody may be served.
func (p *Predecessor) Taken(ctx context.Context) error {
	defer p.link.bound(ctx)()
	if err := p.link.send(msgTaken, nil, nil); err != nil {
		// Nobody is there any more: it does not say no.
		if ctx.Err() != nil {
			return err
		}
		return nil
	}
	kind, body, err := p.link.receive()
	switch {
	case err == nil && kind == msgGo:
		return nil
	case err == nil && kind == msgRefused:
		return fmt.Errorf("handover: the running gateway goes on by itself: %.4096s", body)
	case err == nil:
		return fmt.Errorf("%w: %q in place of the word to go", errMalformed, kind)
	case errors.Is(err, io.EOF) || isReset(err):
		return nil
	}
	return err
}

// Close ends the conversation.
func (p *Predecessor) Close() error { return p.link.close() }
