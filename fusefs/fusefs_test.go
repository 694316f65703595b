package fusefs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// kernel plays the kernel's part against the tree, without a mount.
type kernel struct {
	t     *testing.T
	tree  *Tree
	raw   fuse.RawFileSystem
	notes []string // notifications, in order
}

func newKernel(t *testing.T, lib Library) *kernel {
	k := &kernel{t: t, tree: newTree(Config{Library: lib, Gateway: "gw", Revision: func() int64 { return 42 }})}
	opts := k.tree.options()
	opts.ServerCallbacks = k
	k.raw = fs.NewNodeFS(&root{t: k.tree}, opts)
	return k
}

func (k *kernel) note(format string, args ...any) fuse.Status {
	k.notes = append(k.notes, fmt.Sprintf(format, args...))
	return fuse.OK
}

func (k *kernel) DeleteNotify(_, _ uint64, name string) fuse.Status { return k.note("delete %s", name) }
func (k *kernel) EntryNotify(_ uint64, name string) fuse.Status     { return k.note("entry %s", name) }
func (k *kernel) InodeNotify(_ uint64, off, n int64) fuse.Status    { return k.note("inode %d", off) }
func (k *kernel) InodeRetrieveCache(uint64, int64, []byte) (int, fuse.Status) {
	return 0, fuse.ENOSYS
}
func (k *kernel) InodeNotifyStoreCache(uint64, int64, []byte) fuse.Status { return fuse.ENOSYS }

// walk looks up a path and returns its node and attributes.
func (k *kernel) walk(path string) (fuse.EntryOut, fuse.Status) {
	out := fuse.EntryOut{NodeId: 1}
	for _, name := range strings.Split(path, "/") {
		header := &fuse.InHeader{NodeId: out.NodeId}
		out = fuse.EntryOut{}
		if st := k.raw.Lookup(nil, header, name, &out); st != fuse.OK {
			return out, st
		}
	}
	return out, fuse.OK
}

func (k *kernel) must(path string) fuse.EntryOut {
	k.t.Helper()
	out, st := k.walk(path)
	if st != fuse.OK {
		k.t.Fatalf("lookup of %s: %v", path, st)
	}
	return out
}

func (k *kernel) open(node uint64) uint64 {
	k.t.Helper()
	var out fuse.OpenOut
	in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}}
	if st := k.raw.Open(nil, in, &out); st != fuse.OK {
		k.t.Fatalf("open: %v", st)
	}
	return out.Fh
}

func (k *kernel) read(node, fh, off uint64, n int) ([]byte, fuse.Status) {
	buf := make([]byte, n)
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh, Offset: off, Size: uint32(n)}
	res, st := k.raw.Read(nil, in, buf)
	if st != fuse.OK {
		return nil, st
	}
	out, st := res.Bytes(buf)
	return out, st
}

func (k *kernel) release(node, fh uint64) {
	k.raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh})
}

// list reads a directory in answers of size bytes.
func (k *kernel) list(path string, size int) []string {
	k.t.Helper()
	node := uint64(1)
	if path != "" {
		node = k.must(path).NodeId
	}
	var open fuse.OpenOut
	if st := k.raw.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}}, &open); st != fuse.OK {
		k.t.Fatalf("opendir %s: %v", path, st)
	}
	var names []string
	for off := uint64(0); ; {
		got := k.readdir(node, open.Fh, off, size)
		if len(got) == 0 {
			return names
		}
		for _, e := range got {
			names = append(names, e.Name)
			off = e.Off
		}
	}
}

func (k *kernel) readdir(node, fh, off uint64, size int) []fuse.DirEntry {
	k.t.Helper()
	buf := make([]byte, size)
	list := fuse.NewDirEntryList(buf, off)
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh, Offset: off, Size: uint32(size)}
	if st := k.raw.ReadDir(nil, in, list); st != fuse.OK {
		k.t.Fatalf("readdir at %d: %v", off, st)
	}
	var out []fuse.DirEntry
	for b := list.Bytes(); len(b) > 0; {
		n := int(binary.NativeEndian.Uint32(b[16:]))
		out = append(out, fuse.DirEntry{
			Ino: binary.NativeEndian.Uint64(b), Off: binary.NativeEndian.Uint64(b[8:]), Name: string(b[24 : 24+n])})
		b = b[24+(n+7)&^7:]
	}
	return out
}

