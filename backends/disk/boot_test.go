package disk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// A distant store has one object, computed from its offsets. Its answers begin
// after latency and share one line.
type distant struct {
	size    int64
	pattern []byte // what the object repeats
	latency time.Duration
	rate    int64 // bytes a second of the line

	bytes, reads, opened atomic.Int64
	mu                   sync.Mutex
	free                 time.Time // when the line is
}

func (d *distant) Open(context.Context, string) (block.ReadCloser, error) {
	d.opened.Add(1)
	return d, nil
}

func (d *distant) Create(context.Context, string, int64) (backends.Writer, error) {
	return nil, errors.ErrUnsupported
}
func (d *distant) Delete(context.Context, string) error { return errors.ErrUnsupported }
func (d *distant) Size() int64                          { return d.size }
func (d *distant) Close() error                         { return nil }

func (d *distant) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	d.bytes.Add(int64(len(p)))
	d.reads.Add(1)
	d.mu.Lock()
	start := time.Now().Add(d.latency)
	if d.free.After(start) {
		start = d.free
	}
	d.free = start.Add(time.Duration(float64(len(p)) / float64(d.rate) * float64(time.Second)))
	wait := time.Until(d.free)
	d.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	d.content(p, off)
	return nil
}

// content fills p with what the object has at off.
func (d *distant) content(p []byte, off int64) {
	for n := 0; n < len(p); {
		n += copy(p[n:], d.pattern[(off+int64(n))%int64(len(d.pattern)):])
	}
}

func newDistant(latency time.Duration, rate int64) *distant {
	// Of an odd length, so that no two places have the same.
	return &distant{size: 1 << 30, latency: latency, rate: rate, pattern: storetest.Bytes(9, 1<<20+4097)}
}

// A step is one read of a guest, and how long it thinks after it.
type step struct {
	off, n int64
	think  time.Duration
}

// recorded returns the steps of a real guest, as if it had booted in total.
func recorded(t testing.TB, total time.Duration) []step {
	t.Helper()
	f, err := os.Open("testdata/boot.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var steps []step
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var s step
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		if _, err := fmt.Sscan(lines.Text(), &s.off, &s.n); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, s)
	}
	return thinking(steps, total)
}

// larger returns the steps of a guest that starts a few hundred programs: some
// metadata of a file, in 4 KiB, then the file, as a kernel reads ahead.
func larger(total time.Duration) []step {
	rng := rand.New(rand.NewPCG(7, 7))
	var steps []step
	for range 350 {
		group := rng.Int64N(8) << 27
		for range 1 + rng.IntN(3) {
			steps = append(steps, step{off: group + 1<<20 + rng.Int64N(512)<<12, n: 4096})
		}
		at, rest := group+8<<20+rng.Int64N(25_000)<<12, int64(4096)<<rng.IntN(9)
		for n := int64(16 << 10); rest > 0; n = min(2*n, 128<<10) {
			steps = append(steps, step{off: at, n: min(n, rest)})
			at, rest = at+min(n, rest), rest-min(n, rest)
		}
	}
	return thinking(steps, total)
}

func thinking(steps []step, total time.Duration) []step {
	rng := rand.New(rand.NewPCG(8, 8))
	var sum float64
	weights := make([]float64, len(steps))
	for i := range steps {
		weights[i] = rng.ExpFloat64()
		sum += weights[i]
	}
	for i := range steps {
		steps[i].think = time.Duration(weights[i] / sum * float64(total))
	}
	return steps
}

// asked returns how many different bytes the steps want.
func asked(steps []step) int64 {
	sectors := make(map[int64]bool)
	for _, s := range steps {
		for x := s.off / 512; x < (s.off+s.n+511)/512; x++ {
			sectors[x] = true
		}
	}
	return int64(len(sectors)) * 512
}

// boot goes through the steps, checks every byte and returns how long it took.
func boot(t testing.TB, o *disk.Opener, spec disk.Spec, steps []step) time.Duration {
	t.Helper()
	far := spec.Store.(*distant)
	began := time.Now()
	v, err := o.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var got, want [128 << 10]byte
	for _, s := range steps {
		for off, rest := s.off, s.n; rest > 0; {
			n := min(rest, int64(len(got)))
			if err := v.ReadAt(t.Context(), got[:n], off); err != nil {
				t.Error(err)
				return 0
			}
			far.content(want[:n], off)
			if !bytes.Equal(got[:n], want[:n]) {
				t.Errorf("other bytes at %d", off)
			}
			off, rest = off+n, rest-n
		}
		time.Sleep(s.think)
	}
	took := time.Since(began)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	return took
}

