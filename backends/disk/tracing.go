package disk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/trace"
)

// Traces keeps traces of first reads, see package trace.
type Traces interface {
	// Load returns what Store stored last. If there is nothing the error is
	// fs.ErrNotExist.
	Load(ctx context.Context, key string) ([]byte, error)

	// Store keeps data, of at most trace.MaxEncoded bytes.
	Store(ctx context.Context, key string, data []byte) error
}

const (
	// listenTime is how long after a disk was opened its reads are recorded.
	listenTime = 3 * time.Minute

	// storeTime is how long storing a trace may take.
	storeTime = 30 * time.Second

	// minTrace is what must have been read for a trace to be worth storing:
	// to look at a disk is not to boot from it.
	minTrace = 256 << 10
)

// A tracing is the recording of what is read of one object, and the replay of
// what was read before.
type tracing struct {
	recorder *trace.Recorder
	cancel   context.CancelFunc
	quiet    chan struct{} // closed once nothing is fetched any more
}

// trace begins to record what is read of r, and to fetch ahead what was read
// the last times.
func (o *Opener) trace(ctx context.Context, r block.Reader, spec Spec) *tracing {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &tracing{
		recorder: trace.Record(r, trace.Config{Time: listenTime}),
		cancel:   cancel, quiet: make(chan struct{}),
	}
	began := time.Now()
	o.mu.Lock()
	o.tracings[t] = true
	if o.closed {
		cancel()
	}
	o.mu.Unlock()
	o.builds.Go(func() {
		defer o.traced(t)
		old := o.loadTrace(ctx, spec)
		if len(old.Ranges) > 0 {
			if err := trace.Replay(ctx, r, old, 0); err != nil && ctx.Err() == nil {
				o.log.Warn("what a disk will need could not be fetched ahead", "key", spec.Key, "err", err)
			}
		}
		close(t.quiet)
		timer := time.NewTimer(listenTime - time.Since(began))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		t.recorder.Stop()
		o.storeTrace(context.WithoutCancel(ctx), spec, old, t.recorder.Trace())
	})
	return t
}

// traced ends a tracing.
func (o *Opener) traced(t *tracing) {
	t.cancel()
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.tracings, t)
}

// stop ends the replay, and has the trace stored by and by.
func (t *tracing) stop() error {
	t.cancel()
	<-t.quiet
	return nil
}

// loadTrace returns the trace that is stored, or an empty one.
func (o *Opener) loadTrace(ctx context.Context, spec Spec) trace.Trace {
	data, err := o.traces.Load(ctx, spec.Far.Trace)
	var t trace.Trace
	if err == nil {
		t, err = trace.Decode(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		o.log.Warn("the trace of a disk is not used", "key", spec.Key, "err", err)
	}
	return t
}

// storeTrace stores old with what was read this time, if that was a boot.
func (o *Opener) storeTrace(ctx context.Context, spec Spec, old, boot trace.Trace) {
	if n := boot.Bytes(); n < minTrace || n < old.Bytes()/4 && boot.Size == old.Size {
		return
	}
	data := trace.Merge(old, boot).Encode()
	if len(data) == 0 || bytes.Equal(data, old.Encode()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := o.traces.Store(ctx, spec.Far.Trace, data); err != nil {
		o.log.Warn("the trace of a disk could not be stored", "key", spec.Key, "err", err)
	}
}