func TestFiles(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	id := images[0].ID

	disk := k.must("by-id/" + id + "/disk.raw")
	if disk.Size != 4<<20 || disk.Blocks != 96<<10/512 || disk.Mode != syscall.S_IFREG|0o444 {
		t.Errorf("disk.raw: size %d blocks %d mode %o", disk.Size, disk.Blocks, disk.Mode)
	}
	if want := uint64(images[0].Updated.Unix()); disk.Mtime != want {
		t.Errorf("disk.raw: mtime %d, want %d", disk.Mtime, want)
	}
	fh := k.open(disk.NodeId)
	got, st := k.read(disk.NodeId, fh, 1<<20, 100)
	want := make([]byte, 100)
	if err := lib.disks[id].ReadAt(t.Context(), want, 1<<20); err != nil {
		t.Fatal(err)
	}
	if st != fuse.OK || !bytes.Equal(got, want) {
		t.Errorf("read: %v, % x", st, got)
	}
	if got, st := k.read(disk.NodeId, fh, 4<<20-10, 100); st != fuse.OK || len(got) != 10 {
		t.Errorf("read over the end: %d bytes, %v", len(got), st)
	}
	if got, st := k.read(disk.NodeId, fh, 5<<20, 100); st != fuse.OK || len(got) != 0 {
		t.Errorf("read behind the end: %d bytes, %v", len(got), st)
	}
	k.release(disk.NodeId, fh)
	if n := len(k.tree.openFiles()); n != 0 {
		t.Errorf("%d files open after the release", n)
	}
}

func TestHoles(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	disk := k.must("by-id/" + images[0].ID + "/disk.raw")
	fh := k.open(disk.NodeId)
	defer k.release(disk.NodeId, fh)
	for _, c := range []struct {
		off    uint64
		whence uint32
		want   uint64
		st     fuse.Status
	}{
		{0, seekData, 0, 0},
		{0, seekHole, 64 << 10, 0},
		{64 << 10, seekData, 1 << 20, 0},
		{1<<20 + 5, seekHole, 1<<20 + 32<<10, 0},
		{2 << 20, seekData, 0, fuse.Status(syscall.ENXIO)},
		{2 << 20, seekHole, 2 << 20, 0},
		{4 << 20, seekHole, 0, fuse.Status(syscall.ENXIO)},
		{0, 0, 0, fuse.EINVAL},
	} {
		var out fuse.LseekOut
		in := &fuse.LseekIn{InHeader: fuse.InHeader{NodeId: disk.NodeId}, Fh: fh, Offset: c.off, Whence: c.whence}
		st := k.raw.Lseek(nil, in, &out)
		if st != c.st || st == 0 && out.Offset != c.want {
			t.Errorf("lseek(%d, %d) = %d, %v; want %d, %v", c.off, c.whence, out.Offset, st, c.want, c.st)
		}
	}
}

func TestRecordAndStatus(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	record := k.must("by-id/" + images[0].ID + "/image.json")
	fh := k.open(record.NodeId)
	defer k.release(record.NodeId, fh)
	got, _ := k.read(record.NodeId, fh, 0, 1000)
	if want := fmt.Sprintf("{\"id\": %q, \"name\": \"debian\"}\n", images[0].ID); string(got) != want {
		t.Errorf("image.json: %q, want %q", got, want)
	}
	if record.Size != uint64(len(got)) {
		t.Errorf("image.json: size %d, has %d bytes", record.Size, len(got))
	}
	status := k.must(".platter/status")
	got, _ = k.read(status.NodeId, k.open(status.NodeId), 0, 4096)
	for _, want := range []string{`"gateway": "gw"`, `"revision": 42`, `"file": "record"`, `"count": 1`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("status lacks %s: %s", want, got)
		}
	}
}

func TestStatusSizeIsNotKept(t *testing.T) {
	lib, _ := shelfOf(t, "debian")
	k := newKernel(t, lib)
	status := k.must(".platter/status")
	got, _ := k.read(status.NodeId, k.open(status.NodeId), 0, 4096)
	if status.Size != uint64(len(got)) {
		t.Errorf("size %d, has %d bytes", status.Size, len(got))
	}
	if keep := status.AttrTimeout(); keep >= time.Millisecond {
		t.Errorf("its size is kept for %v", keep)
	}
}

func TestStatfs(t *testing.T) {
	lib, images := shelfOf(t, "a", "b", "")
	k := newKernel(t, lib)
	var bytes int64
	for _, img := range images {
		bytes += img.NativeSize
	}
	for _, path := range []string{"by-id", "by-name", ".platter", ".platter/status", "by-id/" + images[0].ID, "by-id/" + images[0].ID + "/disk.raw"} {
		var out fuse.StatfsOut
		node := k.must(path).NodeId
		if st := k.raw.StatFs(nil, &fuse.InHeader{NodeId: node}, &out); st != fuse.OK {
			t.Fatalf("%s: %v", path, st)
		}
		if out.Blocks != uint64(bytes+4095)/4096 || out.Bfree != 0 || out.Files != 5+3*4+2 || out.NameLen != 255 {
			t.Errorf("%s: %+v, want %d bytes", path, out, bytes)
		}
	}
}

