package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// A cachedPlace is a gateway's cache with a far and a near store.
type cachedPlace struct {
	*imageCache
	t    *testing.T
	file string

	mu   sync.Mutex
	away error // what the far store answers
}

func newCachedPlace(t *testing.T) *cachedPlace {
	t.Helper()
	cat, err := catalog.Open(t.Context(), memkv.New(), catalog.Config{GatewayID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	c, err := cache.Open(cache.Config{Dir: t.TempDir(), Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	p := &cachedPlace{t: t, file: filepath.Join(t.TempDir(), "queue.json")}
	cold := mem.New()
	p.imageCache = &imageCache{log: slog.New(slog.DiscardHandler), places: &places{byName: "near", cache: c, catalog: cat, stores: []*place{
		distant("cold", func(context.Context) (backends.Store, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return cold, p.away
		}),
		{name: "near", cfg: config.Store{Type: "file"}, store: mem.New()},
	}}}
	p.read()
	t.Cleanup(func() {
		if err := p.places.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// read reads the notes, as a gateway does that starts.
func (p *cachedPlace) read() {
	p.t.Helper()
	notes, err := readCacheNotes(p.file)
	if err != nil {
		p.t.Error(err)
	}
	p.notes = notes
}

// image makes an active image of size bytes in a store.
func (p *cachedPlace) image(store string, size int) catalog.Image {
	p.t.Helper()
	ctx := p.t.Context()
	img, err := p.catalog.CreateImage(ctx, catalog.Image{ID: uuid.NewString(), Visibility: catalog.VisibilityPrivate, DiskFormat: "raw", ContainerFormat: "bare"})
	if err != nil {
		p.t.Fatal(err)
	}
	up := catalog.Upload{ID: uuid.NewString(), Image: img.ID, Store: store, Key: img.ID}
	if _, err := p.catalog.BeginUpload(ctx, up); err != nil {
		p.t.Fatal(err)
	}
	w, err := p.all()[store].Create(ctx, up.Key, int64(size))
	if err == nil {
		_, err = w.Write(storetest.Bytes(1, size))
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	n := int64(size)
	img, err = p.catalog.FinishUpload(ctx, up.ID, img.ID, catalog.Location{Store: store, Key: up.Key, Generation: up.ID, Size: n}, n, &n, "", "sha512", "")
	if err != nil {
		p.t.Fatal(err)
	}
	return img
}

// work lets the queue be worked on until ok.
func (p *cachedPlace) work(what string, ok func() bool) {
	p.t.Helper()
	ctx, stop := context.WithCancel(p.t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Errorf("%s does not happen", what)
			break
		}
	}
	stop()
	done.Wait()
}

func (p *cachedPlace) state() ([]api.CachedImage, []string) {
	p.t.Helper()
	list, queued, err := p.State(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return list, queued
}

func (p *cachedPlace) queueEmpty() bool { return len(p.notes.waitingImages()) == 0 }

// TestCachedImages: what is queued comes whole, over a restart and when the
// store is back, is counted when it is opened, and goes again.
func TestCachedImages(t *testing.T) {
	p := newCachedPlace(t)
	first, second := p.image("cold", 3_000_001), p.image("cold", 1<<20)
	if err := errors.Join(p.Queue(first), p.Queue(second), p.Queue(first)); err != nil {
		t.Fatal(err)
	}
	if list, queued := p.state(); len(list) != 0 || !slices.Equal(queued, []string{first.ID, second.ID}) {
		t.Errorf("queued: %v, %v", list, queued)
	}
	p.read() // a restart
	began := time.Now()
	p.work("the queue's end", p.queueEmpty)
	list, queued := p.state()
	if len(list) != 2 || len(queued) != 0 || !p.Holds(first) || !p.Holds(second) {
		t.Fatalf("fetched: %+v, %v", list, queued)
	}
	p.used(first)
	p.used(first)
	if err := p.Queue(first); err != nil || !p.queueEmpty() {
		t.Errorf("what is there is queued: %v", err)
	}
	if err := p.notes.flush(); err != nil {
		t.Fatal(err)
	}
	p.read()
	for _, i := range only(p.state()) {
		hits := map[string]int64{first.ID: 2}[i.ImageID]
		if i.Hits != hits || i.Accessed.Before(i.Modified) || i.Modified.Before(began.Add(-time.Second)) || i.Size != map[string]int64{first.ID: 3_000_001, second.ID: 1 << 20}[i.ImageID] {
			t.Errorf("%+v", i)
		}
	}
	if found, err := p.Remove(t.Context(), first.ID, true, true); err != nil || !found {
		t.Errorf("removed: %v, %v", found, err)
	}
	if found, err := p.Remove(t.Context(), first.ID, true, true); err != nil || found {
		t.Errorf("removed twice: %v, %v", found, err)
	}
	if err := p.Queue(first); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Remove(t.Context(), "", true, false); err != nil {
		t.Fatal(err)
	}
	if list, queued := p.state(); len(list) != 0 || len(queued) != 1 {
		t.Errorf("without the cache: %+v, %v", list, queued)
	}
	if _, err := p.Remove(t.Context(), "", false, true); err != nil || !p.queueEmpty() {
		t.Errorf("without the queue: %v", err)
	}
}

func only[A, B any](a A, _ B) A { return a }

// TestCacheQueueRefusals: what can never be cached is not queued, what is gone
// leaves the queue, and a store that is away is waited for.
func TestCacheQueueRefusals(t *testing.T) {
	p := newCachedPlace(t)
	if err := p.Queue(p.image("near", 10)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("in a near store: %v", err)
	}
	large := p.image("cold", 10)
	size := int64(9 << 20)
	large.Size = &size
	if err := p.Queue(large); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("larger than the cache: %v", err)
	}
	gone := p.image("cold", 1<<20)
	if err := p.Queue(gone); err != nil {
		t.Fatal(err)
	}
	if _, err := p.catalog.DeleteImage(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	if err := p.Queue(p.image("cold", 0)); err != nil {
		t.Fatal(err)
	}
	p.work("that they leave the queue", p.queueEmpty)

	waits := p.image("cold", 1<<20)
	if err := p.Queue(waits); err != nil {
		t.Fatal(err)
	}
	id, tries, _ := p.notes.next(time.Now(), func() {})
	p.notes.failed(id, time.Now())
	if _, _, pause := p.notes.next(time.Now(), nil); id != waits.ID || tries != 0 || pause <= 0 || pause > firstRetry {
		t.Errorf("%s, %d tries, again in %v", id, tries, pause)
	}
	p.work("the second try", func() bool { return p.Holds(waits) })
}

// TestCacheQueueStops: what is taken out of the queue is fetched no further.
func TestCacheQueueStops(t *testing.T) {
	p := newCachedPlace(t)
	img := p.image("cold", 1<<20)
	if err := p.Queue(img); err != nil {
		t.Fatal(err)
	}
	stopped := false
	if id, _, _ := p.notes.next(time.Now(), func() { stopped = true }); id != img.ID {
		t.Errorf("next is %q", id)
	}
	if found, err := p.Remove(t.Context(), img.ID, false, true); err != nil || !found || !stopped {
		t.Errorf("removed %v, stopped %v, %v", found, stopped, err)
	}
	for range maxQueued {
		p.notes.queue = append(p.notes.queue, toFetch{image: uuid.NewString()})
	}
	if err := p.Queue(img); !errors.Is(err, api.ErrCacheQueueFull) {
		t.Errorf("a full queue: %v", err)
	}
}

// TestCacheNotesDamaged: a file that makes no sense is an empty queue.
func TestCacheNotesDamaged(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":7}`, `{"version":1,"queue":"x"}`} {
		file := filepath.Join(t.TempDir(), "queue.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := readCacheNotes(file)
		if err == nil || n == nil || len(n.queue) != 0 || n.add("x") != nil {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
}
