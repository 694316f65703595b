package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// foreign writes an object that no record names.
func (b *bench) foreign(key, text string) {
	b.t.Helper()
	w, err := b.store.Create(b.t.Context(), key, -1)
	if err != nil {
		b.t.Fatal(err)
	}
	fmt.Fprint(w, text)
	if err := w.Commit(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// text returns what an object holds.
func (b *bench) text(key string) string {
	b.t.Helper()
	r, err := b.store.Open(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(block.ReaderAt(b.t.Context(), r), 0, r.Size()))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(got)
}

func (b *bench) location() catalog.Location {
	b.t.Helper()
	img, err := b.cat.Image(b.t.Context(), imageID)
	if err != nil || len(img.Locations) != 1 {
		b.t.Fatalf("%+v, %v", img, err)
	}
	return img.Locations[0]
}

func TestKeys(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	if err := b.in.Put(t.Context(), imageID, brokenBody(100), -1, ""); !errors.Is(err, ErrBody) {
		t.Fatal(err)
	}
	b.untouched()
	if err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(100)), -1, ""); err != nil {
		t.Fatal(err)
	}
	b.whole(noise(100))
	if l := b.location(); l.Key != imageID+"."+l.Generation {
		t.Errorf("the second attempt wrote to %s", l.Key)
	}
}

// late is a store whose objects others write too, so that a key is found to
// be taken at some moment.
type late struct {
	s    backends.Store
	when string // open, create or commit
	what func()
}

func (s *late) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if s.when == "open" && s.what != nil {
		s.what()
		s.what = nil
	}
	return s.s.Open(ctx, key)
}

func (s *late) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if s.when == "create" && s.what != nil {
		s.what()
		s.what = nil
	}
	w, err := s.s.Create(ctx, key, size)
	if err == nil && s.when == "commit" && s.what != nil {
		return &lateWriter{w, s}, nil
	}
	return w, err
}

func (s *late) Delete(ctx context.Context, key string) error { return s.s.Delete(ctx, key) }

type lateWriter struct {
	backends.Writer
	s *late
}

func (w *lateWriter) Commit(ctx context.Context) error {
	w.s.what()
	w.s.what = nil
	return w.Writer.Commit(ctx)
}

// TestForeign: an object of somebody else that has the image's name is never
// written over, never removed, and stops nobody.
func TestForeign(t *testing.T) {
	for _, when := range []string{"open", "create", "commit"} {
		t.Run(when, func(t *testing.T) {
			store := &late{when: when}
			b := simple(t, func(cfg *Config) {
				store.s = cfg.Stores["mem"]
				cfg.Stores["mem"] = store
				cfg.Grace = time.Hour
			})
			store.what = func() { b.foreign(imageID, "theirs") }
			b.image("raw")
			data := noise(3 * chunkSize)
			err := b.in.Put(t.Context(), imageID, bytes.NewReader(data), int64(len(data)), "")
			if when == "commit" { // it is too late for this body
				if !errors.Is(err, fs.ErrExist) {
					t.Fatalf("Put: %v, want fs.ErrExist", err)
				}
				err = b.in.Put(t.Context(), imageID, bytes.NewReader(data), int64(len(data)), "")
			}
			if err != nil {
				t.Fatal(err)
			}
			if l := b.location(); l.Key != imageID+"."+l.Generation || b.text(l.Key) != string(data) {
				t.Errorf("location %+v", l)
			}
			if _, err := b.cat.DeleteImage(t.Context(), imageID); err != nil {
				t.Fatal(err)
			}
			if _, err := b.in.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.noRecords()
			if keys := b.objects(); !slices.Equal(keys, []string{imageID}) || b.text(imageID) != "theirs" {
				t.Errorf("the store has %q", keys)
			}
		})
	}
}

// TestSweepSparesOverlays: what engines keep is theirs, and so is all of a
// store that cannot be listed.
func TestSweepSparesOverlays(t *testing.T) {
	b := simple(t, nil)
	b.foreign("platter/overlays/o/1-1", "segment")
	b.foreign("orphan", "x")
	time.Sleep(time.Millisecond)
	if rep, err := b.in.Sweep(t.Context()); err != nil || rep.Orphans != 1 {
		t.Errorf("Sweep: %+v, %v", rep, err)
	}
	if keys := b.objects(); !slices.Equal(keys, []string{"platter/overlays/o/1-1"}) {
		t.Errorf("the store has %q", keys)
	}
	far := newBench(t, memkv.New(), mem.New(), nil, func(cfg *Config) { cfg.Stores["mem"] = &late{s: cfg.Stores["mem"]} })
	far.foreign("theirs", "x")
	time.Sleep(time.Millisecond)
	if rep, err := far.in.Sweep(t.Context()); err != nil || rep.Orphans != 0 || far.text("theirs") != "x" {
		t.Errorf("Sweep of a store that is shared: %+v, %v", rep, err)
	}
}

// TestHooks: who wants to know of active images is told, once, and reads go
// where they are sent.
func TestHooks(t *testing.T) {
	var told []catalog.Image
	var read []catalog.Location
	var freed []string
	b := simple(t, nil)
	b.in.cfg.Freed = func(store, key string) { freed = append(freed, store+" "+key) }
	b.in.cfg.Activated = func(_ context.Context, img catalog.Image) { told = append(told, img) }
	b.in.cfg.Read = func(ctx context.Context, img catalog.Image, l catalog.Location) (block.ReadCloser, error) {
		read = append(read, l)
		return b.store.Open(ctx, l.Key)
	}
	b.image("raw")
	if err := b.in.Put(t.Context(), imageID, brokenBody(10), -1, ""); err == nil || len(told) != 0 {
		t.Fatalf("told of %v after %v", told, err)
	}
	if err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(100)), -1, ""); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0].Status != catalog.StatusActive || len(told[0].Locations) != 1 {
		t.Errorf("told of %+v", told)
	}
	b.whole(noise(100))
	if len(read) != 1 || read[0].Key != b.location().Key {
		t.Errorf("read %+v", read)
	}
	l := b.location()
	freed = nil // what the broken attempt left
	if _, err := b.cat.DeleteImage(t.Context(), imageID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.in.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(freed) != 1 || freed[0] != l.Store+" "+l.Key {
		t.Errorf("told that %q were freed, want %s %s", freed, l.Store, l.Key)
	}
}

// TestDeadGateway: the upload of a gateway that is gone is given up by one
// that runs, and its object is freed when nobody can be writing to it.
func TestDeadGateway(t *testing.T) {
	kv := memkv.NewManual()
	open := func(id string) *catalog.Catalog {
		cat, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: id, Clock: kv.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cat.Close() })
		return cat
	}
	dead, cat := open("dead"), open("gw")
	m, err := dead.Join(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, cat: cat, store: mem.New()}
	b.image("raw")
	if _, err := dead.BeginUpload(t.Context(), catalog.Upload{ID: "u", Image: imageID, Store: "mem"}); err != nil {
		t.Fatal(err)
	}
	b.foreign(imageID, "half") // what it had written
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if b.in, err = New(Config{Catalog: cat, Stores: map[string]backends.Store{"mem": b.store}, GatewayID: "gw"}); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if ups, err := cat.Uploads(t.Context()); err == nil && len(ups) == 1 {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("the upload is not seen")
		}
	}
	for i, want := range []Report{{}, {Abandoned: 1}, {Collected: 1}} {
		rep, err := b.in.Tidy(t.Context())
		if err != nil || rep != want {
			t.Errorf("round %d: %+v, %v; want %+v", i, rep, err, want)
		}
		kv.Advance(time.Minute + time.Second)
	}
	b.untouched()
}
