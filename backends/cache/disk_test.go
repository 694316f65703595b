package cache_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// TestScan: what is read again and again stays while something much larger
// than the cache is read once.
func TestScan(t *testing.T) {
	cfg := memory()
	cfg.Size = 32 << 20
	hot, scan := newFar(8<<20), newFar(128<<20)
	c := open(t, cfg)
	h := reader(t, c, "hot", hot)
	for i := range 3 {
		read(t, h, hot, 0, 8<<20)
		settled(c)
		filler := newFar(4 << 20)
		r := reader(t, c, fmt.Sprint("filler ", i), filler)
		read(t, r, filler, 0, 4<<20)
		settled(c)
	}
	s := reader(t, c, "scan", scan)
	for off := int64(0); off < 128<<20; off += 65536 {
		read(t, s, scan, off, 65536)
		if st := c.Stats(); st.Used > st.Size {
			t.Fatalf("%d bytes are used of %d", st.Used, st.Size)
		}
	}
	settled(c)
	before := hot.bytes.Load()
	read(t, h, hot, 0, 8<<20)
	if n := hot.bytes.Load() - before; n > 0 {
		t.Errorf("the scan drove %d bytes out", n)
	}
	if st := c.Stats(); st.Evicted+st.Skipped < 90<<20 {
		t.Errorf("%+v", st)
	}
}

