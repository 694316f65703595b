package trace_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/probe"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/trace"
)

// made returns a trace from "first+grains*seen" words.
func made(size int64, boots int, words string) trace.Trace {
	t := trace.Trace{Size: size, Boots: boots}
	for _, w := range strings.Fields(words) {
		var first, n int64
		var seen int
		if _, err := fmt.Sscanf(w, "%d+%d*%d", &first, &n, &seen); err != nil {
			panic(w)
		}
		t.Ranges = append(t.Ranges, trace.Range{Off: first * trace.Grain, Len: min(n*trace.Grain, size-first*trace.Grain), Seen: seen})
	}
	return t
}

func text(t trace.Trace) string {
	var words []string
	for _, r := range t.Ranges {
		words = append(words, fmt.Sprintf("%d+%d*%d", r.Off/trace.Grain, (r.Len+trace.Grain-1)/trace.Grain, r.Seen))
	}
	return strings.Join(words, " ")
}

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := storetest.Bytes(1, 1_000_001)
		r := trace.Record(mem.Reader(data), trace.Config{Time: time.Minute})
		ctx := t.Context()
		for _, w := range [][2]int64{{0, 10}, {4096, 100}, {50_000, 20_000}, {40_960, 4096}, {45_000, 40_000}, {1_000_000, 1}, {0, 0}, {2_000_000, 5}, {4000, 200_000}} {
			_ = r.ReadAt(ctx, make([]byte, w[1]), w[0])
		}
		got := r.Trace()
		if want := "0+2*1 12+6*1 10+2*1 18+3*1 244+1*1 2+8*1 21+29*1"; text(got) != want {
			t.Errorf("recorded %s, want %s", text(got), want)
		}
		if got.Size != 1_000_001 || got.Boots != 1 || got.Ranges[4].End() != 1_000_001 {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Minute)
		_ = r.ReadAt(ctx, make([]byte, 1), 500_000)
		if !reflect.DeepEqual(r.Trace(), got) {
			t.Error("it listens for longer than it should")
		}
	})
}

// TestLayer: a Recorder changes nothing, and writes down no more than it may.
func TestLayer(t *testing.T) {
	data := storetest.Bytes(1, 1_000_001)
	blocktest.TestReader(t, trace.Record(mem.Reader(data), trace.Config{}), data)
	little := trace.Record(mem.Reader(data), trace.Config{Bytes: 8192})
	blocktest.TestReader(t, little, data)
	if n := little.Trace().Bytes(); n != 8192 {
		t.Errorf("%d bytes were written down of 8192", n)
	}
}