func TestXattrs(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	for _, path := range []string{"", "/disk.raw", "/native.raw", "/image.json"} {
		node := k.must("by-id/" + images[0].ID + path).NodeId
		buf := make([]byte, 4096)
		n, st := k.raw.GetXAttr(nil, &fuse.InHeader{NodeId: node}, "user.platter.checksum", buf)
		if st != fuse.OK || string(buf[:n]) != images[0].Checksum {
			t.Errorf("%s: checksum %q, %v", path, buf[:n], st)
		}
		if _, st := k.raw.GetXAttr(nil, &fuse.InHeader{NodeId: node}, "system.posix_acl_access", buf); st != fuse.ENOATTR {
			t.Errorf("%s: ACL: %v", path, st)
		}
		n, st = k.raw.ListXAttr(nil, &fuse.InHeader{NodeId: node}, buf)
		if st != fuse.OK || !bytes.Contains(buf[:n], []byte("user.platter.virtual_size\x00")) {
			t.Errorf("%s: list %q, %v", path, buf[:n], st)
		}
		if n, st := k.raw.ListXAttr(nil, &fuse.InHeader{NodeId: node}, nil); st != fuse.ERANGE || n == 0 {
			t.Errorf("%s: size of the list: %d, %v", path, n, st)
		}
	}
}

func TestNamesInTheTree(t *testing.T) {
	lib, images := shelfOf(t, "debian", "ubuntu", "debian", "", "a/b", "..", "100%", "x~00010001")
	k := newKernel(t, lib)
	want := []string{
		"debian~" + images[0].ID[:8], "ubuntu", "debian~" + images[2].ID[:8],
		"a%2Fb", "%2E%2E", "100%25", "x%7E00010001",
	}
	if got := k.list("by-name", 4096); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("by-name:\n got %v\nwant %v", got, want)
	}
	for _, name := range want {
		node := k.must("by-name/" + name)
		target, st := k.raw.Readlink(nil, &fuse.InHeader{NodeId: node.NodeId})
		if st != fuse.OK || !strings.HasPrefix(string(target), "../by-id/") || node.Size != uint64(len(target)) {
			t.Errorf("%s leads to %q (size %d), %v", name, target, node.Size, st)
		}
	}
	for _, name := range []string{
		"debian", "ubuntu~" + images[1].ID[:8], "a%2fb", "%2e%2e", "100%", "x~00010001", "no", "debian~" + images[0].ID, "%", "%2",
	} {
		if _, st := k.walk("by-name/" + name); st != fuse.ENOENT {
			t.Errorf("lookup of %s: %v, want ENOENT", name, st)
		}
	}
}

func TestListingGoesOn(t *testing.T) {
	lib := newShelf()
	for i := range 1000 {
		img, disk := testImage(i+1, "")
		lib.put(img, disk)
	}
	k := newKernel(t, lib)
	if got := k.list("by-id", 512); len(got) != 1000 || !slicesSorted(got) {
		t.Fatalf("%d entries", len(got))
	}
	node := k.must("by-id").NodeId
	var open fuse.OpenOut
	k.raw.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: node}}, &open)
	first := k.readdir(node, open.Fh, 0, 4096)
	second := k.readdir(node, open.Fh, first[len(first)-1].Off, 4096)

	// What was created or deleted before the place where reading goes on
	// does not move that place.
	lib.drop(first[3].Name)
	lib.drop(second[0].Name)
	again := k.readdir(node, open.Fh, first[len(first)-1].Off, 4096)
	if again[0].Name != second[1].Name && again[0].Name != second[0].Name {
		t.Errorf("after seeking: %s, want %s", again[0].Name, second[1].Name)
	}
	if anew := k.readdir(node, open.Fh, 0, 4096); anew[3].Name != first[4].Name {
		t.Errorf("after rewinding: %s, want %s", anew[3].Name, first[4].Name)
	}
}

func slicesSorted(s []string) bool {
	for i := 1; i < len(s); i++ {
		if s[i-1] >= s[i] {
			return false
		}
	}
	return true
}

// counting counts how often a name is asked for.
type counting struct {
	Library
	named int
}

func (c *counting) Named(ctx context.Context, name string) ([]Image, error) {
	c.named++
	return c.Library.Named(ctx, name)
}

func TestListingOfOneName(t *testing.T) {
	same := make([]string, 1000)
	for i := range same {
		same[i] = "same"
	}
	lib, _ := shelfOf(t, same...)
	c := &counting{Library: lib}
	k := newKernel(t, c)
	if got := len(k.list("by-name", 4096)); got != len(same) {
		t.Errorf("%d entries, want %d", got, len(same))
	}
	if c.named > 10 {
		t.Errorf("the name was asked for %d times", c.named)
	}
}

