//go:build integration

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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

// BenchmarkBeside measures a store beside minio-go alone, which checks neither
// range nor ETag: reads at random offsets, and an object in parts.
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
				b.Run(fmt.Sprintf("read-%dk", n>>10), func(b *testing.B) {
					p, rng := make([]byte, n), rand.New(rand.NewPCG(1, 1))
					beside(b, n, func() error { return r.ReadAt(b.Context(), p, rng.Int64N(size/n)*n) },
						func() error { return get(b.Context(), p, rng.Int64N(size/n)*n) })
				})
			}
			data := storetest.Bytes(1, size)
			b.Run("write-128m", func(b *testing.B) {
				beside(b, size, func() error {
					return errors.Join(putInOrder(b.Context(), s, "ours", data), s.Delete(b.Context(), "ours"))
				},
					func() error {
						_, err := plain.Client.PutObject(b.Context(), cfg.Bucket, "theirs", struct{ io.Reader }{bytes.NewReader(data)}, size,
							minio.PutObjectOptions{PartSize: 16 << 20, NumThreads: 4, ConcurrentStreamParts: true})
						return errors.Join(err, s.Delete(b.Context(), "theirs"))
					})
			})
		})
	}
}

// beside lets both take turns, so that what else the machine does slows both,
// and reports the median of each and their ratio: above 1 ours is faster.
func beside(b *testing.B, n int64, ours, theirs func() error) {
	var took [2][]float64
	for b.Loop() {
		for i, f := range []func() error{ours, theirs} {
			began := time.Now()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began).Seconds())
		}
	}
	b.ReportMetric(0, "ns/op") // of both together says nothing
	var median [2]float64
	for i, who := range []string{"ours", "minio-go"} {
		slices.Sort(took[i])
		median[i] = took[i][len(took[i])/2]
		b.ReportMetric(median[i]*1e6, who+"-us")
		b.ReportMetric(float64(n)/median[i]/1e6, who+"-MB/s")
	}
	b.ReportMetric(median[1]/median[0], "ratio")
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