// TestPin: what is pinned stays, also over a restart, up to a quarter of the
// cache.
func TestPin(t *testing.T) {
	cfg := memory()
	cfg.Size = 16 << 20
	image, scan := newFar(8<<20), newFar(64<<20)
	tables := []int64{0, 70_000, 1<<20 + 5, 5 << 20, 8<<20 - 10_000}
	func() {
		c := open(t, cfg)
		r := reader(t, c, "image", image)
		p := r.Pinning()
		for _, off := range tables[:3] {
			read(t, p, image, off, 10_000)
		}
		for _, off := range tables[3:] {
			if err := r.Pin(t.Context(), off, 10_000); err != nil {
				t.Error(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Pinned < 5*8192 || s.Pinned > 5*16384 || s.FarBytes != s.Pinned {
			t.Errorf("%+v", s)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := open(t, cfg)
	r := reader(t, c, "image", image)
	read(t, r, image, 2<<20, 1<<20)
	s := reader(t, c, "scan", scan)
	for range 2 {
		read(t, s, scan, 0, 32<<20)
		read(t, s, scan, 32<<20, 32<<20)
	}
	before := image.bytes.Load()
	for _, off := range tables {
		read(t, r, image, off, 10_000)
	}
	if n := image.bytes.Load() - before; n != 0 {
		t.Errorf("%d pinned bytes were fetched again", n)
	}
	// Too much is pinned: the cache goes on.
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		if err := s.Pin(t.Context(), off, 1<<20); err != nil {
			t.Error(err)
		}
	}
	read(t, s, scan, 0, 64<<20)
	if st := c.Stats(); st.Used > st.Size || st.Degraded != "" {
		t.Errorf("%+v", st)
	}
}

func TestDrop(t *testing.T) {
	cfg := memory()
	f, other := newFar(3<<20), newFar(3<<20)
	c := open(t, cfg)
	r, o := reader(t, c, "o", f), reader(t, c, "other", other)
	read(t, r, f, 0, 3<<20)
	read(t, o, other, 0, 3<<20)
	settled(c)
	c.Drop("o")
	c.Drop("nothing")
	read(t, r, f, 0, 3<<20) // who reads it goes on
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if list := c.List(); len(list) != 1 || list[0].ID != "other" || list[0].Used != 3<<20 || list[0].Readers != 1 {
		t.Errorf("List() = %+v", list)
	}
	if s := c.Stats(); s.Used != 3<<20 || s.FarBytes != 9<<20 || s.Objects != 1 {
		t.Errorf("%+v", s)
	}
	before := other.bytes.Load()
	read(t, o, other, 0, 3<<20)
	if other.bytes.Load() != before {
		t.Error("another object was dropped too")
	}
}

// TestCorrupt: whatever becomes of the files, what is read is right.
func TestCorrupt(t *testing.T) {
	f := newFar(3<<20 + 100)
	rng := rand.New(rand.NewPCG(3, 3))
	harms := map[string]func(t *testing.T, name string, data []byte) []byte{
		"flipped": func(t *testing.T, name string, data []byte) []byte {
			for range 20 {
				data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
			}
			return data
		},
		"cut":      func(t *testing.T, name string, data []byte) []byte { return data[:len(data)/2] },
		"emptied":  func(t *testing.T, name string, data []byte) []byte { return nil },
		"junk":     func(t *testing.T, name string, data []byte) []byte { rnd(rng, data); return data },
		"one byte": func(t *testing.T, name string, data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"shifted":  func(t *testing.T, name string, data []byte) []byte { return append(make([]byte, 4096), data...) },
		"removed":  nil,
	}
	for _, file := range []string{"data.0", "data.3", "index", "sums", "objects"} {
		for harm, do := range harms {
			t.Run(file+" "+harm, func(t *testing.T) {
				dir := t.TempDir()
				fill(t, dir, f)
				name := filepath.Join(dir, file)
				data, err := os.ReadFile(name)
				if err != nil || len(data) == 0 {
					t.Fatal(len(data), err)
				}
				if do == nil {
					err = os.Remove(name)
				} else {
					err = os.WriteFile(name, do(t, file, data), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				c := open(t, cache.Config{Dir: dir})
				r := reader(t, c, "o", f)
				for range 2 {
					read(t, r, f, 0, int64(len(f.data)))
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				s := c.Stats()
				if s.Used != int64(len(f.data)+4095)/4096*4096 || s.Degraded != "" || s.FarBytes > 2*int64(len(f.data)) || s.FarBytes == 0 && file != "objects" && harm != "flipped" && harm != "one byte" {
					t.Errorf("%+v", s)
				}
				if file == "data.0" && harm == "one byte" && (s.Corrupt != 1 || s.FarBytes != 4096) {
					t.Errorf("one wrong byte: %+v", s)
				}
			})
		}
	}
}

func rnd(rng *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

// fill leaves a cache in dir that has all of f.
func fill(t testing.TB, dir string, f *far) {
	t.Helper()
	c, err := cache.Open(cache.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Reader("o", int64(len(f.data)), f.Open, cache.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	read(t, r, f, 0, int64(len(f.data)))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss: whatever of the files a loss of power leaves, what is read is
// right.
func TestPowerLoss(t *testing.T) {
	disk := crashfs.New()
	cfg := cache.Config{Dir: "/cache", FS: disk, Size: 2 << 20, Logger: silent()}
	fars := []*far{newFar(900_000), newFar(1_200_001), newFar(1_900_000)}
	work(t, cfg, fars, 7)
	work(t, cfg, fars, 8)
	rng := rand.New(rand.NewPCG(5, 5))
	var kept int
	for _, state := range disk.Crashes(rng, 60) {
		after := cfg
		after.FS = state
		c := open(t, after)
		if c.Stats().Used > 0 {
			kept++
		}
		for i, f := range fars {
			r := reader(t, c, fmt.Sprint(i), f)
			read(t, r, f, 0, int64(len(f.data)))
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if s := c.Stats(); s.Used > s.Size || s.Degraded != "" {
			t.Errorf("%+v", s)
		}
		work(t, after, fars, 9)
	}
	if kept < 10 {
		t.Errorf("only %d of 60 had anything", kept)
	}
}

// work reads at random with a cache of its own.
func work(t testing.TB, cfg cache.Config, fars []*far, seed uint64) {
	t.Helper()
	c, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for i, f := range fars {
		r, err := c.Reader(fmt.Sprint(i), int64(len(f.data)), f.Open, cache.ReaderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			off := rng.Int64N(int64(len(f.data)))
			n := min(1+rng.Int64N(200_000), int64(len(f.data))-off)
			if rng.IntN(4) == 0 {
				err = r.Pin(t.Context(), off, min(n, 5000))
			}
			if err != nil {
				t.Fatal(err)
			}
			read(t, r, f, off, n)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if rng.IntN(3) == 0 {
		c.Drop("0")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDiskTrouble: a disk that is full or broken costs speed, and is used
// again when it can be.
func TestDiskTrouble(t *testing.T) {
	refuse := func(ops string, err error) func(*crashfs.FS) {
		return func(d *crashfs.FS) {
			d.SetFault(func(op, name string) error {
				if strings.Contains(ops, op) {
					return err
				}
				return nil
			})
		}
	}
	troubles := map[string]func(*crashfs.FS){
		"full":     func(d *crashfs.FS) { d.SetCapacity(300_000) },
		"no write": refuse("write", syscall.EIO),
		"no read":  refuse("read", syscall.EIO),
		"nothing":  refuse("open create read write truncate punch sync rename remove mkdir", syscall.EIO),
	}
	for name, begin := range troubles {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " late ", late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { trouble(t, begin, late) })
			})
		}
	}
}

func trouble(t *testing.T, begin func(*crashfs.FS), late bool) {
	disk := crashfs.New()
	f := newFar(1 << 20)
	if !late {
		begin(disk)
	}
	c, err := cache.Open(cache.Config{Dir: "/c", FS: disk, Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	r := reader(t, c, "o", f)
	if late {
		read(t, r, f, 0, 1<<19)
		synctest.Wait()
		begin(disk)
	}
	for range 5 {
		read(t, r, f, 0, 1<<20)
		time.Sleep(10 * time.Second)
		synctest.Wait()
	}
	if s := c.Stats(); s.Degraded == "" || s.Skipped == 0 {
		t.Errorf("in trouble: %+v", s)
	}
	disk.SetFault(nil)
	disk.SetCapacity(0)
	time.Sleep(time.Minute)
	for range 3 {
		read(t, r, f, 0, 1<<20)
		synctest.Wait()
	}
	before := f.bytes.Load()
	read(t, r, f, 0, 1<<20)
	if s := c.Stats(); s.Degraded != "" || f.bytes.Load() != before {
		t.Errorf("afterwards %d bytes were fetched: %+v", f.bytes.Load()-before, s)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A guard refuses while it is closed.
type guard struct{ closed atomic.Bool }

func (g *guard) Take(int64) error {
	if g.closed.Load() {
		return syscall.ENOSPC
	}
	return nil
}

func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := memory()
		g := new(guard)
		g.closed.Store(true)
		cfg.Guard = g
		c := open(t, cfg)
		f := newFar(1 << 20)
		r := reader(t, c, "o", f)
		read(t, r, f, 0, 1<<20)
		synctest.Wait()
		if s := c.Stats(); s.Used != 0 || !strings.Contains(s.Degraded, "no space") {
			t.Errorf("%+v", s)
		}
		g.closed.Store(false)
		time.Sleep(time.Minute)
		read(t, r, f, 0, 1<<20)
		synctest.Wait()
		if s := c.Stats(); s.Used != 1<<20 || s.Degraded != "" {
			t.Errorf("%+v", s)
		}
		r.Close()
	})
}

// TestAlone: a folder has one cache.
func TestAlone(t *testing.T) {
	dir := t.TempDir()
	c := open(t, cache.Config{Dir: dir})
	if locks(t) {
		if _, err := cache.Open(cache.Config{Dir: dir}); err == nil {
			t.Error("two caches use one folder")
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, cache.Config{Dir: dir}) // begins anew
	if _, err := cache.Open(cache.Config{}); err == nil {
		t.Error("a cache without a folder")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := open(t, cache.Config{Dir: file, Logger: silent()}).Stats(); s.Degraded == "" {
		t.Errorf("a file as a folder: %+v", s)
	}
}

// locks reports whether the file system has the locks of images.
func locks(t *testing.T) bool {
	f, err := localfs.OS().Open(filepath.Join(t.TempDir(), "f"), os.O_CREATE|os.O_RDWR, fs.FileMode(0o600))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return localfs.LockImage(f) == nil
}

// TestManyReaders reads, fetches ahead, pins, drops and closes at random, with
// a cache that has room for a part of it.
func TestManyReaders(t *testing.T) {
	cfg := memory()
	cfg.Size = 4 << 20
	c := open(t, cfg)
	fars := []*far{newFar(3 << 20), newFar(2_000_001), newFar(5 << 20)}
	var g errgroup.Group
	for user := range 8 {
		g.Go(func() error {
			rng := rand.New(rand.NewPCG(uint64(user), 4))
			for range 40 {
				i := rng.IntN(len(fars))
				f := fars[i]
				r, err := c.Reader(fmt.Sprint(i), int64(len(f.data)), f.Open, cache.ReaderConfig{})
				if err != nil {
					return err
				}
				for range 10 {
					off := rng.Int64N(int64(len(f.data)))
					n := min(1+rng.Int64N(1<<(8+rng.IntN(12))), int64(len(f.data))-off)
					switch rng.IntN(12) {
					case 0:
						err = r.Prefetch(t.Context(), off, n)
					case 1:
						err = r.Pin(t.Context(), off, min(n, 10_000))
					case 2:
						c.Drop(fmt.Sprint(i))
					default:
						read(t, r, f, off, n)
					}
					if err != nil {
						return err
					}
				}
				if err := r.Close(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if s := c.Stats(); s.Used > s.Size || s.Corrupt > 0 || s.Degraded != "" {
		t.Errorf("%+v", s)
	}
	var sum int64
	for _, i := range c.List() {
		sum += i.Used
	}
	if s := c.Stats(); s.Used != sum {
		t.Errorf("%d bytes are counted, %d are listed", s.Used, sum)
	}
}
