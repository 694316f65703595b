package importer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// tidyEvery is how often Run looks for what crashes left.
const tidyEvery = time.Minute

// partialLife is how long data in a shared place may lie there unfinished: its
// client may be silent for long.
const partialLife = 24 * time.Hour

func admin() catalog.Viewer { return catalog.Viewer{Admin: true} }

// Recover goes on with the imports that the last run of this gateway left, and
// gives up the staging that it cut off. It is called once, before the doors
// open.
func (m *Importer) Recover(ctx context.Context) error {
	list, err := m.cfg.Catalog.Images(ctx, catalog.Query{
		Viewer: admin(), Visibility: catalog.VisibilityAll, Hidden: catalog.HiddenAny, Status: []catalog.Status{catalog.StatusUploading},
	})
	if err != nil {
		return fmt.Errorf("importer: list images: %w", err)
	}
	for _, img := range list {
		if !m.mine(&img) {
			continue
		}
		r, err := m.cfg.Staging.Open(ctx, img.ID)
		if err == nil {
			r.Close()
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = m.requeue(ctx, img.ID)
		}
		if err != nil {
			m.log.WarnContext(ctx, "what a stop cut off of staging could not be put in order", "image", img.ID, "err", err)
		}
	}
	return m.resume(ctx, func(t catalog.Task) bool { return t.Gateway == m.cfg.GatewayID })
}

// Run frees what crashes left, until ctx ends.
func (m *Importer) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := m.Tidy(ctx); err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "what imports left could not all be put in order; it is tried again", "err", err)
		}
	}
}

// Tidy takes over the imports of gateways that are gone, and removes staged
// data that no image waits for.
func (m *Importer) Tidy(ctx context.Context) error {
	gone, err := m.gone(ctx)
	if err == nil {
		err = m.resume(ctx, func(t catalog.Task) bool { return gone[t.Gateway] || t.Gateway == m.cfg.GatewayID })
	}
	return errors.Join(err, m.sweep(ctx))
}

// gone returns the gateways that have unfinished imports and were away for
// long enough.
func (m *Importer) gone(ctx context.Context) (map[string]bool, error) {
	there := map[string]bool{m.cfg.GatewayID: true}
	list, err := m.cfg.Catalog.Gateways(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		there[g.ID] = true
	}
	tasks, err := m.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	out, away := map[string]bool{}, map[string]time.Time{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range tasks {
		if there[t.Gateway] {
			continue
		}
		since, ok := m.away[t.Gateway]
		if !ok {
			since = m.cfg.Now()
		}
		away[t.Gateway] = since
		out[t.Gateway] = m.cfg.Now().Sub(since) >= m.cfg.DeadAfter
	}
	m.away = away
	return out, nil
}

func (m *Importer) unfinished(ctx context.Context) ([]catalog.Task, error) {
	tasks, err := m.cfg.Catalog.Tasks(ctx, catalog.TaskQuery{Viewer: admin()})
	if err != nil {
		return nil, fmt.Errorf("importer: list tasks: %w", err)
	}
	var out []catalog.Task
	for _, t := range tasks {
		if !t.Status.Done() && (t.Type == TaskType || t.Type == "import") {
			out = append(out, t)
		}
	}
	return out, nil
}

// resume goes on with unfinished imports that nobody works on.
func (m *Importer) resume(ctx context.Context, ours func(catalog.Task) bool) error {
	tasks, err := m.unfinished(ctx)
	var errs []error
	for _, t := range tasks {
		if !ours(t) {
			continue
		}
		if err := m.begin(t.ID); errors.Is(err, fs.ErrExist) {
			continue // it runs
		} else if err != nil {
			errs = append(errs, err)
			break
		}
		if err := m.adopt(ctx, t); err != nil {
			m.over(t.ID)
			errs = append(errs, fmt.Errorf("importer: go on with task %s: %w", t.ID, err))
		}
	}
	return errors.Join(append(errs, err)...)
}

// adopt makes a task this gateway's and runs it. One that never got its lock,
// or whose staged data is with a gateway that is gone, can only fail.
func (m *Importer) adopt(ctx context.Context, t catalog.Task) error {
	if from := t.Gateway; from != m.cfg.GatewayID {
		_, err := m.cfg.Catalog.UpdateTask(ctx, t.ID, func(t *catalog.Task) error {
			if t.Gateway != from || t.Status.Done() {
				return fs.ErrExist
			}
			t.Gateway = m.cfg.GatewayID
			return nil
		})
		if err != nil {
			return err
		}
		m.log.WarnContext(ctx, "an import of a gateway that is gone was taken over", "task", t.ID, "image", t.ImageID, "gateway", from)
	}
	j, err := jobOf(t)
	if err != nil {
		return m.bury(ctx, t, err)
	}
	m.launch(j)
	return nil
}

// bury ends a task that cannot be understood, and lets go of its image.
func (m *Importer) bury(ctx context.Context, t catalog.Task, cause error) error {
	if err := m.undo(ctx, &job{task: t.ID, image: t.ImageID}); err != nil {
		return err
	}
	_, err := m.cfg.Catalog.UpdateTask(ctx, t.ID, func(t *catalog.Task) error {
		t.Status, t.Message, t.ExpiresAt = catalog.TaskFailure, cause.Error(), m.cfg.Now().Add(m.cfg.TaskLife)
		return nil
	})
	if err == nil {
		m.over(t.ID)
	}
	return err
}

// sweep removes staged data that no image waits for.
func (m *Importer) sweep(ctx context.Context) error {
	var errs []error
	for e, err := range backends.List(ctx, m.cfg.Staging) {
		if err != nil {
			return fmt.Errorf("importer: list what is staged: %w", err)
		}
		if e.Modified.After(m.cfg.Now().Add(-tidyEvery)) || m.isStaging(e.Key) {
			continue
		}
		img, err := m.cfg.Catalog.Image(ctx, e.Key)
		waits := err == nil && (img.Status == catalog.StatusUploading || img.Status == catalog.StatusImporting)
		if waits && !e.Partial || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if e.Partial && (m.anyStaging() || m.cfg.Shared && e.Modified.After(m.cfg.Now().Add(-partialLife))) {
			continue // it may be one that is being written, here or by another gateway
		}
		if err := m.cfg.Staging.Delete(ctx, e.Key); err != nil {
			errs = append(errs, fmt.Errorf("importer: remove what was staged of image %s: %w", e.Key, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Importer) anyStaging() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.staging) > 0
}
