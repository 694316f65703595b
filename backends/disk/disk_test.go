package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/overlay/delta"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// store counts what is opened and closed.
type store struct {
	*mem.Store
	opened, open atomic.Int64
	gate         chan struct{} // if there is one, Open waits for it
}

func (s *store) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r, err := s.Store.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	s.opened.Add(1)
	s.open.Add(1)
	return &reader{ReadCloser: r, s: s}, nil
}

type reader struct {
	block.ReadCloser
	s *store
}

func (r *reader) Close() error {
	r.s.open.Add(-1)
	return r.ReadCloser.Close()
}

func newStore(t testing.TB, objects map[string][]byte) *store {
	t.Helper()
	s := &store{Store: mem.New()}
	for key, data := range objects {
		if err := storetest.Put(t.Context(), s, key, -1, data); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// asQcow2 returns a qcow2 file with data, and data with holes.
func asQcow2(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := qcow2.Encode(t.Context(), &out, mem.Reader(data), qcow2.EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newOpener checks all layers and, in the end, that nothing is left open.
func newOpener(t testing.TB, s *store) *disk.Opener {
	t.Helper()
	o := disk.New(disk.Config{Check: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d objects are still open", n)
		}
	})
	return o
}

func open(t testing.TB, o *disk.Opener, spec disk.Spec) *disk.View {
	t.Helper()
	v, err := o.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	})
	return v
}

func TestFormats(t *testing.T) {
	data := storetest.Bytes(2, 300_032)
	s := newStore(t, map[string][]byte{"raw": data, "q": asQcow2(t, data)})
	o := newOpener(t, s)
	for _, spec := range []disk.Spec{
		{Key: "1", Store: s, Object: "raw"},
		{Key: "2", Store: s, Object: "raw", Format: "raw"},
		{Key: "3", Store: s, Object: "q", Format: "qcow2"},
	} {
		t.Run(spec.Object+spec.Format, func(t *testing.T) {
			blocktest.TestReader(t, open(t, o, spec), data)
		})
	}
	native := open(t, o, disk.Spec{Key: "3/native", Store: s, Object: "q"})
	blocktest.TestReader(t, native, asQcow2(t, data))
}

func TestShared(t *testing.T) {
	data := storetest.Bytes(1, 100_000)
	s := newStore(t, map[string][]byte{"a": data})
	o := newOpener(t, s)
	spec := disk.Spec{Key: "a", Store: s, Object: "a"}
	s.gate = make(chan struct{})
	views := make([]*disk.View, 8)
	var g errgroup.Group
	for i := range views {
		g.Go(func() (err error) {
			views[i], err = o.Open(t.Context(), spec)
			return err
		})
	}
	close(s.gate)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("the object was opened %d times", n)
	}
	if got := o.List(); len(got) != 1 || got[0] != (disk.Info{Key: "a", Users: 8}) {
		t.Errorf("List() = %v", got)
	}
	for i, v := range views {
		if err := blocktest.Equal(t.Context(), v, data); err != nil {
			t.Errorf("after %d of 8 were closed: %v", i, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if err := v.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("second Close = %v", err)
		}
		if err := v.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("ReadAt after Close = %v", err)
		}
	}
	if n := s.open.Load(); n != 0 || len(o.List()) != 0 {
		t.Errorf("%d objects open after the last Close, List() = %v", n, o.List())
	}
	open(t, o, spec)
	if n := s.opened.Load(); n != 2 {
		t.Errorf("opened %d times, want a second time after all were closed", n)
	}
}

func TestBase(t *testing.T) {
	base := storetest.Bytes(1, 200_192)
	top := slices.Clone(base)
	clear(top[:131_072]) // holes of the top image: the base shows through
	copy(top[140_000:], "on top")
	longer := append(slices.Clone(top), make([]byte, 100_352)...)
	s := newStore(t, map[string][]byte{"base": asQcow2(t, base), "top": absent(t, longer)})
	o := newOpener(t, s)
	want := slices.Clone(longer)
	copy(want, base[:131_072])
	spec := disk.Spec{Key: "top", Store: s, Object: "top", Format: "qcow2",
		Base: &disk.Spec{Key: "base", Store: s, Object: "base", Format: "qcow2"}}
	v := open(t, o, spec)
	below := open(t, o, *spec.Base)
	if n := s.opened.Load(); n != 2 {
		t.Errorf("%d objects were opened for two images", n)
	}
	blocktest.TestReader(t, v, want)
	blocktest.TestReader(t, below, base)
	if err := below.Close(); err != nil {
		t.Error(err)
	}
	if err := blocktest.Equal(t.Context(), v, want); err != nil {
		t.Errorf("after another user of the base closed it: %v", err)
	}
}

