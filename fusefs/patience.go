package fusefs

import (
	"context"
	"sync"
	"time"
)

// patience is how long a call goes on after its caller was interrupted.
const patience = 10 * time.Second

// A patient is the context of a call. The kernel says that a call is
// interrupted whenever its caller gets a signal, be it a timer's or a child's,
// and hands on whatever we answer then. Programs do not expect EINTR from a
// file, so the call goes on for a while. A caller that is to die does not wait
// for our answer: the kernel lets it go at once.
type patient struct {
	context.Context // the call's
	lasts           time.Duration

	start sync.Once
	late  chan struct{} // closed once patience has ended; nil until somebody waits for that
	over  chan struct{}
}

// calm returns the context of a call that is to be patient. Its end must be
// called when the call is over.
func calm(ctx context.Context) *patient { return &patient{Context: ctx, lasts: patience} }

// Done is closed when the call was interrupted and patience has ended.
func (p *patient) Done() <-chan struct{} {
	p.start.Do(func() {
		p.late, p.over = make(chan struct{}), make(chan struct{})
		go p.watch()
	})
	return p.late
}

// Err is context.Canceled after Done is closed.
func (p *patient) Err() error {
	if p.Context.Err() == nil {
		return nil // without starting a goroutine, as nearly every time
	}
	select {
	case <-p.Done():
		return context.Canceled
	default:
		return nil
	}
}

func (p *patient) watch() {
	select {
	case <-p.Context.Done():
	case <-p.over:
		return
	}
	t := time.NewTimer(p.lasts)
	defer t.Stop()
	select {
	case <-t.C:
		close(p.late)
	case <-p.over:
	}
}

// end ends the waiting for an interruption. Nobody uses p afterwards but to
// find that it has not ended.
func (p *patient) end() {
	p.start.Do(func() {})
	if p.over != nil {
		close(p.over)
	}
}
