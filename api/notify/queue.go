package notify

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A queue is what waits for one Sink.
type queue struct {
	name string
	sink Sink
	cfg  Config

	stop    context.CancelFunc // cuts the attempt under way
	stopped chan struct{}      // closed when the goroutine has ended
	wake    chan struct{}      // of capacity 1: there is something new, or the end

	mu    sync.Mutex
	list  []Message // the oldest first
	stats Stats
	ended bool // no more are taken
	full  bool // said so
}

func newQueue(name string, sink Sink, cfg Config) *queue {
	ctx, stop := context.WithCancel(context.Background())
	q := &queue{name: name, sink: sink, cfg: cfg, stop: stop, stopped: make(chan struct{}), wake: make(chan struct{}, 1)}
	q.stats = Stats{Sink: name, OK: true}
	go func() {
		defer close(q.stopped)
		q.run(ctx)
	}()
	return q
}

// add appends a message, if there is room.
func (q *queue) add(m Message) {
	q.mu.Lock()
	room := len(q.list) < q.cfg.QueueEvents && q.stats.Bytes+int64(len(m.Body)) <= q.cfg.QueueBytes && !q.ended
	say := false
	if room {
		q.list = append(q.list, m)
		q.stats.Bytes += int64(len(m.Body))
		q.full = false
	} else {
		q.stats.Dropped++
		say, q.full = !q.full, true
	}
	q.mu.Unlock()
	if room {
		q.signal()
	} else if say {
		q.cfg.Logger.Warn("events are dropped: the queue is full because they cannot be sent fast enough; look at the broker or the receiver",
			"sink", q.name, "event", m.Type, "waiting", q.state().Waiting)
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // it is awake
	}
}

// head returns the oldest message, and whether there will be more.
func (q *queue) head() (m Message, ok, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return Message{}, false, !q.ended
	}
	return q.list[0], true, true
}

// run sends what comes, until the queue has ended and is empty, or ctx is over.
func (q *queue) run(ctx context.Context) {
	pause := q.cfg.PauseMin
	for ctx.Err() == nil {
		m, ok, more := q.head()
		if !ok {
			if !more {
				return
			}
			select {
			case <-q.wake:
			case <-ctx.Done():
			}
			continue
		}
		err := q.send(ctx, m)
		if q.sent(err) {
			pause = q.cfg.PauseMin
			continue
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
		}
		pause = min(2*pause, q.cfg.PauseMax)
	}
}

func (q *queue) send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.SendWithin)
	defer cancel()
	return q.sink.Send(ctx, m)
}

// sent notes what became of the oldest message, and tells whether it is done
// with.
func (q *queue) sent(err error) (done bool) {
	refused, isRefused := errors.AsType[*Refused](err)
	q.mu.Lock()
	was := q.stats.OK
	q.stats.OK = err == nil || isRefused
	switch {
	case err == nil:
		q.stats.Sent++
	case isRefused:
		q.stats.Refused++
	default:
		q.stats.Failed++
	}
	if q.stats.OK {
		q.stats.Bytes -= int64(len(q.list[0].Body))
		q.list[0] = Message{} // its memory is free even while the array is not
		q.list = q.list[1:]
	}
	waiting := len(q.list)
	q.mu.Unlock()
	switch log := q.cfg.Logger; {
	case isRefused:
		log.Warn("an event was refused for good and is dropped", "sink", q.name, "err", refused.Err)
	case err != nil && was:
		log.Warn("events cannot be sent; they wait, and it is tried again", "sink", q.name, "err", err)
	case err == nil && !was:
		log.Info("events are sent again", "sink", q.name, "waiting", waiting)
	}
	return err == nil || isRefused
}

// end makes the queue take no more.
func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
}

// drain waits until the queue is empty or ctx ends, and closes the Sink.
func (q *queue) drain(ctx context.Context) {
	select {
	case <-q.stopped:
	case <-ctx.Done():
	}
	q.stop()
	<-q.stopped
	q.mu.Lock()
	left := len(q.list)
	q.stats.Dropped += uint64(left)
	q.list, q.stats.Bytes = nil, 0
	q.mu.Unlock()
	if left > 0 {
		q.cfg.Logger.Warn("events were not sent in time before the stop, and are lost", "sink", q.name, "events", left)
	}
	if err := q.sink.Close(); err != nil {
		q.cfg.Logger.Debug("close a place for events", "sink", q.name, "err", err)
	}
}

func (q *queue) state() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Waiting = len(q.list)
	return s
}
