package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
)

// cleanupTime bounds what is done after a failure.
const cleanupTime = 20 * time.Second

// errLost is the end of an import whose lock somebody else has taken.
var errLost = errors.New("another import has taken the image since")

// run does an import to its end, or until ctx ends: then it goes on at the
// next start.
func (m *Importer) run(ctx context.Context, j *job) {
	_, err := m.cfg.Catalog.UpdateTask(ctx, j.task, func(t *catalog.Task) error {
		if t.Status.Done() || t.Gateway != m.cfg.GatewayID {
			return fs.ErrNotExist // somebody else has ended it, or runs it
		}
		t.Status = catalog.TaskProcessing
		return nil
	})
	if err == nil {
		p := m.watch(ctx, j)
		err = m.fill(ctx, j, p)
		p.end()
	} else if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if ctx.Err() != nil || errors.Is(err, catalog.ErrUnavailable) {
		return // Tidy goes on with it
	}
	m.finish(ctx, j, err)
}

// finish says what became of an import.
func (m *Importer) finish(ctx context.Context, j *job, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if cause != nil {
		if err := m.undo(ctx, j); err != nil {
			m.log.WarnContext(ctx, "what an import that failed leaves could not be put in order; the next start tries again", "task", j.task, "image", j.image, "err", err)
			return
		}
	}
	if j.method == Direct && !errors.Is(cause, errLost) {
		if err := m.cfg.Staging.Delete(ctx, j.image); err != nil {
			m.log.WarnContext(ctx, "staged data could not be removed; the sweeper tries again", "image", j.image, "err", err)
		}
	}
	_, err := m.cfg.Catalog.UpdateTask(ctx, j.task, func(t *catalog.Task) error {
		t.ExpiresAt = m.cfg.Now().Add(m.cfg.TaskLife)
		if cause != nil {
			t.Status, t.Message = catalog.TaskFailure, cause.Error()
			return nil
		}
		t.Status, t.Result = catalog.TaskSuccess, map[string]any{"image_id": j.image}
		return nil
	})
	if err != nil {
		m.log.WarnContext(ctx, "the end of an import could not be written down; the next start does so", "task", j.task, "err", err)
	}
	m.log.InfoContext(ctx, "an import is over", "task", j.task, "image", j.image, "method", j.method, "err", cause)
}

// fill brings the bytes into every store that lacks them.
func (m *Importer) fill(ctx context.Context, j *job, p *progress) error {
	var why error
	if j.method == Glance {
		img, err := m.held(ctx, j)
		if err == nil && len(img.Locations) == 0 {
			err = m.copyRecord(ctx, j)
		}
		if err != nil {
			return err
		}
	}
	for i, store := range j.stores {
		img, err := m.held(ctx, j)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(img.Locations, func(l catalog.Location) bool { return l.Store == store }) {
			continue // an earlier life has done this one
		}
		if len(img.Locations) > 0 {
			err = m.cfg.Bytes.CopyTo(ctx, j.image, store, p.moved)
		} else {
			body, size, cannot := m.source(ctx, j)
			if cannot != nil { // no other store would get it either
				j.failed = append(j.failed, j.stores[i:]...)
				return cannot
			}
			p.total.Store(max(size, 0))
			err = m.cfg.Bytes.Fill(ctx, j.image, &counted{body, p}, size, store)
			body.Close() // it was read to its end, or is not wanted
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, catalog.ErrGone):
			return err
		case err != nil:
			why = fmt.Errorf("store %s: %w", store, err)
			j.failed = append(j.failed, store)
			if j.allMustSucceed {
				return why
			}
			m.log.WarnContext(ctx, "an import did not get into a store; the others follow", "task", j.task, "image", j.image, "store", store, "err", err)
		}
		if err := m.note(ctx, j, store); err != nil {
			return err
		}
	}
	return m.complete(ctx, j, why)
}

// held returns the image, if it still is this import's.
func (m *Importer) held(ctx context.Context, j *job) (catalog.Image, error) {
	img, err := m.cfg.Catalog.Image(ctx, j.image)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return img, fmt.Errorf("image %s was deleted: %w", j.image, catalog.ErrGone)
	case err != nil:
		return img, err
	case img.Properties[lockKey] != j.task:
		return img, errLost
	}
	return img, nil
}

// note writes down that one store is done with. Where one is enough, the image
// is active from the first that has it.
func (m *Importer) note(ctx context.Context, j *job, store string) error {
	img, err := m.held(ctx, j)
	if err != nil {
		return err
	}
	f := func(img *catalog.Image) {
		rest := strings.Split(img.Properties[remainingKey], ",")
		set(img, remainingKey, strings.Join(slices.DeleteFunc(rest, func(s string) bool { return s == store }), ","))
		set(img, failedKey, m.names(j.failed))
	}
	if !j.allMustSucceed && img.Status == catalog.StatusImporting && len(img.Locations) > 0 {
		return m.cfg.Bytes.Activate(ctx, j.image, f)
	}
	_, err = m.cfg.Catalog.UpdateImage(ctx, j.image, func(img *catalog.Image) error {
		f(img)
		return nil
	})
	return err
}

