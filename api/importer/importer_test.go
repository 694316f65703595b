package importer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

const imageID = "11111111-2222-3333-4444-555555555555"

// A web is a Fetcher with one page.
type web struct {
	body string
	size int64
	err  error
	gate chan struct{} // nil, or what an Open waits for
	asks atomic.Int32
}

func (w *web) Check(uri string) error {
	if !strings.HasPrefix(uri, "http://") {
		return errors.New("no such scheme")
	}
	return nil
}

func (w *web) Open(ctx context.Context, _ string) (io.ReadCloser, int64, error) {
	w.asks.Add(1)
	if w.gate != nil {
		select {
		case <-w.gate:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	return io.NopCloser(strings.NewReader(w.body)), w.size, w.err
}

// full is a store that takes nothing.
type full struct{ backends.Store }

func (full) Create(context.Context, string, int64) (backends.Writer, error) {
	return nil, syscall.ENOSPC
}

// A room is a catalog with gateways on it.
type room struct {
	t       *testing.T
	kv      catalog.KV
	stores  map[string]backends.Store
	staging *mem.Store
	web     *web
}

func newRoom(t *testing.T) *room {
	return &room{
		t: t, kv: memkv.New(), staging: mem.New(), web: &web{body: "data", size: 4},
		stores: map[string]backends.Store{"a": mem.New(), "b": mem.New(), "full": full{mem.New()}},
	}
}

// A gate is one gateway.
type gateway struct {
	*Importer
	t   *testing.T
	cat *catalog.Catalog
	in  *ingest.Ingest
}

func (r *room) gateway(id string, change func(*Config)) *gateway {
	r.t.Helper()
	cat, err := catalog.Open(r.t.Context(), r.kv, catalog.Config{GatewayID: id})
	if err != nil {
		r.t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{Catalog: cat, GatewayID: id, Stores: r.stores, DefaultStore: "a"})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{Catalog: cat, Bytes: in, GatewayID: id, Staging: r.staging, Fetch: r.web, Every: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	g := &gateway{New(cfg), r.t, cat, in}
	r.t.Cleanup(func() { g.Close(); cat.Close() })
	return g
}

func (g *gateway) image() {
	g.t.Helper()
	_, err := g.cat.CreateImage(g.t.Context(), catalog.Image{ID: imageID, DiskFormat: "raw", ContainerFormat: "bare"})
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) record() catalog.Image {
	g.t.Helper()
	img, err := g.cat.Image(g.t.Context(), imageID)
	if err != nil {
		g.t.Fatal(err)
	}
	return img
}

// wait returns a task that has ended.
func (g *gateway) wait(id string) catalog.Task {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		t, err := g.cat.Task(g.t.Context(), id)
		if err == nil && t.Status.Done() {
			return t
		}
		if time.Now().After(end) {
			g.t.Fatalf("the task does not end: %+v, %v", t, err)
		}
	}
}

func (g *gateway) start(method string, all bool, stores ...string) (catalog.Task, error) {
	body := map[string]any{
		"method": map[string]any{"name": method, "uri": "http://x/"}, "all_stores_must_succeed": all,
	}
	return g.Start(g.t.Context(), Request{Image: imageID, Method: method, URI: "http://x/", Stores: stores, AllMustSucceed: all, Body: body, Owner: "p"})
}

func (g *gateway) do(method string, all bool, stores ...string) catalog.Task {
	g.t.Helper()
	t, err := g.start(method, all, stores...)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.wait(t.ID)
}

func read(t *testing.T, r block.Reader) string {
	t.Helper()
	p := make([]byte, r.Size())
	if err := r.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// check looks at an image: its status, the stores that have its bytes, and
// that these are what they must be.
func (g *gateway) check(r *room, status catalog.Status, stores, failed string) {
	g.t.Helper()
	img := g.record()
	var have []string
	for _, l := range img.Locations {
		have = append(have, l.Store)
		o, err := r.stores[l.Store].Open(g.t.Context(), l.Key)
		if err != nil {
			g.t.Fatal(err)
		}
		if got := read(g.t, o); got != "data" {
			g.t.Errorf("store %s has %q", l.Store, got)
		}
		o.Close()
	}
	if img.Status != status || strings.Join(have, ",") != stores {
		g.t.Errorf("the image is %s in %v, want %s in %s", img.Status, have, status, stores)
	}
	if img.Properties[failedKey] != failed || img.Properties[remainingKey] != "" {
		g.t.Errorf("failed: %q, want %q; remaining: %q", img.Properties[failedKey], failed, img.Properties[remainingKey])
	}
	if lock, ok := img.Properties[lockKey]; ok {
		g.t.Errorf("the lock of task %s is left", lock)
	}
	if status == catalog.StatusActive && (*img.Size != 4 || img.Checksum == "" || img.HashValue == "") {
		g.t.Errorf("its facts are %+v", img)
	}
}

func TestDirect(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	if _, err := g.start(Direct, true, "a"); err == nil {
		t.Error("what was not staged is imported")
	}
	if err := g.Stage(t.Context(), imageID, strings.NewReader("dat"), 4); !errors.Is(err, ingest.ErrBody) {
		t.Errorf("a body that is too short: %v", err)
	}
	if err := g.Stage(t.Context(), imageID, strings.NewReader("data!"), 4); !errors.Is(err, ingest.ErrBody) && err == nil {
		t.Errorf("a body that is too long: %v", err)
	}
	if img := g.record(); img.Status != catalog.StatusQueued || img.Properties[stageKey] != "" {
		t.Errorf("after failures it is %s, %v", img.Status, img.Properties)
	}
	if err := g.Stage(t.Context(), imageID, strings.NewReader("data"), -1); err != nil {
		t.Fatal(err)
	}
	if img := g.record(); img.Status != catalog.StatusUploading || *img.Size != 4 {
		t.Errorf("staged it is %+v", img)
	}
	var status *catalog.StatusError
	if err := g.Stage(t.Context(), imageID, strings.NewReader("more"), -1); !errors.As(err, &status) {
		t.Errorf("staged twice: %v", err)
	}
	task := g.do(Direct, true, "a", "b")
	if task.Status != catalog.TaskSuccess || task.Result["image_id"] != imageID || task.ExpiresAt.IsZero() {
		t.Errorf("the task is %+v", task)
	}
	g.check(r, catalog.StatusActive, "a,b", "")
	if _, err := r.staging.Open(t.Context(), imageID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("staged data stays: %v", err)
	}
	if _, err := g.start(Copy, true, "b"); err != nil {
		t.Errorf("the next import: %v", err) // the store has it: nothing to do
	}
}

func TestTooBig(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", func(c *Config) { c.SizeCap = 3 })
	g.image()
	for _, size := range []int64{-1, 4} {
		if err := g.Stage(t.Context(), imageID, strings.NewReader("data"), size); !errors.Is(err, ingest.ErrTooBig) {
			t.Errorf("4 bytes, announced %d: %v", size, err)
		}
	}
	g.check(r, catalog.StatusQueued, "", "")
}

func TestWeb(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	r.web.err = errors.New("it does not answer")
	if task := g.do(Web, true, "a"); task.Status != catalog.TaskFailure || !strings.Contains(task.Message, "does not answer") {
		t.Errorf("the task is %+v", task)
	}
	g.check(r, catalog.StatusQueued, "", "a")
	r.web.err = nil
	if task := g.do(Web, true, "a", "full"); task.Status != catalog.TaskFailure {
		t.Errorf("into a full store: %+v", task)
	}
	g.check(r, catalog.StatusQueued, "", "full")
	if task := g.do(Web, false, "full", "b", "a"); task.Status != catalog.TaskSuccess {
		t.Errorf("where some may fail: %+v", task)
	}
	g.check(r, catalog.StatusActive, "b,a", "full")
	if _, err := g.in.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range backends.List(t.Context(), r.stores["a"]) {
		n++
	}
	if n != 1 {
		t.Errorf("store a has %d objects", n)
	}
}

func TestAllFail(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	if task := g.do(Web, false, "full"); task.Status != catalog.TaskFailure {
		t.Errorf("the task is %+v", task)
	}
	g.check(r, catalog.StatusQueued, "", "full")
}

func TestCopy(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	g.do(Web, true, "a")
	if task := g.do(Copy, true, "b", "full"); task.Status != catalog.TaskFailure {
		t.Errorf("into a full store: %+v", task)
	}
	g.check(r, catalog.StatusActive, "a", "full")
	if task := g.do(Copy, false, "full", "b"); task.Status != catalog.TaskSuccess {
		t.Errorf("where some may fail: %+v", task)
	}
	g.check(r, catalog.StatusActive, "a,b", "full")
}

// TestLock: one import at a time, unless its task is not to be believed.
func TestLock(t *testing.T) {
	r := newRoom(t)
	now := time.Now()
	var later atomic.Int64
	g := r.gateway("g", func(c *Config) { c.Now = func() time.Time { return now.Add(time.Duration(later.Load())) } })
	g.image()
	g.do(Web, true, "a")
	stuck, err := g.cat.CreateTask(t.Context(), catalog.Task{Type: TaskType, Status: catalog.TaskProcessing, ImageID: imageID, Gateway: "other"})
	if err != nil {
		t.Fatal(err)
	}
	lock := func(id string) {
		if _, err := g.cat.UpdateImage(t.Context(), imageID, func(i *catalog.Image) error { i.Properties[lockKey] = id; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	lock(stuck.ID)
	if _, err := g.start(Copy, true, "b"); !errors.Is(err, ErrLocked) {
		t.Errorf("while another one runs: %v", err)
	}
	later.Store(int64(2 * time.Hour))
	if task := g.do(Copy, true, "b"); task.Status != catalog.TaskSuccess {
		t.Errorf("after its task stood still: %+v", task)
	}
	lock("gone")
	if err := g.Locked(t.Context(), ptr(g.record())); err != nil {
		t.Errorf("a lock without a task: %v", err)
	}
}

func ptr[T any](v T) *T { return &v }

// TestResume: an import that a stop cut off goes on at the next start, and one
// whose gateway is gone is taken over.
func TestResume(t *testing.T) {
	r := newRoom(t)
	r.web.gate = make(chan struct{})
	first := r.gateway("g", nil)
	first.image()
	task, err := first.start(Web, true, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); r.web.asks.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	first.Close()
	if now, err := first.cat.Task(t.Context(), task.ID); err != nil || now.Status != catalog.TaskProcessing {
		t.Errorf("after the stop the task is %+v, %v", now, err)
	}
	if _, err := first.start(Web, true, "a"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("an import after Close: %v", err)
	}
	second := r.gateway("g", nil)
	close(r.web.gate)
	if err := second.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := second.wait(task.ID); got.Status != catalog.TaskSuccess {
		t.Errorf("gone on with, the task is %+v", got)
	}
	second.check(r, catalog.StatusActive, "a,b", "")
}

func TestTakeOver(t *testing.T) {
	r := newRoom(t)
	r.web.gate = make(chan struct{})
	dead := r.gateway("dead", nil)
	dead.image()
	task, err := dead.start(Web, true, "b")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	now := time.Now()
	var later atomic.Int64
	g := r.gateway("g", func(c *Config) { c.Now = func() time.Time { return now.Add(time.Duration(later.Load())) } })
	close(r.web.gate)
	for range 2 {
		if err := g.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := g.cat.Task(t.Context(), task.ID); later.Load() == 0 && (err != nil || got.Gateway != "dead") {
			t.Errorf("taken over at once: %+v, %v", got, err)
		}
		later.Store(int64(4 * time.Minute))
	}
	if got := g.wait(task.ID); got.Status != catalog.TaskSuccess || got.Gateway != "g" {
		t.Errorf("taken over, the task is %+v", got)
	}
	g.check(r, catalog.StatusActive, "b", "")
}

// TestDeleted: an image that is deleted meanwhile ends its import, and leaves
// nothing.
func TestDeleted(t *testing.T) {
	r := newRoom(t)
	r.web.gate = make(chan struct{})
	g := r.gateway("g", nil)
	g.image()
	task, err := g.start(Web, true, "a")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); r.web.asks.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if _, err := g.cat.DeleteImage(t.Context(), imageID); err != nil {
		t.Fatal(err)
	}
	close(r.web.gate)
	if got := g.wait(task.ID); got.Status != catalog.TaskFailure {
		t.Errorf("the task is %+v", got)
	}
	if _, err := g.in.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e := range backends.List(t.Context(), r.stores["a"]) {
		t.Errorf("store a has %s", e.Key)
	}
}

// TestMalformed: a task that says nothing ends, and lets go of its image.
func TestMalformed(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	task, err := g.cat.CreateTask(t.Context(), catalog.Task{Type: TaskType, Status: catalog.TaskPending, ImageID: imageID, Gateway: "g"})
	if err == nil {
		_, err = g.cat.UpdateImage(t.Context(), imageID, func(i *catalog.Image) error {
			i.Status, i.Properties = catalog.StatusImporting, map[string]string{lockKey: task.ID}
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := g.wait(task.ID); got.Status != catalog.TaskFailure {
		t.Errorf("the task is %+v", got)
	}
	g.check(r, catalog.StatusQueued, "", "")
}

// TestStagedElsewhere: where the staged data is follows from the image.
func TestStagedElsewhere(t *testing.T) {
	r := newRoom(t)
	one := r.gateway("one", func(c *Config) { c.SelfURL = "http://one" })
	two := r.gateway("two", nil)
	one.image()
	if err := one.Stage(t.Context(), imageID, strings.NewReader("data"), 4); err != nil {
		t.Fatal(err)
	}
	img := one.record()
	if url, err := one.StagedAt(&img); url != "" || err != nil {
		t.Errorf("at home: %q, %v", url, err)
	}
	if url, err := two.StagedAt(&img); url != "http://one" || err != nil {
		t.Errorf("elsewhere: %q, %v", url, err)
	}
	moved := r.gateway("one", func(c *Config) { c.SelfURL = "http://elsewhere" })
	if url, err := moved.StagedAt(&img); url != "" || err != nil {
		t.Errorf("at home after a move: %q, %v", url, err)
	}
	sharing := r.gateway("three", func(c *Config) { c.Shared = true })
	if url, err := sharing.StagedAt(&img); url != "" || err != nil {
		t.Errorf("in a shared place: %q, %v", url, err)
	}
	if _, err := one.StagedAt(&catalog.Image{Properties: map[string]string{stageKey: two.host()}}); !errors.Is(err, ErrElsewhere) {
		t.Errorf("at a gateway without a URL: %v", err)
	}
}

// TestSweep: staged data that no image waits for goes away.
func TestSweep(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	g.image()
	if err := g.Stage(t.Context(), imageID, strings.NewReader("data"), 4); err != nil {
		t.Fatal(err)
	}
	w, err := r.staging.Create(t.Context(), "left-by-a-crash", 4)
	if err == nil {
		_, err = io.Copy(w, bytes.NewReader([]byte("data")))
	}
	if err == nil {
		err = w.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e := range backends.List(t.Context(), r.staging) {
		if e.Key != imageID {
			t.Errorf("%s is left", e.Key)
		}
	}
	if _, err := g.cat.DeleteImage(t.Context(), imageID); err != nil {
		t.Fatal(err)
	}
	g.Forget(t.Context(), imageID)
	for e := range backends.List(t.Context(), r.staging) {
		t.Errorf("%s is left", e.Key)
	}
}

// TestCutStaging: an image whose staging a crash cut off is queued again.
func TestCutStaging(t *testing.T) {
	r := newRoom(t)
	g := r.gateway("g", nil)
	g.image()
	if err := g.Stage(t.Context(), imageID, strings.NewReader("data"), 4); err != nil {
		t.Fatal(err)
	}
	if err := g.Recover(t.Context()); err != nil || g.record().Status != catalog.StatusUploading {
		t.Errorf("whole: %s, %v", g.record().Status, err)
	}
	if err := r.staging.Delete(t.Context(), imageID); err != nil {
		t.Fatal(err)
	}
	if err := g.Recover(t.Context()); err != nil || g.record().Status != catalog.StatusQueued {
		t.Errorf("cut off: %s, %v", g.record().Status, err)
	}
}
