package qcow2

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
)

const aheadBits = 12 // clusters of 4 KiB

// packedImage is a compressed image of so many clusters, and its disk.
func packedImage(t *testing.T, clusters int, compression string) (file, disk []byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(clusters)))
	for len(disk) < clusters<<aheadBits { // no cluster like another, and all compress
		part := make([]byte, 64)
		for i := range part {
			part[i] = byte(rng.Uint32())
		}
		disk = append(disk, bytes.Repeat(part, 4)...)
	}
	var m memory
	opts := EncodeOptions{ClusterBits: aheadBits, Compression: compression}
	if err := EncodeCompressed(t.Context(), &m, fromBytes(disk), opts); err != nil {
		t.Fatal(err)
	}
	return m.b, disk
}

// A trap is a file that can do something before a read.
type trap struct {
	block.Reader
	reads  atomic.Int64
	before atomic.Pointer[func(ctx context.Context) error]
}

func (r *trap) ReadAt(ctx context.Context, p []byte, off int64) error {
	r.reads.Add(1)
	if f := r.before.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return err
		}
	}
	return r.Reader.ReadAt(ctx, p, off)
}

func openAhead(t *testing.T, file []byte, cache, limit int64) (*Image, *trap) {
	t.Helper()
	r := &trap{Reader: fromBytes(file)}
	im, err := Config{Clusters: decode.NewCache(cache), Ahead: limit}.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im, r
}

// has tells which of the clusters from first to end are in the cache.
func has(t *testing.T, im *Image, first, end int64) (n int) {
	t.Helper()
	for c := first; c < end; c++ {
		r, err := im.find(t.Context(), c<<aheadBits, 1)
		if err != nil || r.kind != packed {
			t.Fatalf("cluster %d: %+v, %v", c, r, err)
		}
		if im.f.clusters.Has(im.f.key(r.word)) {
			n++
		}
	}
	return n
}

func readSame(t *testing.T, im *Image, disk []byte, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := im.ReadAt(t.Context(), p, off); err != nil {
		t.Errorf("read %d at %d: %v", n, off, err)
	} else if !bytes.Equal(p, disk[off:off+n]) {
		t.Errorf("read %d at %d: wrong bytes", n, off)
	}
}

func TestAheadInOrder(t *testing.T) {
	file, disk := packedImage(t, 512, "zlib")
	im, r := openAhead(t, file, 16<<20, 64<<aheadBits)
	readSame(t, im, disk, 0, 512)
	im.ahead.all.Wait()
	if n := has(t, im, 1, 512); n != 0 {
		t.Fatalf("one read brought %d clusters that nobody asked for", n)
	}
	readSame(t, im, disk, 1<<aheadBits, 512)
	im.ahead.all.Wait()
	if n, rest := has(t, im, 2, 6), has(t, im, 6, 512); n != 4 || rest != 0 {
		t.Fatalf("two reads in order brought %d clusters of the window, and %d others", n, rest)
	}
	before, most := r.reads.Load(), 0
	for c := int64(2); c < 512; c++ {
		readSame(t, im, disk, c<<aheadBits, 512)
		im.ahead.all.Wait()
		most = max(most, has(t, im, c+1, min(c+101, 512)))
	}
	if most != 64 {
		t.Errorf("the largest window was %d clusters of 64", most)
	}
	// A window is filled anew when half of it is left, by one read for many.
	if reads := r.reads.Load() - before; reads > 30 {
		t.Errorf("510 clusters in order were %d reads of the file", reads)
	}
}

// A client that copies a disk reads it in several places at once, in an order
// that is not quite kept.
func TestAheadStreams(t *testing.T) {
	for _, compression := range []string{"zlib", "zstd"} {
		file, disk := packedImage(t, 256, compression)
		for _, n := range []int64{1000, 1 << aheadBits, 5 << aheadBits} {
			im, _ := openAhead(t, file, 4<<20, 1<<20)
			var all sync.WaitGroup
			for part := range 4 {
				from := int64(part) * int64(len(disk)) / 4
				end := from + int64(len(disk))/4
				var next atomic.Int64
				for range 2 {
					all.Go(func() {
						for off := from + n*(next.Add(1)-1); off < end; off = from + n*(next.Add(1)-1) {
							readSame(t, im, disk, off, min(n, end-off))
						}
					})
				}
			}
			all.Wait()
		}
	}
}

