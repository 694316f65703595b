package catalog_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A witness writes down what a Catalog tells.
type witness struct{ seen []string }

func (w *witness) note(kind, before, after string) {
	w.seen = append(w.seen, fmt.Sprintf("%s %s>%s", kind, before, after))
}

func (w *witness) ImageChanged(_ context.Context, before, after *catalog.Image) {
	w.note("image", status(before, func(i *catalog.Image) string { return string(i.Status) }), status(after, func(i *catalog.Image) string { return string(i.Status) }))
}

func (w *witness) MemberChanged(_ context.Context, before, after *catalog.Member) {
	w.note("member", status(before, func(m *catalog.Member) string { return string(m.Status) }), status(after, func(m *catalog.Member) string { return string(m.Status) }))
}

func (w *witness) TaskChanged(_ context.Context, before, after *catalog.Task) {
	w.note("task", status(before, func(t *catalog.Task) string { return string(t.Status) }), status(after, func(t *catalog.Task) string { return string(t.Status) }))
}

func status[T any](v *T, of func(*T) string) string {
	if v == nil {
		return "-"
	}
	return of(v)
}

// TestObserver: whatever changes an image, a member or a task here is told,
// once and in order; what fails and what others change is not.
func TestObserver(t *testing.T) {
	kv := memkv.New()
	w := &witness{}
	c, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: "a", Observer: w})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	img, err := c.CreateImage(ctx, catalog.Image{})
	u := catalog.Upload{ID: "u1", Image: img.ID, Store: "s"}
	steps := []error{err, second(c.CreateMember(ctx, catalog.Member{Image: img.ID, Project: "p"}))}
	steps = append(steps, second(c.BeginUpload(ctx, u)), c.AbandonUpload(ctx, u))
	u.ID = "u2"
	steps = append(steps, second(c.BeginUpload(ctx, u)),
		second(c.FinishUpload(ctx, u.ID, img.ID, catalog.Location{Store: "s", Key: "k"}, 1, nil, "", "", "")))
	steps = append(steps, second(c.PutMember(ctx, catalog.Member{Image: img.ID, Project: "p", Status: catalog.MemberAccepted})))
	task, err := c.CreateTask(ctx, catalog.Task{Type: "x", ExpiresAt: time.Now()})
	steps = append(steps, err, second(c.UpdateTask(ctx, task.ID, func(t *catalog.Task) error { t.Status = catalog.TaskFailure; return nil })),
		c.DeleteTask(ctx, task.ID), second(c.DeleteImage(ctx, img.ID)))
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if _, err := c.CreateImage(ctx, catalog.Image{ID: img.ID}); err == nil {
		t.Error("the id of a deleted image was free")
	}
	other, err := catalog.Open(ctx, kv, catalog.Config{GatewayID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.CreateImage(ctx, catalog.Image{}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"image ->queued", "member ->pending", "image queued>saving", "image saving>queued", "image queued>saving", "image saving>active",
		"member pending>accepted", "task ->pending", "task pending>failure", "task failure>-", "image active>-",
	}
	if !slices.Equal(w.seen, want) {
		t.Errorf("got  %q\nwant %q", w.seen, want)
	}
}

func second[T any](_ T, err error) error { return err }