// complete makes the image active and lets go of it.
func (m *Importer) complete(ctx context.Context, j *job, why error) error {
	img, err := m.held(ctx, j)
	if err != nil {
		return err
	}
	if len(img.Locations) == 0 {
		return why
	}
	if len(j.failed) == len(j.stores) { // of an active image
		return why
	}
	release := func(img *catalog.Image) {
		delete(img.Properties, lockKey)
		delete(img.Properties, stageKey)
		set(img, remainingKey, "")
		set(img, failedKey, m.names(j.failed))
	}
	if img.Status == catalog.StatusImporting {
		return m.cfg.Bytes.Activate(ctx, j.image, release)
	}
	_, err = m.cfg.Catalog.UpdateImage(ctx, j.image, func(img *catalog.Image) error {
		release(img)
		return nil
	})
	return err
}

// undo takes back what an import did that failed: the image is queued again,
// or, if it was active before, has the copies that it had.
func (m *Importer) undo(ctx context.Context, j *job) error {
	img, err := m.cfg.Catalog.Image(ctx, j.image)
	if errors.Is(err, fs.ErrNotExist) || err == nil && img.Properties[lockKey] != j.task {
		return nil
	}
	if err != nil {
		return err
	}
	release := func(img *catalog.Image) {
		if img.Properties[lockKey] != j.task {
			return
		}
		delete(img.Properties, lockKey)
		delete(img.Properties, stageKey)
		set(img, remainingKey, "")
		set(img, failedKey, m.names(j.failed))
		if j.restore != nil {
			j.restore(img)
		}
	}
	if img.Status == catalog.StatusImporting {
		_, err = m.cfg.Catalog.Requeue(ctx, j.image, release)
		return err
	}
	if j.method == Copy && j.allMustSucceed {
		for _, store := range j.stores {
			if _, err := m.cfg.Catalog.RemoveLocation(ctx, j.image, store); err != nil && !errors.Is(err, fs.ErrNotExist) {
				// It is a good copy, if an unwanted one.
				m.log.WarnContext(ctx, "a copy that was to be taken back stays", "image", j.image, "store", store, "err", err)
			}
		}
	}
	_, err = m.cfg.Catalog.UpdateImage(ctx, j.image, func(img *catalog.Image) error {
		release(img)
		return nil
	})
	return err
}

// source opens where the bytes come from.
func (m *Importer) source(ctx context.Context, j *job) (io.ReadCloser, int64, error) {
	if j.method == Glance {
		body, err := m.cfg.Remote.open(ctx, j.from, j.size)
		return body, j.size, err
	}
	if j.method == Web {
		if m.cfg.Fetch == nil {
			return nil, 0, fmt.Errorf("web-download is not enabled here: %w", errors.ErrUnsupported)
		}
		return m.cfg.Fetch.Open(ctx, j.uri)
	}
	r, err := m.cfg.Staging.Open(ctx, j.image)
	if err != nil {
		return nil, 0, fmt.Errorf("the staged data of image %s cannot be read; stage it again: %w", j.image, err)
	}
	return staged{io.NewSectionReader(block.ReaderAt(ctx, r), 0, r.Size()), r}, r.Size(), nil
}

// staged is what was staged, from its beginning.
type staged struct {
	io.Reader
	io.Closer
}

// A progress is how far an import is.
type progress struct {
	done, total atomic.Int64
	stop        context.CancelFunc
	over        chan struct{}
}

func (p *progress) moved(n int64) { p.done.Add(n) }

// end stops the notes.
func (p *progress) end() {
	p.stop()
	<-p.over
}

type counted struct {
	r io.Reader
	p *progress
}

// Read reads.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.moved(int64(n))
	return n, err
}

// watch writes down how far an import is, now and then and at its end.
func (m *Importer) watch(ctx context.Context, j *job) *progress {
	p := &progress{over: make(chan struct{})}
	ctx, p.stop = context.WithCancel(ctx)
	go func() { // end waits for it
		defer close(p.over)
		tick := time.NewTicker(m.cfg.Every)
		defer tick.Stop()
		for told, more := int64(0), true; more; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				more = false
			}
			if n := p.done.Load(); n != told {
				told = n
				m.tell(context.WithoutCancel(ctx), j, p)
			}
		}
	}()
	return p
}

func (m *Importer) tell(ctx context.Context, j *job, p *progress) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	_, err := m.cfg.Catalog.UpdateTask(ctx, j.task, func(t *catalog.Task) error {
		t.Progress = catalog.Progress{Done: p.done.Load(), Total: p.total.Load()}
		t.Message = fmt.Sprintf("Copied %d MiB", p.done.Load()>>20)
		return nil
	})
	if err != nil {
		m.log.DebugContext(ctx, "how far an import is could not be written down", "task", j.task, "err", err)
	}
}
