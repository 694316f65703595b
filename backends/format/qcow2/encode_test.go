package qcow2

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// sparse is a disk with holes that are told.
type sparse struct {
	b     []byte
	holes int64 // every other piece of so many bytes is one
}

func newSparse(n int, holes int64) sparse {
	s := sparse{make([]byte, n), holes}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.b {
		if int64(i)/holes%2 == 0 {
			s.b[i] = byte(rng.IntN(3))
		}
	}
	return s
}

func (s sparse) Size() int64 { return int64(len(s.b)) }

func (s sparse) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, s.b[off:])
	return nil
}

func (s sparse) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	e := block.Extent{Off: off, Len: min(n, s.holes-off%s.holes), Kind: block.Data}
	if off/s.holes%2 == 1 {
		e.Kind = block.Absent
	}
	return e, nil
}

// memory is a file to write to anywhere.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := int(off) + len(p); end > len(m.b) {
		m.b = append(m.b, make([]byte, end-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func TestEncode(t *testing.T) {
	for _, size := range []int{0, 512, 5000, 300 << 10, 1<<20 + 512} {
		src := newSparse(size, 40<<10)
		want := append(bytes.Clone(src.b), make([]byte, -size&511)...)
		for _, opts := range []EncodeOptions{{}, {ClusterBits: 9}, {ClusterBits: 21}, {Compression: "zlib", ClusterBits: 12}, {Compression: "zstd"}, {Compression: "zlib", ClusterBits: 9, Workers: 3}} {
			var out []byte
			var done, total int64 = -1, -1
			opts.Progress = func(d, t int64) { done, total = d, t }
			if opts.Compression != "" {
				var m memory
				if err := EncodeCompressed(t.Context(), &m, src, opts); err != nil {
					t.Fatal(err)
				}
				out = m.b
			} else {
				var b bytes.Buffer
				if err := Encode(t.Context(), &b, src, opts); err != nil {
					t.Fatal(err)
				}
				out = b.Bytes()
				if n, err := EncodedSize(t.Context(), src, opts); err != nil || n != int64(len(out)) {
					t.Fatalf("announced %d, %v; wrote %d", n, err, len(out))
				}
			}
			if done != total {
				t.Errorf("progress ends at %d of %d", done, total)
			}
			if err := Verify(t.Context(), fromBytes(out)); err != nil {
				t.Fatalf("size %d, %+v: %v", size, opts, err)
			}
			im, err := Open(t.Context(), fromBytes(out))
			if err != nil {
				t.Fatal(err)
			}
			if err := blocktest.Equal(t.Context(), im, want); err != nil {
				t.Fatalf("size %d, %+v: %v", size, opts, err)
			}
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, opts := range []EncodeOptions{{ClusterBits: 8}, {ClusterBits: 22}, {Compression: "lzma"}} {
		if err := EncodeCompressed(t.Context(), &memory{}, newSparse(512, 512), opts); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Encode(ctx, &bytes.Buffer{}, newSparse(1<<20, 4096), EncodeOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write(p []byte) (int, error)              { return 0, errBroken }
func (brokenWriter) WriteAt(p []byte, off int64) (int, error) { return 0, errBroken }

func TestEncodeToBrokenWriter(t *testing.T) {
	src := newSparse(20<<20, 1<<20)
	if err := Encode(t.Context(), brokenWriter{}, src, EncodeOptions{}); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if err := EncodeCompressed(t.Context(), brokenWriter{}, src, EncodeOptions{ClusterBits: 12}); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

func BenchmarkRead(b *testing.B) {
	src := newSparse(64<<20, 64<<20)
	for _, c := range []struct{ name, compression string }{{"plain", ""}, {"zlib", "zlib"}, {"zstd", "zstd"}} {
		var m memory
		var err error
		if c.compression == "" {
			var buf bytes.Buffer
			err = Encode(b.Context(), &buf, src, EncodeOptions{})
			m.b = buf.Bytes()
		} else {
			err = EncodeCompressed(b.Context(), &m, src, EncodeOptions{Compression: c.compression})
		}
		if err != nil {
			b.Fatal(err)
		}
		im, err := Open(b.Context(), fromBytes(m.b))
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range []int{4 << 10, 1 << 20} {
			b.Run(c.name+map[int]string{4 << 10: "-4k", 1 << 20: "-1M"}[n], func(b *testing.B) {
				p := make([]byte, n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				off := int64(0)
				for b.Loop() {
					if err := im.ReadAt(b.Context(), p, off); err != nil {
						b.Fatal(err)
					}
					if off += int64(n); off == im.Size() {
						off = 0
					}
				}
			})
		}
	}
}