// TestCopy: who reads nearly everything makes a copy.
func TestCopy(t *testing.T) {
	for size, want := range map[int64]bool{32 << 20: true, 200 << 20: false} {
		r := trace.Record(hollow(size), trace.Config{})
		p := make([]byte, 1<<20)
		for off := int64(0); off < size; off += int64(len(p)) {
			if err := r.ReadAt(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(r.Trace().Ranges) > 0; got != want {
			t.Errorf("all of %d bytes: a trace %v, want %v", size, got, want)
		}
	}
}

// hollow is a Reader of so many zeros.
type hollow int64

func (h hollow) Size() int64                                  { return int64(h) }
func (h hollow) ReadAt(context.Context, []byte, int64) error  { return nil }
func (h hollow) Prefetch(context.Context, int64, int64) error { return nil }

func TestEncode(t *testing.T) {
	for _, tr := range []trace.Trace{
		made(1<<40, 1, "5+1*1"),
		made(1<<40, 8, "0+2*1 12+6*8 10+2*3 18+3*2 244+1*1 2+8*1 21+29*1 100000000+16*4"),
		made(1_000_001, 3, "244+1*1 0+100*3"),
		random(rand.New(rand.NewPCG(1, 1)), 10_000),
	} {
		data := tr.Encode()
		got, err := trace.Decode(data)
		if err != nil || !reflect.DeepEqual(got, tr) {
			t.Errorf("%d ranges become %d, %v", len(tr.Ranges), len(got.Ranges), err)
		}
		t.Logf("%d ranges take %d bytes", len(tr.Ranges), len(data))
		for i := range data {
			if i > 100 && i%97 != 0 {
				continue
			}
			bad := bytes.Clone(data)
			bad[i] ^= 0x10
			if _, err := trace.Decode(bad); !errors.Is(err, decode.ErrCorrupt) {
				t.Fatalf("byte %d of %d is wrong: %v", i, len(data), err)
			}
		}
		if _, err := trace.Decode(data[:len(data)-1]); !errors.Is(err, decode.ErrCorrupt) {
			t.Errorf("cut: %v", err)
		}
	}
	if data := (trace.Trace{Size: 1, Boots: 1}).Encode(); data != nil {
		t.Errorf("an empty trace has %d bytes", len(data))
	}
	large := random(rand.New(rand.NewPCG(2, 2)), 100_000)
	data := large.Encode()
	got, err := trace.Decode(data)
	if err != nil || len(data) > trace.MaxEncoded || len(data) < trace.MaxEncoded*9/10 || !slices.Equal(got.Ranges, large.Ranges[:len(got.Ranges)]) {
		t.Errorf("100000 ranges become %d in %d bytes, %v", len(got.Ranges), len(data), err)
	}
}

// random returns a trace as a boot might leave it.
func random(rng *rand.Rand, n int) trace.Trace {
	t := trace.Trace{Size: 64 << 30, Boots: 4}
	place := rng.Perm(n * 4)
	for i := range n {
		t.Ranges = append(t.Ranges, trace.Range{Off: int64(place[i]) * 4 * trace.Grain, Len: int64(1+rng.IntN(2)) * trace.Grain, Seen: 1 + rng.IntN(4)})
	}
	return t
}

func TestMerge(t *testing.T) {
	const size = 1 << 30
	cases := []struct{ name, old, boot, want string }{
		{"same", "2: 10+5*2 0+3*1", "10+5*1 0+3*1", "10+5*3 0+3*2"},
		{"other order", "2: 10+5*2 0+3*2", "0+3*1 10+5*1", "10+5*3 0+3*3"},
		{"more", "1: 10+5*1 0+3*1", "10+5*1 50+1*1 0+3*1 60+2*1", "10+5*2 50+1*1 0+3*2 60+2*1"},
		{"before", "1: 10+5*1", "3+1*1 10+5*1", "3+1*1 10+5*2"},
		{"a part", "1: 10+8*1", "12+2*1", "10+2*1 12+2*2 14+4*1"},
		{"around", "1: 10+2*1 20+2*1", "8+16*1", "8+2*1 10+2*2 12+8*1 20+2*2 22+2*1"},
		{"forgotten", "4: 10+2*1 20+2*4", "20+2*1", "20+2*5"},
		{"new and old", "8: 10+2*8 20+2*2 30+2*8", "10+2*1 40+1*1", "10+2*8 40+1*2 30+2*7"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			old := made(size, int(c.old[0]-'0'), c.old[2:])
			got := trace.Merge(old, made(size, 1, c.boot))
			if text(got) != c.want || got.Boots != min(old.Boots+1, 8) {
				t.Errorf("%d boots of %s, want %s", got.Boots, text(got), c.want)
			}
			if _, err := trace.Decode(got.Encode()); err != nil {
				t.Error(err)
			}
		})
	}
	boot := made(size, 1, "1+1*1")
	for _, old := range []trace.Trace{{}, made(size*2, 3, "5+1*1")} {
		if got := trace.Merge(old, boot); !reflect.DeepEqual(got, boot) {
			t.Errorf("merged with nothing or another object: %+v", got)
		}
	}
	// Whatever is merged stays a trace.
	rng := rand.New(rand.NewPCG(3, 3))
	all := random(rng, 200)
	for range 30 {
		next := random(rng, 200)
		next.Boots = 1
		all = trace.Merge(all, next)
		if _, err := trace.Decode(all.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	// What comes at every boot stays, however often there is something else.
	steady := made(size, 1, "7+3*1")
	tr := steady
	for i := range 40 {
		tr = trace.Merge(tr, made(size, 1, fmt.Sprintf("%d+1*1 7+3*1", 100+i)))
	}
	if len(tr.Ranges) > 10 || !strings.Contains(text(tr), "7+3*8") {
		t.Errorf("after 40 boots: %s", text(tr))
	}
}

// TestReplay: everything is fetched once, about in order, neighbours joined,
// not more at a time than may be.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := made(1<<30, 4, "100+4*4 0+2*4 104+4*4 500+1*1 50+300*2 2+6*3 9000+700*4")
		var mu sync.Mutex
		var got []string
		var running, most atomic.Int64
		r := probe.Around(hollow(1<<30), func(ctx context.Context, c *probe.Call, do func() error) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s %d+%d", c.Op, c.Off/trace.Grain, c.N/trace.Grain))
			return nil
		})
		tr.Ranges[4].Off = 2000 * trace.Grain
		if err := trace.Replay(t.Context(), r, tr, 2); err != nil {
			t.Error(err)
		}
		slices.Sort(got)
		want := []string{"prefetch 0+2", "prefetch 100+8", "prefetch 2+6", "prefetch 2000+256", "prefetch 2256+44", "prefetch 9000+256", "prefetch 9256+256", "prefetch 9512+188"}
		if !slices.Equal(got, want) || most.Load() != 2 {
			t.Errorf("%d at a time: %v", most.Load(), got)
		}
		if err := trace.Replay(t.Context(), hollow(5), tr, 2); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("another object: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := trace.Replay(ctx, r, tr, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestReplayFails(t *testing.T) {
	many := random(rand.New(rand.NewPCG(1, 1)), 10_000)
	for want, limit := range map[error]int64{errors.New("broken"): 30, fs.ErrClosed: 20} {
		var calls atomic.Int64
		r := probe.Around(hollow(many.Size), func(context.Context, *probe.Call, func() error) error {
			calls.Add(1)
			return want
		})
		if err := trace.Replay(t.Context(), r, many, 4); !errors.Is(err, want) || calls.Load() > limit {
			t.Errorf("Replay = %v after %d calls", err, calls.Load())
		}
	}
}

// FuzzDecode: whatever is stored, what is decoded can be used.
func FuzzDecode(f *testing.F) {
	for _, tr := range []trace.Trace{made(1<<40, 1, "5+1*1"), made(1_000_001, 3, "244+1*1 0+100*3"), random(rand.New(rand.NewPCG(1, 1)), 50)} {
		data := tr.Encode()
		f.Add(data[:len(data)-4])
	}
	f.Add([]byte("PTRACE\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		tr, err := trace.Decode(data)
		if err != nil {
			if !errors.Is(err, decode.ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		var sum int64
		for _, r := range tr.Ranges {
			if err := block.CheckRange(r.Off, r.Len, tr.Size); err != nil || r.Len < 1 {
				t.Fatal(r, err)
			}
			sum += r.Len
		}
		if sum > trace.MaxBytes {
			t.Errorf("%d bytes", sum)
		}
		again, err := trace.Decode(tr.Encode())
		if len(tr.Ranges) > 0 && (err != nil || !reflect.DeepEqual(again, tr)) {
			t.Errorf("encoded again: %v", err)
		}
		if _, err := trace.Decode(trace.Merge(tr, made(tr.Size, 1, "")).Encode()); len(tr.Ranges) > 0 && err != nil && trace.Merge(tr, made(tr.Size, 1, "")).Bytes() > 0 {
			t.Error(err)
		}
	})
}
