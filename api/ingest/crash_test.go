package ingest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// TestEveryStep lets every single step of an upload fail: before it is done,
// after it is done, for once or, as in a crash, with everything after it. In
// no case is half an image visible, and after a restart and a sweep nothing is
// left that no record names.
func TestEveryStep(t *testing.T) {
	for _, crash := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for step := 1; ; step++ {
				f := fault{step: step, after: after, crash: crash}
				reached := false
				t.Run(f.String(), func(t *testing.T) { reached = breakUpload(t, f) })
				if !reached {
					t.Logf("an upload has %d steps", step-1)
					break
				}
				if step > 200 {
					t.Fatal("an upload never comes to its end")
				}
			}
		}
	}
}

// breakUpload tells whether the upload came to the step that fails.
func breakUpload(t *testing.T, f fault) bool {
	kv, store, w := memkv.New(), mem.New(), &world{}
	data := noise(2*chunkSize + 5)
	b := newBench(t, &faultyKV{kv, w}, store, w, nil)
	b.in.cfg.RetryPause = time.Millisecond
	b.image("raw")
	w.mu.Lock()
	w.f, w.n = f, 0
	w.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- b.in.Put(t.Context(), imageID, bytes.NewReader(data), int64(len(data)), "") }()
	var err error
	select {
	case err = <-done:
	case <-time.After(time.Minute):
		t.Fatal("the upload hangs")
	}
	w.mu.Lock()
	broke := w.broke
	w.f, w.dead = fault{}, false
	w.mu.Unlock()
	if broke == "" {
		if err != nil {
			t.Fatal(err)
		}
		return false
	}
	b.cat.Close()

	// What everybody sees after the restart, before anything is mended.
	again := newBench(t, kv, store, nil, nil)
	img, e := again.cat.Image(t.Context(), imageID)
	if e != nil {
		t.Fatal(e)
	}
	switch {
	case img.Status == catalog.StatusActive:
		again.whole(data)
	case len(img.Locations) > 0 || img.Size != nil || img.Checksum != "":
		t.Fatalf("%s failed (%v), and half an image is visible: %+v", broke, err, img)
	}
	if err == nil && img.Status != catalog.StatusActive {
		t.Fatalf("%s failed, the client was told that all is well, and the image is %s", broke, img.Status)
	}
	if err := again.in.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond) // older than the grace period
	if _, err := again.in.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	again.noRecords()
	if img.Status == catalog.StatusActive {
		again.whole(data)
		return true
	}
	again.untouched()
	if err := again.in.Put(t.Context(), imageID, bytes.NewReader(data), -1, ""); err != nil {
		t.Fatalf("uploading again: %v", err)
	}
	again.whole(data)
	return true
}

func TestSweepSparesWhatIsNeeded(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	if err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(100)), -1, ""); err != nil {
		t.Fatal(err)
	}
	put := func(key string) {
		w, err := b.store.Create(t.Context(), key, -1)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "orphan")
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put("orphan/one")
	time.Sleep(time.Millisecond)
	young := newBenchOn(b, time.Hour)
	if rep, err := young.Sweep(t.Context()); err != nil || rep.Orphans != 0 {
		t.Errorf("within the grace period: %+v, %v", rep, err)
	}
	rep, err := b.in.Sweep(t.Context())
	if err != nil || rep.Orphans != 1 || rep.Bytes != 6 {
		t.Errorf("Sweep: %+v, %v; want one orphan of 6 bytes", rep, err)
	}
	b.whole(noise(100))
	if _, err := b.cat.DeleteImage(t.Context(), imageID); err != nil {
		t.Fatal(err)
	}
	if rep, err := b.in.Tidy(t.Context()); err != nil || rep.Collected != 1 {
		t.Errorf("after a delete: %+v, %v; want one collected", rep, err)
	}
	if keys := b.objects(); len(keys) > 0 {
		t.Errorf("the store has %q", keys)
	}
}

func newBenchOn(b *bench, grace time.Duration) *Ingest {
	in, err := New(Config{Catalog: b.cat, Stores: map[string]backends.Store{"mem": b.store}, GatewayID: "gw", Grace: grace})
	if err != nil {
		b.t.Fatal(err)
	}
	return in
}

// TestSweepDuringUpload: what is being written now is nobody's orphan.
func TestSweepDuringUpload(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	data := noise(2 << 20)
	src := &counter{r: bytes.NewReader(data), at: func(int64) {
		if _, err := b.in.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	if err := b.in.Put(t.Context(), imageID, src, -1, ""); err != nil {
		t.Fatal(err)
	}
	b.whole(data)
}

func TestKnownPartials(t *testing.T) {
	start := time.Now()
	k := known{keys: map[string]string{"a": "image a"}, oldest: start}
	for _, tt := range []struct {
		e    backends.Entry
		want bool
	}{
		{backends.Entry{Key: "a"}, true},
		{backends.Entry{Key: "b", Modified: start.Add(time.Hour)}, false},
		{backends.Entry{Key: "tmp", Partial: true, Modified: start.Add(time.Hour)}, true},
		{backends.Entry{Key: "tmp", Partial: true, Modified: start.Add(-time.Hour)}, false},
	} {
		if got := k.has(tt.e); got != tt.want {
			t.Errorf("has(%+v) = %t", tt.e, got)
		}
	}
}
