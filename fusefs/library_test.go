package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// shelf is a Library in memory.
type shelf struct {
	mu     sync.RWMutex
	images map[string]Image
	ids    []string            // sorted
	names  map[string][]string // name → ids, sorted
	disks  map[string]block.Reader
	broken error // what Open answers, if it is not nil
	opened int
}

func newShelf() *shelf {
	return &shelf{images: map[string]Image{}, names: map[string][]string{}, disks: map[string]block.Reader{}}
}

func insert(list []string, s string) []string {
	i, there := slices.BinarySearch(list, s)
	if there {
		return list
	}
	return slices.Insert(list, i, s)
}

func remove(list []string, s string) []string {
	if i, there := slices.BinarySearch(list, s); there {
		return slices.Delete(slices.Clone(list), i, i+1)
	}
	return list
}

func (s *shelf) put(img Image, disk block.Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.images[img.ID]; ok {
		s.names[old.Name] = remove(s.names[old.Name], img.ID)
	}
	s.images[img.ID] = img
	s.ids = insert(s.ids, img.ID)
	if img.Name != "" {
		s.names[img.Name] = insert(s.names[img.Name], img.ID)
	}
	s.disks[img.ID] = disk
}

func (s *shelf) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.images[id]
	s.names[img.Name] = remove(s.names[img.Name], id)
	s.ids = remove(s.ids, id)
	delete(s.images, id)
}

func (s *shelf) Image(_ context.Context, id string) (Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	img, ok := s.images[id]
	if !ok {
		return Image{}, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
	}
	return img, nil
}

func (s *shelf) Named(_ context.Context, name string) ([]Image, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Image
	for _, id := range s.names[name] {
		out = append(out, s.images[id])
	}
	return out, nil
}

func (s *shelf) Images(_ context.Context, after string) iter.Seq2[Image, error] {
	return func(yield func(Image, error) bool) {
		for {
			s.mu.RLock()
			i := sort.SearchStrings(s.ids, after)
			if i < len(s.ids) && s.ids[i] == after {
				i++
			}
			var img Image
			if i < len(s.ids) {
				img = s.images[s.ids[i]]
			}
			s.mu.RUnlock()
			if img.ID == "" || !yield(img, nil) {
				return
			}
			after = img.ID
		}
	}
}

func (s *shelf) Open(_ context.Context, id string, file File) (block.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	img, ok := s.images[id]
	switch {
	case !ok:
		return nil, fmt.Errorf("image %s: %w", id, fs.ErrNotExist)
	case s.broken != nil:
		return nil, s.broken
	case file == Record:
		return text(fmt.Sprintf("{\"id\": %q, \"name\": %q}\n", id, img.Name)), nil
	case s.disks[id] == nil:
		return nil, fmt.Errorf("format %s: %w", img.DiskFormat, errors.ErrUnsupported)
	}
	return nopCloser{s.disks[id]}, nil
}

// nopCloser forwards what a Reader can do, extents included.
type nopCloser struct{ r block.Reader }

func (n nopCloser) Size() int64  { return n.r.Size() }
func (n nopCloser) Close() error { return nil }
func (n nopCloser) ReadAt(ctx context.Context, p []byte, off int64) error {
	return n.r.ReadAt(ctx, p, off)
}
func (n nopCloser) Extent(ctx context.Context, off, k int64) (block.Extent, error) {
	return block.ExtentAt(ctx, n.r, off, k)
}

// patches is a disk of size bytes that holds data only in some pieces.
type patches struct {
	size   int64
	pieces map[int64][]byte // offset → bytes, not overlapping
}

func (d patches) Size() int64 { return d.size }

func (d patches) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	clear(p)
	for at, b := range d.pieces {
		lo, hi := max(at, off), min(at+int64(len(b)), off+int64(len(p)))
		if lo < hi {
			copy(p[lo-off:hi-off], b[lo-at:])
		}
	}
	return nil
}

func (d patches) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	end := off + n
	for at, b := range d.pieces {
		if off >= at && off < at+int64(len(b)) {
			return block.Extent{Off: off, Len: min(end, at+int64(len(b))) - off, Kind: block.Data}, nil
		}
		if at > off {
			end = min(end, at)
		}
	}
	return block.Extent{Off: off, Len: end - off, Kind: block.Zero}, nil
}

var day = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// testImage returns image number n, whose disk has 96 KiB of data in 4 MiB.
func testImage(n int, name string) (Image, patches) {
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(i*7 + n)
	}
	disk := patches{size: 4 << 20, pieces: map[int64][]byte{0: data, 1 << 20: data[:32<<10]}}
	return Image{
		ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", n*0x10001, n), Name: name,
		DiskSize: disk.size, NativeSize: disk.size, Created: day, Updated: day.Add(time.Hour),
		Status: "active", Visibility: "shared", DiskFormat: "raw", ContainerFormat: "bare",
		Checksum: "0123456789abcdef0123456789abcdef",
	}, disk
}

func shelfOf(t testing.TB, names ...string) (*shelf, []Image) {
	t.Helper()
	s := newShelf()
	var images []Image
	for i, name := range names {
		img, disk := testImage(i+1, name)
		s.put(img, disk)
		images = append(images, img)
	}
	return s, images
}