func TestAheadNotForRandomReads(t *testing.T) {
	file, disk := packedImage(t, 512, "zlib")
	im, r := openAhead(t, file, 16<<20, 1<<20)
	seen := map[int64]bool{}
	for i := range int64(60) {
		c := i * 197 % 512 // never near one of the last
		seen[c] = true
		readSame(t, im, disk, c<<aheadBits, 512)
		im.ahead.all.Wait()
	}
	if n := has(t, im, 0, 512); n != len(seen) {
		t.Errorf("%d reads at random places left %d clusters in the cache", len(seen), n)
	}
	if n := r.reads.Load(); n > int64(len(seen))+10 {
		t.Errorf("%d reads of the file", n)
	}
}

// What is wrong with a cluster is told to who reads it, and to nobody before.
func TestAheadErrors(t *testing.T) {
	file, disk := packedImage(t, 64, "zstd")
	im, _ := openAhead(t, file, 16<<20, 1<<20)
	bad, err := im.find(t.Context(), 9<<aheadBits, 1)
	if err != nil {
		t.Fatal(err)
	}
	off, _ := im.f.g.CompressedRange(bad.word)
	was := bytes.Clone(file[off : off+600])
	clear(file[off+4 : off+600]) // the magic stays
	for c := range int64(9) {
		readSame(t, im, disk, c<<aheadBits, 512)
		im.ahead.all.Wait()
	}
	if err := im.ReadAt(t.Context(), make([]byte, 512), 9<<aheadBits); !errors.Is(err, decode.ErrCorrupt) {
		t.Errorf("the broken cluster: %v", err)
	}
	copy(file[off:], was)
	im.ahead.all.Wait()

	// A store that fails or panics does so to who asks, when it does.
	for _, trouble := range []func(context.Context) error{
		func(context.Context) error { return errBroken },
		func(context.Context) error { panic("broken") },
	} {
		im, r := openAhead(t, file, 16<<20, 1<<20)
		readSame(t, im, disk, 0, 512)
		r.before.Store(&trouble)
		im.ahead.note(1<<aheadBits, 512)
		im.ahead.all.Wait()
		r.before.Store(nil)
		for c := range int64(64) {
			readSame(t, im, disk, c<<aheadBits, 512)
		}
	}
}

func TestAheadEndsWithClose(t *testing.T) {
	file, disk := packedImage(t, 64, "zlib")
	im, r := openAhead(t, file, 16<<20, 1<<20)
	readSame(t, im, disk, 0, 512)
	began := make(chan struct{})
	hang := func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}
	r.before.Store(&hang)
	im.ahead.note(1<<aheadBits, 512)
	<-began
	if err := im.Close(); err != nil {
		t.Fatal(err)
	}
	r.before.Store(nil)
	before := r.reads.Load()
	for c := range int64(20) {
		im.ahead.note(c<<aheadBits, 512)
	}
	im.ahead.all.Wait()
	if n := r.reads.Load(); n != before {
		t.Errorf("%d reads after Close", n-before)
	}
}

// Where the cache has no room for what comes early, nothing does.
func TestAheadIsBounded(t *testing.T) {
	file, disk := packedImage(t, 64, "zlib")
	if im, _ := openAhead(t, file, 128<<10, 1<<20); im.ahead != nil {
		t.Error("a cache of 32 clusters has a read-ahead")
	}
	if im, _ := openAhead(t, file, 1<<20, 1<<20); im.ahead == nil || im.ahead.most != 32 {
		t.Errorf("a cache of 256 clusters has the read-ahead %+v", im.ahead)
	}
	// Thrown out before it was read: windows shrink.
	im, _ := openAhead(t, file, 1<<20, 1<<20)
	im.ahead.streams[0] = stream{next: 100, done: 100 + 32, window: 32}
	im.ahead.missed(101)
	if s := im.ahead.streams[0]; s.window != 32 {
		t.Errorf("what may still be under way counts as lost: %+v", s)
	}
	im.ahead.streams[0].done = 1000
	im.ahead.missed(101)
	if s := im.ahead.streams[0]; s.window != 16 || s.done != 102 {
		t.Errorf("after a loss: %+v", s)
	}
	readSame(t, im, disk, 0, 64<<aheadBits)
}
