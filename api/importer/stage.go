package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// host is how this gateway is named in records of what it has staged: by its
// id, and its URL if others can reach it.
func (m *Importer) host() string { return strings.TrimSpace(m.cfg.GatewayID + " " + m.cfg.SelfURL) }

// mine tells whether this gateway staged the data of img.
func (m *Importer) mine(img *catalog.Image) bool {
	id, _, _ := strings.Cut(img.Properties[stageKey], " ")
	return id == m.cfg.GatewayID
}

// StagedAt returns the URL of the gateway that has the staged data of img, if
// that is another one than this. Where that says no URL it is ErrElsewhere.
func (m *Importer) StagedAt(img *catalog.Image) (string, error) {
	id, url, _ := strings.Cut(img.Properties[stageKey], " ")
	if id == "" || m.mine(img) || m.cfg.Shared {
		return "", nil
	}
	if url == "" {
		return "", fmt.Errorf("%w (%s); send the import there, or give every gateway its import.self_url", ErrElsewhere, id)
	}
	return url, nil
}

func (m *Importer) isStaging(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.staging[id]
}

func (m *Importer) mark(id string, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if on {
		m.staging[id] = true
	} else {
		delete(m.staging, id)
	}
}

// Stage keeps body for a later import of the image id, which must be queued
// and is uploading afterwards. size is the number of bytes, or -1. After an
// error the image is queued again and no byte is kept.
func (m *Importer) Stage(ctx context.Context, id string, body io.Reader, size int64) error {
	if m.cfg.SizeCap > 0 && size > m.cfg.SizeCap {
		return fmt.Errorf("%w: an image may have %d bytes here", ingest.ErrTooBig, m.cfg.SizeCap)
	}
	host := m.host()
	m.mark(id, true)
	defer m.mark(id, false)
	_, err := m.cfg.Catalog.UpdateImage(ctx, id, func(img *catalog.Image) error {
		if img.Status != catalog.StatusQueued {
			return &catalog.StatusError{ID: id, From: img.Status, To: catalog.StatusUploading}
		}
		img.Status = catalog.StatusUploading
		set(img, stageKey, host)
		return nil
	})
	if err != nil {
		return err
	}
	n, err := m.keep(ctx, id, body, size)
	if err == nil {
		_, err = m.cfg.Catalog.UpdateImage(ctx, id, func(img *catalog.Image) error {
			if img.Status != catalog.StatusUploading {
				return &catalog.StatusError{ID: id, From: img.Status, To: catalog.StatusUploading}
			}
			img.Size = &n
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("image %s was deleted while its data was staged: %w", id, catalog.ErrGone)
		}
	}
	if err != nil {
		m.unstage(ctx, id)
	}
	return err
}

// keep writes body to the staging place and returns its length.
func (m *Importer) keep(ctx context.Context, id string, body io.Reader, size int64) (int64, error) {
	// What an earlier attempt left is nobody's: the status is ours.
	if err := m.cfg.Staging.Delete(ctx, id); err != nil {
		return 0, err
	}
	w, err := m.cfg.Staging.Create(ctx, id, size)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	limit := m.cfg.SizeCap
	if limit < 0 {
		limit = 1<<63 - 2
	}
	if size >= 0 {
		limit = min(limit, size)
	}
	n, err := io.Copy(&alive{m: m, ctx: ctx, id: id, w: w}, io.LimitReader(body, limit+1))
	switch {
	case err != nil:
		return 0, err
	case size >= 0 && n != size:
		return 0, fmt.Errorf("%w: %d bytes were announced", ingest.ErrBody, size)
	case n > limit:
		return 0, fmt.Errorf("%w: an image may have %d bytes here", ingest.ErrTooBig, m.cfg.SizeCap)
	}
	return n, w.Commit(ctx)
}

// Forget removes what was staged of an image that was deleted, if it is here.
func (m *Importer) Forget(ctx context.Context, id string) {
	if m.isStaging(id) {
		return // who stages it finds out
	}
	if err := m.cfg.Staging.Delete(ctx, id); err != nil {
		m.log.WarnContext(ctx, "what was staged of a deleted image could not be removed; the sweeper tries again", "image", id, "err", err)
	}
}

// unstage takes back what Stage did.
func (m *Importer) unstage(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := m.cfg.Staging.Delete(ctx, id)
	if e := m.requeue(ctx, id); err == nil {
		err = e
	}
	if err != nil {
		m.log.WarnContext(ctx, "what was staged of an image could not be taken back; the next start tries again", "image", id, "err", err)
	}
}

// requeue takes an image back to queued whose staging ended.
func (m *Importer) requeue(ctx context.Context, id string) error {
	_, err := m.cfg.Catalog.Requeue(ctx, id, func(img *catalog.Image) { delete(img.Properties, stageKey) })
	if _, ok := errors.AsType[*catalog.StatusError](err); ok || errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else has moved it on
	}
	return err
}

// alive stops the staging of an image that was deleted.
type alive struct {
	m      *Importer
	ctx    context.Context // io.Writer has no other way to carry it
	id     string
	w      backends.Writer
	looked time.Time
}

// Write writes.
func (a *alive) Write(p []byte) (int, error) {
	if now := a.m.cfg.Now(); now.Sub(a.looked) >= time.Second {
		a.looked = now
		if _, err := a.m.cfg.Catalog.Image(a.ctx, a.id); errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("image %s was deleted while its data was staged: %w", a.id, catalog.ErrGone)
		}
	}
	return a.w.Write(p)
}