// TestBoot is what the cache and the traces are for: boots from a store with
// 20 ms to the first byte and 100 MB/s, of a guest that would boot in 3 s from
// a local file.
func TestBoot(t *testing.T) {
	const local = 3 * time.Second
	for name, steps := range map[string][]step{"recorded": recorded(t, local), "larger": larger(local)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := asked(steps)
				far := newDistant(20*time.Millisecond, 100e6)
				spec := disk.Spec{Key: "d", Store: far, Object: "o", Far: &disk.Far{Generation: "g", Size: far.size, Trace: "t"}}
				kept := &traces{}
				life := func(c *cache.Cache, guests int) (slowest time.Duration, bytes, reads int64) {
					o := disk.New(disk.Config{Cache: c, Traces: kept})
					bytes, reads = far.bytes.Load(), far.reads.Load()
					var wg sync.WaitGroup
					var mu sync.Mutex
					for range guests {
						wg.Go(func() {
							took := boot(t, o, spec, steps)
							mu.Lock()
							defer mu.Unlock()
							slowest = max(slowest, took)
						})
					}
					wg.Wait()
					if err := o.Close(); err != nil {
						t.Error(err)
					}
					return slowest, far.bytes.Load() - bytes, far.reads.Load() - reads
				}
				report := func(what string, took time.Duration, bytes, reads int64) {
					t.Logf("%-22s %.2f times the time of a local boot, %.3f times the bytes asked for (%d KiB), %d fetches",
						what, float64(took)/float64(local), float64(bytes)/float64(want), want>>10, reads)
				}
				first := newCache(t, cache.Config{})
				took, bytes, reads := life(first, 1)
				report("cold", took, bytes, reads)
				if bytes*2 > want*3 {
					t.Errorf("a cold boot read %d bytes for %d", bytes, want)
				}
				took, bytes, reads = life(first, 1)
				report("warm", took, bytes, reads)
				if bytes != 0 || took > local {
					t.Errorf("a warm boot read %d bytes and took %v", bytes, took)
				}
				took, one, reads := life(newCache(t, cache.Config{}), 1)
				report("cold with a trace", took, one, reads)
				if took > local*13/10 || one*10 > want*11 {
					t.Errorf("a traced boot read %d bytes for %d and took %v", one, want, took)
				}
				took, bytes, reads = life(newCache(t, cache.Config{}), 16)
				report("16 cold with a trace", took, bytes, reads)
				if bytes*100 > one*105 || took > local*13/10 {
					t.Errorf("16 clones read %d bytes, one %d, in %v", bytes, one, took)
				}
				kept.change(func() { kept.data = nil })
				took, bytes, reads = life(newCache(t, cache.Config{}), 16)
				report("16 cold", took, bytes, reads)
				if bytes*2 > want*3 {
					t.Errorf("16 cold boots read %d bytes for %d", bytes, want)
				}
			})
		})
	}
}

// TestTraces: a trace is stored some minutes after a disk was opened, or when
// it is closed; looking at a disk is no boot; trouble with traces is none of
// the disk's.
func TestTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := newDistant(0, 1<<40)
		spec := disk.Spec{Key: "d", Store: far, Object: "o", Far: &disk.Far{Generation: "g", Size: far.size, Trace: "t"}}
		kept := &traces{}
		o := disk.New(disk.Config{Cache: newCache(t, cache.Config{}), Traces: kept})
		steps := recorded(t, time.Second)
		v, err := o.Open(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		boot(t, o, spec, steps)
		if n := kept.get(t, "t").Boots; n != 0 {
			t.Errorf("%d boots are stored at once", n)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if tr := kept.get(t, "t"); tr.Boots != 1 || tr.Bytes() < asked(steps) {
			t.Errorf("after minutes: %d boots of %d bytes", tr.Boots, tr.Bytes())
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		boot(t, o, spec, steps[:8]) // less than a quarter
		synctest.Wait()
		boot(t, o, spec, steps)
		synctest.Wait()
		if tr := kept.get(t, "t"); tr.Boots != 2 || tr.Ranges[0].Seen != 2 {
			t.Errorf("after another: %+v", tr)
		}
		kept.change(func() { kept.data["t"][50] ^= 1 }) // what cannot be read is written anew
		boot(t, o, spec, steps)
		synctest.Wait()
		if tr := kept.get(t, "t"); tr.Boots != 1 {
			t.Errorf("after a corrupt one: %d boots", tr.Boots)
		}
		kept.change(func() { kept.fails = errors.New("no catalog") })
		boot(t, o, spec, steps)
		synctest.Wait()
		kept.change(func() { kept.fails = nil })
		// Who is still there when the opener closes is not waited for.
		v, err = o.Open(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := o.Close(); err == nil || time.Since(began) > time.Second {
			t.Errorf("Close = %v after %v", err, time.Since(began))
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if _, err := o.Open(t.Context(), spec); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Open = %v", err)
		}
	})
}
