package ingest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A bench is a gateway's ingest on memory.
type bench struct {
	t     *testing.T
	cat   *catalog.Catalog
	store *mem.Store
	in    *Ingest
}

func newBench(t *testing.T, kv catalog.KV, store *mem.Store, w *world, change func(*Config)) *bench {
	t.Helper()
	cat, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	cfg := Config{Catalog: cat, GatewayID: "gw", Grace: time.Nanosecond}
	if w != nil {
		cfg.Stores = map[string]backends.Store{"mem": &faultyStore{store, w}}
	} else {
		cfg.Stores = map[string]backends.Store{"mem": store}
	}
	if change != nil {
		change(&cfg)
	}
	in, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, cat, store, in}
}

func simple(t *testing.T, change func(*Config)) *bench {
	return newBench(t, memkv.New(), mem.New(), nil, change)
}

const imageID = "11111111-2222-3333-4444-555555555555"

func (b *bench) image(diskFormat string) {
	b.t.Helper()
	_, err := b.cat.CreateImage(b.t.Context(), catalog.Image{
		ID: imageID, DiskFormat: diskFormat, ContainerFormat: "bare", Visibility: catalog.VisibilityShared,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// objects returns the keys in the store.
func (b *bench) objects() []string {
	b.t.Helper()
	var keys []string
	for e, err := range b.store.List(context.Background()) {
		if err != nil {
			b.t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}

// untouched checks that nothing of an upload is left.
func (b *bench) untouched() {
	b.t.Helper()
	img, err := b.cat.Image(b.t.Context(), imageID)
	if err != nil {
		b.t.Fatal(err)
	}
	if img.Status != catalog.StatusQueued || len(img.Locations) > 0 || img.Size != nil || img.Checksum != "" {
		b.t.Errorf("after a failed upload the image is %s with %d locations, size %v", img.Status, len(img.Locations), img.Size)
	}
	if keys := b.objects(); len(keys) > 0 {
		b.t.Errorf("after a failed upload the store has %q", keys)
	}
	if u, _ := b.store.Usage(b.t.Context()); u.Free != u.Total {
		b.t.Errorf("after a failed upload %d of %d bytes are free", u.Free, u.Total)
	}
	b.noRecords()
}

func (b *bench) noRecords() {
	b.t.Helper()
	ups, err := b.cat.Uploads(b.t.Context())
	if err != nil || len(ups) > 0 {
		b.t.Errorf("there are %d uploads left, %v", len(ups), err)
	}
	if g, err := b.cat.Garbage(b.t.Context()); err != nil || len(g) > 0 {
		b.t.Errorf("there are %d deletions left, %v", len(g), err)
	}
}

// whole checks that the image is active and has exactly data.
func (b *bench) whole(data []byte) {
	b.t.Helper()
	img, err := b.cat.Image(b.t.Context(), imageID)
	if err != nil {
		b.t.Fatal(err)
	}
	md, sh := md5.Sum(data), sha512.Sum512(data)
	switch {
	case img.Status != catalog.StatusActive:
		b.t.Fatalf("the image is %s", img.Status)
	case img.Size == nil || *img.Size != int64(len(data)):
		b.t.Errorf("size is %v, want %d", img.Size, len(data))
	case img.Checksum != hex.EncodeToString(md[:]):
		b.t.Errorf("checksum is %s, want %x", img.Checksum, md)
	case img.HashAlgo != "sha512" || img.HashValue != hex.EncodeToString(sh[:]):
		b.t.Errorf("%s is %s, want %x", img.HashAlgo, img.HashValue, sh)
	}
	r, err := b.in.Open(b.t.Context(), img)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(io.NewSectionReader(block.ReaderAt(b.t.Context(), r), 0, r.Size()))
	if err != nil || !bytes.Equal(got, data) {
		b.t.Errorf("the stored bytes differ: %d of %d, %v", len(got), len(data), err)
	}
	if keys := b.objects(); len(keys) != 1 {
		b.t.Errorf("the store has %q, want one object", keys)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestPut(t *testing.T) {
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 17, 40 * chunkSize} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, known=%t", n, known), func(t *testing.T) {
				b := simple(t, nil)
				b.image("raw")
				data, size := noise(n), int64(-1)
				if known {
					size = int64(n)
				}
				if err := b.in.Put(t.Context(), imageID, bytes.NewReader(data), size, ""); err != nil {
					t.Fatal(err)
				}
				b.whole(data)
				b.noRecords()
			})
		}
	}
}

func TestPutFillsVirtualSize(t *testing.T) {
	var file bytes.Buffer
	disk := block.FromReaderAt(bytes.NewReader(noise(1<<20)), 1<<20)
	if err := qcow2.Encode(t.Context(), &file, disk, qcow2.EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	b := simple(t, nil)
	b.image("qcow2")
	if err := b.in.Put(t.Context(), imageID, bytes.NewReader(file.Bytes()), -1, ""); err != nil {
		t.Fatal(err)
	}
	b.whole(file.Bytes())
	img, _ := b.cat.Image(t.Context(), imageID)
	if img.VirtualSize == nil || *img.VirtualSize != 1<<20 {
		t.Errorf("virtual_size is %v, want %d", img.VirtualSize, 1<<20)
	}
	if l := img.Locations[0]; l.Generation == "" || l.Key != imageID {
		t.Errorf("location %+v has no generation, or not the key that Glance would give it", l)
	}
}

// brokenBody ends with an error, like the body of a client that hung up.
func brokenBody(n int) io.Reader {
	return io.MultiReader(bytes.NewReader(noise(n)), errReader{io.ErrUnexpectedEOF})
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func TestPutRefuses(t *testing.T) {
	strict := func(c *Config) { c.SizeCap = 1 << 20 }
	tests := []struct {
		name, format string
		body         func() io.Reader
		size         int64
		store        string
		change       func(*Config)
		want         error
	}{
		{name: "announced over the cap", format: "raw", body: body(0), size: 1<<20 + 1, change: strict, want: ErrTooBig},
		{name: "over the cap", format: "raw", body: body(1<<20 + 1), size: -1, change: strict, want: ErrTooBig},
		{name: "no formats", body: body(10), size: -1, want: ErrFormatsUnset},
		{name: "unknown store", format: "raw", body: body(10), size: -1, store: "moon", want: ErrStore},
		{name: "client gone", format: "raw", body: func() io.Reader { return brokenBody(3 << 20) }, size: 10 << 20, want: ErrBody},
		{name: "client gone, no length", format: "raw", body: func() io.Reader { return brokenBody(3 << 20) }, size: -1, want: ErrBody},
		{name: "shorter than announced", format: "raw", body: body(9), size: 10, want: ErrBody},
		{name: "longer than announced", format: "raw", body: body(11), size: 10, want: ErrBody},
		{name: "much longer than announced", format: "raw", body: body(1 << 20), size: 300 << 10, want: ErrBody},
		{name: "a body that never reads", format: "raw", body: func() io.Reader { return errReader{nil} }, size: -1, want: io.ErrNoProgress},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, memkv.New(), mem.NewLimited(1<<30), nil, tt.change)
			b.image(tt.format)
			err := b.in.Put(t.Context(), imageID, tt.body(), tt.size, tt.store)
			if !errors.Is(err, tt.want) {
				t.Errorf("Put: %v, want %v", err, tt.want)
			}
			b.untouched()
		})
	}
}

func body(n int) func() io.Reader {
	return func() io.Reader { return bytes.NewReader(noise(n)) }
}

func TestPutRefusesFormats(t *testing.T) {
	b := simple(t, nil)
	b.image("qcow2")
	var refusal *format.Refusal
	err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(1<<20)), -1, "")
	if !errors.As(err, &refusal) {
		t.Errorf("noise as qcow2: %v, want a refusal", err)
	}
	b.untouched()

	// Good at first sight; the walk over all tables finds that one of them
	// lies outside the file.
	var file bytes.Buffer
	disk := block.FromReaderAt(bytes.NewReader(noise(1<<20)), 1<<20)
	if err := qcow2.Encode(t.Context(), &file, disk, qcow2.EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	short := file.Bytes()[:file.Len()-(256<<10)]
	err = b.in.Put(t.Context(), imageID, bytes.NewReader(short), int64(len(short)), "")
	if !errors.As(err, &refusal) {
		t.Errorf("a qcow2 cut off: %v, want a refusal", err)
	}
	b.untouched()
}