func TestInodesAreStable(t *testing.T) {
	lib, images := shelfOf(t, "a", "b")
	one, two := newKernel(t, lib), newKernel(t, lib)
	seen := map[uint64]string{}
	for _, img := range images {
		for _, path := range []string{"by-id/" + img.ID, "by-id/" + img.ID + "/disk.raw", "by-name/" + img.Name} {
			a, b := one.must(path), two.must(path)
			if a.Ino != b.Ino {
				t.Errorf("%s: inode %d, then %d", path, a.Ino, b.Ino)
			}
			if other, taken := seen[a.Ino]; taken {
				t.Errorf("%s and %s share inode %d", path, other, a.Ino)
			}
			seen[a.Ino] = path
		}
	}
}

func TestDeletedWhileOpen(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	id := images[0].ID
	disk := k.must("by-id/" + id + "/disk.raw")
	fh := k.open(disk.NodeId)
	lib.drop(id)
	k.tree.Removed(t.Context(), id)
	if got := strings.Join(k.notes, ", "); !strings.Contains(got, "delete "+id) || !strings.Contains(got, "entry debian") {
		t.Errorf("the kernel was told: %s", got)
	}
	if _, st := k.walk("by-id/" + id); st != fuse.ENOENT {
		t.Errorf("lookup: %v", st)
	}
	if got, st := k.read(disk.NodeId, fh, 0, 4096); st != fuse.OK || len(got) != 4096 {
		t.Errorf("read: %d bytes, %v", len(got), st)
	}
	var out fuse.AttrOut
	st := k.raw.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: disk.NodeId}}, &out)
	if st != fuse.OK || out.Size != 4<<20 || out.Blocks != 192 {
		t.Errorf("fstat: %v, size %d, blocks %d", st, out.Size, out.Blocks)
	}
	k.release(disk.NodeId, fh)
}

func TestRenamed(t *testing.T) {
	lib, images := shelfOf(t, "debian", "debian")
	k := newKernel(t, lib)
	k.must("by-id/" + images[0].ID + "/image.json")
	renamed := images[0]
	renamed.Name = "ubuntu"
	lib.put(renamed, lib.disks[renamed.ID])
	k.tree.Changed(t.Context(), renamed.ID)
	for _, want := range []string{
		"entry debian", "entry ubuntu", "inode -1",
		"entry debian~" + images[0].ID[:8], "entry debian~" + images[1].ID[:8],
	} {
		if !strings.Contains(strings.Join(k.notes, "\n")+"\n", want+"\n") {
			t.Errorf("the kernel was not told: %s; but: %q", want, k.notes)
		}
	}
	if got := k.list("by-name", 4096); fmt.Sprint(got) != "[ubuntu debian]" {
		t.Errorf("by-name: %v", got)
	}
}

func TestDiskThatCannotBeDecoded(t *testing.T) {
	lib := newShelf()
	img, _ := testImage(1, "old")
	img.DiskFormat, img.DiskSize = "vhdx", -1
	lib.put(img, nil)
	k := newKernel(t, lib)
	if got := k.list("by-id/"+img.ID, 4096); fmt.Sprint(got) != "[native.vhdx image.json]" {
		t.Errorf("files: %v", got)
	}
	if _, st := k.walk("by-id/" + img.ID + "/disk.raw"); st != fuse.ENOENT {
		t.Errorf("lookup of disk.raw: %v", st)
	}
}

func TestStoreAway(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	lib.broken = errors.New("no answer")
	k := newKernel(t, lib)
	disk := k.must("by-id/" + images[0].ID + "/disk.raw")
	if disk.Size != 4<<20 || disk.AttrTimeout() > keepShort {
		t.Errorf("size %d, kept for %v", disk.Size, disk.AttrTimeout())
	}
	lib.broken = nil
	var out fuse.AttrOut
	k.raw.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: disk.NodeId}}, &out)
	if out.Blocks != 192 || out.Timeout() != keepLong {
		t.Errorf("after it came back: %d blocks, kept for %v", out.Blocks, out.Timeout())
	}
}

func TestMeasuredOnce(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	k := newKernel(t, lib)
	for range 10 {
		k.must("by-id/" + images[0].ID + "/disk.raw")
	}
	if lib.opened != 1 {
		t.Errorf("opened %d times to be measured", lib.opened)
	}
}

func TestPanicIsAnError(t *testing.T) {
	lib, _ := shelfOf(t)
	if st := newTree(Config{Library: lib}).options().PanicHandler("ouch"); st != fuse.EIO {
		t.Errorf("panic: %v", st)
	}
}

func TestCanceledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Mount(ctx, Config{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}
