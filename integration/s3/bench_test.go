//go:build integration

package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// BenchmarkStore is the benchmarks that every store has.
func BenchmarkStore(b *testing.B) {
	for name, server := range kinds {
		b.Run(name, func(b *testing.B) {
			storetest.Benchmark(b, func(b *testing.B) backends.Store { return open(b, config(b, server(b))) })
		})
	}
}

// BenchmarkBeside measures a store beside minio-go alone, which checks no
// range and no digest of ours: what is read at a time is sequential or at
// random, in one goroutine or four.
func BenchmarkBeside(b *testing.B) {
	const size = 128 << 20
	for name, server := range kinds {
		b.Run(name, func(b *testing.B) {
			srv := server(b)
			cfg := config(b, srv)
			s, plain := open(b, cfg), minio.Core{Client: srv.Client(b)}
			if err := storetest.Put(b.Context(), s, "k", size, storetest.Bytes(1, size)); err != nil {
				b.Fatal(err)
			}
			r, err := s.Open(b.Context(), "k")
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			get := func(ctx context.Context, p []byte, off int64) error {
				var opts minio.GetObjectOptions
				if err := opts.SetRange(off, off+int64(len(p))-1); err != nil {
					return err
				}
				body, _, _, err := plain.GetObject(ctx, cfg.Bucket, "k", opts)
				if err != nil {
					return err
				}
				defer body.Close()
				_, err = io.ReadFull(body, p)
				return err
			}
			for _, n := range []int64{4 << 10, 512 << 10, 4 << 20, 32 << 20} {
				for _, workers := range []int{1, 4} {
					what := fmt.Sprintf("read-%dk-by-%d", n>>10, workers)
					b.Run(what+"/platter", func(b *testing.B) { reads(b, r.ReadAt, size, n, workers) })
					b.Run(what+"/minio-go", func(b *testing.B) { reads(b, get, size, n, workers) })
				}
			}
			b.Run("write-128m/platter", func(b *testing.B) { puts(b, s, cfg.Bucket, nil, size) })
			b.Run("write-128m/minio-go", func(b *testing.B) { puts(b, s, cfg.Bucket, plain.Client, size) })
		})
	}
}

func reads(b *testing.B, read func(ctx context.Context, p []byte, off int64) error, size, n int64, workers int) {
	b.SetBytes(n)
	b.ReportAllocs()
	b.SetParallelism(max(1, workers/2)) // of two processors
	if workers == 1 {
		p, rng := make([]byte, n), rand.New(rand.NewPCG(1, 1))
		for b.Loop() {
			if err := read(b.Context(), p, rng.Int64N(size/n)*n); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		p, rng := make([]byte, n), rand.New(rand.NewPCG(rand.Uint64(), 1))
		for pb.Next() {
			if err := read(b.Context(), p, rng.Int64N(size/n)*n); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func puts(b *testing.B, s backends.Store, bucket string, plain *minio.Client, size int) {
	data := storetest.Bytes(1, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if plain == nil {
			err = putInOrder(b.Context(), s, "w", data)
		} else {
			_, err = plain.PutObject(b.Context(), bucket, "w", struct{ io.Reader }{bytes.NewReader(data)}, int64(size),
				minio.PutObjectOptions{PartSize: 16 << 20, NumThreads: 4, ConcurrentStreamParts: true})
		}
		if err == nil {
			err = s.Delete(b.Context(), "w")
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// putInOrder writes by 1 MiB, as a copy from a network would.
func putInOrder(ctx context.Context, s backends.Store, key string, data []byte) error {
	w, err := s.Create(ctx, key, int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Abort()
	for rest := data; len(rest) > 0; rest = rest[min(len(rest), 1<<20):] {
		if _, err := w.Write(rest[:min(len(rest), 1<<20)]); err != nil {
			return err
		}
	}
	return w.Commit(ctx)
}