// TestPutFormatRace changes the format after the first look at the image and
// before the upload has begun: what counts is what the image is then.
func TestPutFormatRace(t *testing.T) {
	for _, now := range []string{"qcow2", ""} {
		b := simple(t, nil)
		b.image("raw")
		var once sync.Once
		b.in.cfg.Now = func() time.Time {
			once.Do(func() {
				_, err := b.in.cfg.Catalog.UpdateImage(t.Context(), imageID, func(img *catalog.Image) error {
					img.DiskFormat = now
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			return time.Now()
		}
		if err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(1<<20)), -1, ""); err == nil {
			t.Errorf("noise is taken as %q", now)
		}
		b.untouched()
	}
}

// TestPutEmpty: nothing at all is an image of every format.
func TestPutEmpty(t *testing.T) {
	for _, name := range []string{"raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ploop", "ami"} {
		for _, size := range []int64{-1, 0} {
			b := simple(t, nil)
			b.image(name)
			if err := b.in.Put(t.Context(), imageID, bytes.NewReader(nil), size, ""); err != nil {
				t.Errorf("%s, announced %d: %v", name, size, err)
				continue
			}
			img, err := b.in.cfg.Catalog.Image(t.Context(), imageID)
			if err != nil || img.Status != catalog.StatusActive || *img.Size != 0 || img.Checksum != "d41d8cd98f00b204e9800998ecf8427e" {
				t.Errorf("%s, announced %d: %+v, %v", name, size, img, err)
			}
		}
	}
}

func TestPutDiskFull(t *testing.T) {
	for _, size := range []int64{-1, 3 << 20} {
		b := newBench(t, memkv.New(), mem.NewLimited(2<<20), nil, nil)
		b.image("raw")
		err := b.in.Put(t.Context(), imageID, bytes.NewReader(noise(3<<20)), size, "")
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Put to a full store: %v", err)
		}
		b.untouched()
	}
}

// TestPutStopsEarly: what cannot go well is not read to its end.
func TestPutStopsEarly(t *testing.T) {
	b := newBench(t, memkv.New(), mem.NewLimited(1<<20), nil, nil)
	b.image("raw")
	endless := &counter{r: zeros{}}
	if err := b.in.Put(t.Context(), imageID, endless, -1, ""); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("an endless upload: %v", err)
	}
	if endless.n > 1<<20+(bufferChunks+1)*chunkSize {
		t.Errorf("read %d bytes of an upload to a full store", endless.n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter struct {
	r  io.Reader
	n  int64
	at func(n int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.at != nil {
		c.at(c.n)
	}
	return n, err
}

func TestPutDeletedMeanwhile(t *testing.T) {
	b := simple(t, func(c *Config) {
		start := time.Now()
		calls := 0
		c.Now = func() time.Time { calls++; return start.Add(time.Duration(calls) * aliveEvery) } // each look is due
	})
	b.image("raw")
	gone := false
	src := &counter{r: io.LimitReader(zeros{}, 1<<30), at: func(n int64) {
		if n > 4<<20 && !gone {
			gone = true
			if _, err := b.cat.DeleteImage(t.Context(), imageID); err != nil {
				t.Error(err)
			}
		}
	}}
	err := b.in.Put(t.Context(), imageID, src, 1<<30, "")
	if !errors.Is(err, catalog.ErrGone) {
		t.Errorf("Put to an image that was deleted: %v, want ErrGone", err)
	}
	if src.n > 8<<20 {
		t.Errorf("%d bytes were read after the image was deleted", src.n)
	}
	if keys := b.objects(); len(keys) > 0 {
		t.Errorf("the store has %q", keys)
	}
	b.noRecords()
}

func TestPutDeletedAtTheEnd(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	src := io.MultiReader(bytes.NewReader(noise(100)), funcReader(func([]byte) (int, error) {
		_, err := b.cat.DeleteImage(t.Context(), imageID)
		return 0, errors.Join(err, io.EOF)
	}))
	err := b.in.Put(t.Context(), imageID, eof{src}, -1, "")
	if !errors.Is(err, catalog.ErrGone) {
		t.Errorf("Put: %v, want ErrGone", err)
	}
	if keys := b.objects(); len(keys) > 0 {
		t.Errorf("the store has %q", keys)
	}
	b.noRecords()
}

type funcReader func([]byte) (int, error)

func (f funcReader) Read(p []byte) (int, error) { return f(p) }

// eof unwraps an io.EOF that was joined.
type eof struct{ r io.Reader }

func (e eof) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

func TestPutTwiceAtOnce(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	var second error
	src := &counter{r: bytes.NewReader(noise(1 << 20)), at: func(n int64) {
		if second == nil {
			second = b.in.Put(t.Context(), imageID, strings.NewReader("other"), 5, "")
		}
	}}
	if err := b.in.Put(t.Context(), imageID, src, 1<<20, ""); err != nil {
		t.Errorf("the first upload: %v", err)
	}
	var status *catalog.StatusError
	if !errors.As(second, &status) {
		t.Errorf("the second upload: %v, want a StatusError", second)
	}
	b.whole(noise(1 << 20))
}

func TestPutCancelled(t *testing.T) {
	b := newBench(t, memkv.New(), mem.NewLimited(1<<30), nil, nil)
	b.image("raw")
	ctx, cancel := context.WithCancel(t.Context())
	src := &counter{r: zeros{}, at: func(n int64) {
		if n > 1<<20 {
			cancel()
		}
	}}
	if err := b.in.Put(ctx, imageID, src, -1, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	b.untouched()
}

// TestMemory checks the promise of at most 32 MiB for an upload of any size,
// even into a store that is slower than the client.
func TestMemory(t *testing.T) {
	b := simple(t, nil)
	b.image("raw")
	b.in.cfg.Stores["mem"] = &sink{}
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	src := &counter{r: io.LimitReader(zeros{}, 256<<20)}
	src.at = func(n int64) {
		if n%(32<<20) == 0 {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			if now.HeapSys-now.HeapReleased > peak.HeapSys-peak.HeapReleased {
				peak = now
			}
		}
	}
	if err := b.in.Put(t.Context(), imageID, src, -1, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if total := after.TotalAlloc - before.TotalAlloc; total > 32<<20 {
		t.Errorf("an upload of 256 MiB allocated %d MiB in all", total>>20)
	}
}

// A sink is a store that keeps nothing.
type sink struct{}

func (*sink) Open(context.Context, string) (block.ReadCloser, error) { return nil, fs.ErrNotExist }
func (*sink) Create(context.Context, string, int64) (backends.Writer, error) {
	return nowhere{}, nil
}
func (*sink) Delete(context.Context, string) error { return nil }

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)  { return len(p), nil }
func (nowhere) Commit(context.Context) error { return nil }
func (nowhere) Abort()                       {}

func BenchmarkPut(b *testing.B) {
	cat, err := catalog.Open(b.Context(), memkv.New(), catalog.Config{GatewayID: "gw"})
	if err != nil {
		b.Fatal(err)
	}
	defer cat.Close()
	in, err := New(Config{Catalog: cat, GatewayID: "gw", Stores: map[string]backends.Store{"sink": &sink{}}})
	if err != nil {
		b.Fatal(err)
	}
	const size = 256 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		img, err := cat.CreateImage(b.Context(), catalog.Image{
			DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityShared,
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := in.Put(b.Context(), img.ID, io.LimitReader(zeros{}, size), size, ""); err != nil {
			b.Fatal(err)
		}
	}
}