// absent returns a qcow2 file in which the zero clusters of data are not
// allocated, whatever Encode makes of zeros.
func absent(t *testing.T, data []byte) []byte {
	t.Helper()
	file := asQcow2(t, data)
	im, err := qcow2.Open(t.Context(), mem.Reader(file))
	if err != nil {
		t.Fatal(err)
	}
	e, err := block.ExtentAt(t.Context(), im, 0, 65536)
	if err != nil || e.Kind != block.Absent {
		t.Fatalf("holes are encoded as %v, %v", e.Kind, err)
	}
	return file
}

func TestErrors(t *testing.T) {
	s := newStore(t, map[string][]byte{"junk": storetest.Bytes(1, 100_000), "q": asQcow2(t, make([]byte, 65536))})
	o := newOpener(t, s)
	self := disk.Spec{Key: "x", Store: s, Object: "q"}
	self.Base = &disk.Spec{Key: "y", Store: s, Object: "q", Base: &disk.Spec{Key: "x", Store: s, Object: "q"}}
	deep := disk.Spec{Key: "0", Store: s, Object: "q"}
	for i := range 100 {
		below := deep
		deep = disk.Spec{Key: strings.Repeat("d", i+1), Store: s, Object: "q", Base: &below}
	}
	cases := map[string]struct {
		spec disk.Spec
		want error
	}{
		"no key":         {disk.Spec{Store: s, Object: "q"}, fs.ErrInvalid},
		"no store":       {disk.Spec{Key: "a", Object: "q"}, fs.ErrInvalid},
		"no object":      {disk.Spec{Key: "a", Store: s, Object: "none"}, fs.ErrNotExist},
		"no such format": {disk.Spec{Key: "a", Store: s, Object: "q", Format: "floppy"}, errors.ErrUnsupported},
		"corrupt":        {disk.Spec{Key: "a", Store: s, Object: "junk", Format: "qcow2"}, format.ErrCorrupt},
		"no base": {disk.Spec{Key: "a", Store: s, Object: "q", Format: "qcow2",
			Base: &disk.Spec{Key: "b", Store: s, Object: "none"}}, fs.ErrNotExist},
		"beneath itself": {self, fs.ErrInvalid},
		"too deep":       {deep, fs.ErrInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a failure is not remembered, and leaves nothing
				v, err := o.Open(t.Context(), c.spec)
				if !errors.Is(err, c.want) || v != nil {
					t.Errorf("Open = %v, %v, want %v", v, err, c.want)
				}
				if n, list := s.open.Load(), o.List(); n != 0 || len(list) != 0 {
					t.Errorf("%d objects open, List() = %v", n, list)
				}
			}
		})
	}
	open(t, o, disk.Spec{Key: "a", Store: s, Object: "q"})
	if _, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "q", Format: "qcow2"}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("two specs of one key: %v", err)
	}
}

