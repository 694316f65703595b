//go:build integration

package s3_test

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// heap watches how many bytes the garbage collector finds in use, and returns
// the most of them.
func heap(ctx context.Context) func() uint64 {
	ctx, cancel := context.WithCancel(ctx)
	most := make(chan uint64, 1)
	go func() {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		var max uint64
		for ctx.Err() == nil {
			metrics.Read(sample)
			if n := sample[0].Value.Uint64(); n > max {
				max = n
			}
			time.Sleep(20 * time.Millisecond)
		}
		most <- max
	}()
	return func() uint64 { cancel(); return <-most }
}

// TestLarge stores and copies a sparse object of unknown length: in little
// memory, and past the size that one CopyObject takes when there is time.
func TestLarge(t *testing.T) {
	size := ifSoak(int64(5<<30+3<<20+17), int64(1<<30+17))
	everywhere(t, func(t *testing.T, server servers.S3) {
		s := open(t, config(t, server))
		most := heap(t.Context())
		began := time.Now()
		w, err := s.Create(t.Context(), "large", -1)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		want := sha256.New()
		if err := pourSparse(io.MultiWriter(w, want), size); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		n := most()
		t.Logf("%d MiB written in %v, %d MiB of memory in use at most", size>>20, time.Since(began).Round(time.Millisecond), n>>20)
		if n > 128<<20 {
			t.Error("too much memory was in use")
		}
		began = time.Now()
		if err := backends.Copy(t.Context(), s, "copy", s, "large", func(int64) { t.Error("the bytes passed through here") }); err != nil {
			t.Fatal(err)
		}
		t.Logf("copied in %v", time.Since(began).Round(time.Millisecond))
		for _, key := range []string{"large", "copy"} {
			if got := digest(t, s, key, size); string(got.Sum(nil)) != string(want.Sum(nil)) {
				t.Errorf("%s has other bytes", key)
			}
		}
	})
}

// pourSparse writes size bytes: a MiB of data, seven of zeros, and so on.
func pourSparse(w io.Writer, size int64) error {
	data, zeros := storetest.Bytes(1, 1<<20), make([]byte, 7<<20)
	for n := int64(0); size > 0; n++ {
		p := zeros
		if n%2 == 0 {
			data[0], data[1] = byte(n), byte(n>>8)
			p = data
		}
		p = p[:min(int64(len(p)), size)]
		if _, err := w.Write(p); err != nil {
			return err
		}
		size -= int64(len(p))
	}
	return nil
}

func digest(t *testing.T, s backends.Store, key string, size int64) hash.Hash {
	t.Helper()
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Size() != size {
		t.Fatalf("%s has %d bytes, want %d", key, r.Size(), size)
	}
	began, h := time.Now(), sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(block.ReaderAt(t.Context(), r), 0, size)}, make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s read in %v", key, time.Since(began).Round(time.Millisecond))
	return h
}
