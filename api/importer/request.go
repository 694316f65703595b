package importer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/catalog"
)

// A lock whose task has not moved for so long is not believed.
const staleAfter = time.Hour

// A Request is one import.
type Request struct {
	Image          string
	Method         string
	URI            string         // of Web
	From           Source         // of Glance
	Stores         []string       // to fill, in this order
	AllMustSucceed bool           // what one store fails at takes back the others
	Body           map[string]any // the request as the client wrote it, for the task

	Type  string         // of the task; "": TaskType
	Input map[string]any // what else its input says

	Owner, UserID, RequestID string // of the task
}

// A job is an import as its task tells it.
type job struct {
	task           string
	image          string
	method         string
	uri            string
	stores         []string
	allMustSucceed bool

	failed []string // stores that it did not get into

	from    Source               // without a token after a restart
	size    int64                // of the image there
	restore func(*catalog.Image) // puts back what was taken from its record; nil: nothing was
}

func (r Request) input() map[string]any {
	stores := make([]any, len(r.Stores))
	for i, s := range r.Stores {
		stores[i] = s
	}
	in := map[string]any{"image_id": r.Image, "import_req": r.Body, "backend": stores}
	for key, value := range r.Input {
		if _, ok := in[key]; !ok {
			in[key] = value
		}
	}
	return in
}

// jobOf reads a job back from its task.
func jobOf(t catalog.Task) (*job, error) {
	req, _ := t.Input["import_req"].(map[string]any)
	method, _ := req["method"].(map[string]any)
	j := &job{task: t.ID, image: t.ImageID, allMustSucceed: true}
	j.method, _ = method["name"].(string)
	j.uri, _ = method["uri"].(string)
	j.from.Image, _ = method["glance_image_id"].(string)
	j.from.Region, _ = method["glance_region"].(string)
	if all, ok := req["all_stores_must_succeed"].(bool); ok {
		j.allMustSucceed = all
	}
	list, _ := t.Input["backend"].([]any)
	for _, s := range list {
		if name, ok := s.(string); ok {
			j.stores = append(j.stores, name)
		}
	}
	if j.method == "" || len(j.stores) == 0 {
		return nil, fmt.Errorf("task %s does not say what to import: %w", t.ID, fs.ErrInvalid)
	}
	return j, nil
}

// Start takes the lock of an image, makes the task, and lets the import go on
// behind it. An image in the wrong status is a catalog.StatusError.
func (m *Importer) Start(ctx context.Context, req Request) (catalog.Task, error) {
	id := uuid.NewString()
	if err := m.begin(id); err != nil {
		return catalog.Task{}, err
	}
	task, err := m.prepare(ctx, id, req)
	if err != nil {
		m.over(id)
		return catalog.Task{}, err
	}
	m.launch(&job{
		task: id, image: req.Image, method: req.Method, uri: req.URI, from: req.From,
		stores: slices.Clone(req.Stores), allMustSucceed: req.AllMustSucceed,
	})
	return task, nil
}

// prepare writes down the task and then the lock, in this order, so that
// whatever a crash leaves is found by way of the task.
func (m *Importer) prepare(ctx context.Context, id string, req Request) (catalog.Task, error) {
	task, err := m.cfg.Catalog.CreateTask(ctx, catalog.Task{
		ID: id, Type: cmp.Or(req.Type, TaskType), Status: catalog.TaskPending, Owner: req.Owner, ImageID: req.Image,
		RequestID: req.RequestID, UserID: req.UserID, Gateway: m.cfg.GatewayID, Input: req.input(),
	})
	if err != nil {
		return task, err
	}
	_, err = m.cfg.Catalog.UpdateImage(ctx, req.Image, func(img *catalog.Image) error {
		if err := m.mayLock(ctx, img, req.Method); err != nil {
			return err
		}
		if req.Method != Copy {
			img.Status = catalog.StatusImporting
		}
		set(img, lockKey, id)
		set(img, remainingKey, m.names(req.Stores))
		set(img, failedKey, "")
		return nil
	})
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if e := m.cfg.Catalog.DeleteTask(ctx, id); e != nil && !errors.Is(e, fs.ErrNotExist) {
			m.log.WarnContext(ctx, "the task of an import that was refused could not be removed; the next start ends it", "task", id, "err", e)
		}
	}
	return task, err
}

// names writes a list of stores for clients, who know no names of stores where
// there is one only.
func (m *Importer) names(stores []string) string {
	if m.cfg.OneStore {
		return ""
	}
	return strings.Join(stores, ",")
}

func set(img *catalog.Image, key, value string) {
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	img.Properties[key] = value
}

// Locked is an ErrLocked while an import of the image is under way.
func (m *Importer) Locked(ctx context.Context, img *catalog.Image) error {
	lock := img.Properties[lockKey]
	if lock == "" {
		return nil
	}
	t, err := m.cfg.Catalog.Task(ctx, lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stale := staleAfter
	if t.Status == catalog.TaskPending {
		stale *= 2
	}
	if !t.Status.Done() && m.cfg.Now().Sub(t.UpdatedAt) < stale {
		return fmt.Errorf("task %s: %w", lock, ErrLocked)
	}
	return nil
}

// mayLock tells whether an import may begin.
func (m *Importer) mayLock(ctx context.Context, img *catalog.Image, method string) error {
	want := map[string]catalog.Status{Direct: catalog.StatusUploading, Copy: catalog.StatusActive}[method]
	if want == "" {
		want = catalog.StatusQueued
	}
	if img.Status != want {
		return &catalog.StatusError{ID: img.ID, From: img.Status, To: catalog.StatusImporting}
	}
	if method == Direct && m.isStaging(img.ID) {
		return fmt.Errorf("its data is still being staged: %w", ErrLocked)
	}
	return m.Locked(ctx, img)
}