// TestCancel: one user who gives up harms no other, and what nobody wants any
// more is closed when it is there.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := storetest.Bytes(1, 1000)
		s := newStore(t, map[string][]byte{"a": data})
		o := newOpener(t, s)
		s.gate = make(chan struct{})
		spec := disk.Spec{Key: "a", Store: s, Object: "a"}
		impatient, cancel := context.WithCancel(t.Context())
		var first, second, third error
		var patient *disk.View
		var wg sync.WaitGroup
		wg.Go(func() { _, first = o.Open(impatient, spec) })
		wg.Go(func() { patient, second = o.Open(t.Context(), spec) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		// A disk that nobody will want any more when it is built.
		lonely := spec
		lonely.Key = "lonely"
		wg.Go(func() { _, third = o.Open(impatient, lonely) })
		synctest.Wait()
		close(s.gate)
		wg.Wait()
		if !errors.Is(first, context.Canceled) || second != nil || !errors.Is(third, context.Canceled) {
			t.Fatalf("Open = %v, %v, %v, want only the second to work", first, second, third)
		}
		if err := blocktest.Equal(t.Context(), patient, data); err != nil {
			t.Error(err)
		}
		if err := patient.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestClosedOpener(t *testing.T) {
	s := newStore(t, map[string][]byte{"a": nil})
	o := disk.New(disk.Config{})
	v, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err == nil || !strings.Contains(err.Error(), "a") {
		t.Errorf("Close with an open view = %v", err)
	}
	if _, err := o.Open(t.Context(), disk.Spec{Key: "b", Store: s, Object: "a"}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Open after Close = %v", err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := o.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// TestCloseGivesUp: a store that hangs does not keep an Opener from closing.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, map[string][]byte{"a": nil})
		s.gate = make(chan struct{})
		o := disk.New(disk.Config{})
		opened := make(chan error)
		go func() {
			_, err := o.Open(context.Background(), disk.Spec{Key: "a", Store: s, Object: "a"})
			opened <- err
		}()
		synctest.Wait()
		go func() {
			if err := o.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		}()
		if err := <-opened; !errors.Is(err, context.Canceled) {
			t.Errorf("Open = %v", err)
		}
	})
}

// TestManyUsers opens and closes at random from many goroutines.
func TestManyUsers(t *testing.T) {
	data := storetest.Bytes(1, 65536)
	s := newStore(t, map[string][]byte{"a": asQcow2(t, data), "b": data})
	o := newOpener(t, s)
	specs := []disk.Spec{
		{Key: "a", Store: s, Object: "a", Format: "qcow2"},
		{Key: "b", Store: s, Object: "b"},
		{Key: "c", Store: s, Object: "a", Format: "qcow2", Base: &disk.Spec{Key: "b", Store: s, Object: "b"}},
	}
	var wg sync.WaitGroup
	for user := range 8 {
		wg.Go(func() {
			for i := range 12 {
				v, err := o.Open(t.Context(), specs[(user+i)%len(specs)])
				if err != nil {
					t.Error(err)
					return
				}
				if err := blocktest.Equal(t.Context(), v, data); err != nil {
					t.Error(err)
				}
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFork(t *testing.T) {
	data := storetest.Bytes(2, 1<<20)
	s := newStore(t, map[string][]byte{"a": asQcow2(t, data)})
	o := newOpener(t, s)
	spec := disk.Spec{Key: "a", Store: s, Object: "a", Format: "qcow2"}
	d, err := delta.Create(t.Context(), delta.Config{Path: filepath.Join(t.TempDir(), "d.qcow2"), Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	v, err := o.Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	fork := disk.Fork(v, d)
	blocktest.TestDevice(t, fork, data)
	if err := fork.Close(); err != nil {
		t.Error(err)
	}
	if len(o.List()) != 0 {
		t.Errorf("List() = %v after the fork was closed", o.List())
	}
	blocktest.TestReader(t, open(t, o, spec), data) // the image has not changed
}

var (
	_ block.ReadCloser = (*disk.View)(nil)
	_ block.Mapper     = (*disk.View)(nil)
	_ block.Device     = (*disk.Device)(nil)
	_ block.Zeroer     = (*disk.Device)(nil)
	_ block.Discarder  = (*disk.Device)(nil)
	_ block.Prefetcher = (*disk.View)(nil)
	_ backends.Store   = (*store)(nil)
)

func BenchmarkView(b *testing.B) {
	data := storetest.Bytes(1, 8<<20)
	s := newStore(b, map[string][]byte{"q": asQcow2(b, data), "raw": data})
	for _, name := range []string{"raw", "qcow2"} {
		b.Run(name, func(b *testing.B) {
			o := disk.New(disk.Config{})
			object := strings.TrimSuffix(name, "cow2")
			v := open(b, o, disk.Spec{Key: name, Store: s, Object: object, Format: name})
			blocktest.Benchmark(b, v)
		})
	}
}
