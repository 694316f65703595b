//go:build integration

package fusefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need fails the test when a program is missing: a test that is skipped in
// silence is no test.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("this test needs %s: %v", p, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func mounted(t *testing.T, lib Library) (*Tree, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	tree, err := Mount(t.Context(), Config{Dir: dir, Library: lib, Gateway: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		if typ, _ := mountedOn(tree.cfg.Dir); typ != "" {
			t.Errorf("%s is still mounted", dir)
		}
	})
	return tree, dir
}

func digest(lib *shelf, id string) string {
	disk := lib.disks[id]
	all := make([]byte, disk.Size())
	if err := disk.ReadAt(context.Background(), all, 0); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(all))
}

func TestTools(t *testing.T) {
	need(t, "cp", "sha256sum", "qemu-img", "du", "find", "stat")
	lib, images := shelfOf(t, "debian", "debian", "a/b")
	_, dir := mounted(t, lib)
	id := images[0].ID
	disk := filepath.Join(dir, "by-id", id, "disk.raw")

	if got := strings.Fields(run(t, "sha256sum", disk))[0]; got != digest(lib, id) {
		t.Errorf("sha256sum: %s", got)
	}
	for _, how := range []string{"auto", "always"} {
		copied := filepath.Join(t.TempDir(), how)
		run(t, "cp", "--sparse="+how, disk, copied)
		var st syscall.Stat_t
		if err := syscall.Stat(copied, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 256<<10 {
			t.Errorf("cp --sparse=%s wrote %d bytes of a disk with 96 KiB", how, st.Blocks*512)
		}
		run(t, "cmp", disk, copied)
	}
	if got := strings.Fields(run(t, "du", "-B1", disk))[0]; got != "98304" {
		t.Errorf("du: %s", got)
	}
	if got := strings.Fields(run(t, "du", "-B1", "--apparent-size", disk))[0]; got != "4194304" {
		t.Errorf("du --apparent-size: %s", got)
	}
	if got := run(t, "qemu-img", "info", disk); !strings.Contains(got, "file format: raw") || !strings.Contains(got, "4 MiB (4194304") {
		t.Errorf("qemu-img info: %s", got)
	}
	if got := run(t, "qemu-img", "map", "--output=json", "-f", "raw", disk); strings.Count(got, `"data": true`) != 2 {
		t.Errorf("qemu-img map: %s", got)
	}
	buf := make([]byte, 4096)
	if n, err := syscall.Getxattr(disk, "user.platter.id", buf); err != nil || string(buf[:n]) != id {
		t.Errorf("getxattr: %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := syscall.Listxattr(disk, buf); err != nil || !bytes.Contains(buf[:n], []byte("user.platter.virtual_size\x00")) {
		t.Errorf("listxattr: %q, %v", buf[:max(n, 0)], err)
	}
	if got := run(t, "sh", "-c", "ls "+filepath.Join(dir, "by-name")); strings.Count(got, "debian~") != 2 || !strings.Contains(got, "a%2Fb") {
		t.Errorf("ls by-name: %s", got)
	}
	if got := run(t, "cat", filepath.Join(dir, "by-name", "a%2Fb", "image.json")); !strings.Contains(got, images[2].ID) {
		t.Errorf("image.json: %s", got)
	}
	if got := run(t, "cat", filepath.Join(dir, ".platter", "status")); !strings.Contains(got, `"gateway": "test"`) {
		t.Errorf("status: %s", got)
	}
	if got := run(t, "find", dir, "-type", "f"); strings.Count(got, "\n") != 3*3+1 {
		t.Errorf("find: %s", got)
	}
}

func TestReadOnly(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	_, dir := mounted(t, lib)
	id := filepath.Join(dir, "by-id", images[0].ID)
	for what, err := range map[string]error{
		"write":  os.WriteFile(filepath.Join(id, "disk.raw"), []byte("x"), 0o644),
		"create": os.WriteFile(filepath.Join(id, "new"), nil, 0o644),
		"mkdir":  os.Mkdir(filepath.Join(dir, "new"), 0o755),
		"remove": os.Remove(filepath.Join(id, "disk.raw")),
		"rename": os.Rename(id, id+"x"),
		"chmod":  os.Chmod(id, 0o777),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
}

func TestLoopMount(t *testing.T) {
	need(t, "mount", "umount", "mkfs.ext4")
	if _, err := os.Stat("/dev/loop-control"); err != nil || os.Geteuid() != 0 {
		t.Log("no loop devices here: mount -o loop is not tried")
		return
	}
	file := filepath.Join(t.TempDir(), "ext4")
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "hello"), []byte("from inside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-d", src, file, "8M")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lib := newShelf()
	img, _ := testImage(1, "ext4")
	img.DiskSize = int64(len(content))
	lib.put(img, text(content))
	_, dir := mounted(t, lib)
	inside := t.TempDir()
	run(t, "mount", "-o", "loop,ro", filepath.Join(dir, "by-name", "ext4", "disk.raw"), inside)
	defer run(t, "umount", inside)
	if got := run(t, "cat", filepath.Join(inside, "hello")); got != "from inside\n" {
		t.Errorf("hello: %q", got)
	}
}

func TestSeekThroughTheKernel(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	_, dir := mounted(t, lib)
	f, err := os.Open(filepath.Join(dir, "by-id", images[0].ID, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []int64
	for at, whence := int64(0), seekHole; ; whence = seekHole + seekData - whence {
		next, err := f.Seek(at, whence)
		if err != nil {
			break
		}
		got, at = append(got, next), next
	}
	if want := "[65536 1048576 1081344]"; fmt.Sprint(got) != want {
		t.Errorf("holes and data at %v, want %s", got, want)
	}
}

func TestVanishesAtOnce(t *testing.T) {
	lib, images := shelfOf(t, "debian", "debian")
	tree, dir := mounted(t, lib)
	id := images[0].ID
	path := filepath.Join(dir, "by-id", id, "disk.raw")
	link := filepath.Join(dir, "by-name", "debian~"+id[:8])
	other := filepath.Join(dir, "by-name", "debian~"+images[1].ID[:8])
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range []string{path, link, other, filepath.Join(dir, "by-id", id)} {
		if _, err := os.Lstat(p); err != nil {
			t.Fatal(err)
		}
	}
	lib.drop(id)
	tree.Removed(t.Context(), id)
	for _, p := range []string{path, link, other, filepath.Join(dir, "by-id", id)} {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s after the deletion: %v", p, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "by-name", "debian")); err != nil {
		t.Errorf("the other image has its name for itself now: %v", err)
	}
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil || n != 4<<20 || fmt.Sprintf("%x", h.Sum(nil)) != digest(lib, id) {
		t.Errorf("reading what is open: %d bytes, %v", n, err)
	}
}

func TestChangedRecord(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	tree, dir := mounted(t, lib)
	img := images[0]
	disk := filepath.Join(dir, "by-id", img.ID, "disk.raw")
	before, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "by-name", "debian")); err != nil {
		t.Fatal(err)
	}
	img.Name, img.Updated = "ubuntu", img.Updated.Add(time.Hour)
	lib.put(img, lib.disks[img.ID])
	tree.Changed(t.Context(), img.ID, "debian")
	after, err := os.Stat(disk)
	if err != nil || after.ModTime().Sub(before.ModTime()) != time.Hour {
		t.Errorf("mtime %v, then %v, %v", before.ModTime(), after.ModTime(), err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "by-name", "debian")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	if got := run(t, "cat", filepath.Join(dir, "by-name", "ubuntu", "image.json")); !strings.Contains(got, "ubuntu") {
		t.Errorf("record: %s", got)
	}
}

func TestManyImages(t *testing.T) {
	need(t, "ls", "find")
	const count = 100_000
	lib := newShelf()
	_, disk := testImage(1, "")
	for i := range count {
		img, _ := testImage(i+1, fmt.Sprintf("image %d", i%60_000)) // most share a name
		img.ID = fmt.Sprintf("%08x%s", uint32(i)*2654435761, img.ID[8:])
		lib.images[img.ID] = img
		lib.ids = append(lib.ids, img.ID)
		lib.disks[img.ID] = disk
	}
	sortShelf(lib)
	_, dir := mounted(t, lib)
	for _, c := range []struct {
		limit time.Duration
		want  int
		args  []string
	}{
		{2 * time.Minute, count, []string{"ls", "-f", filepath.Join(dir, "by-id")}},
		{5 * time.Minute, count, []string{"ls", "-l", filepath.Join(dir, "by-id")}},
		{2 * time.Minute, count, []string{"ls", "-f", filepath.Join(dir, "by-name")}},
	} {
		start := time.Now()
		out := run(t, c.args[0], c.args[1:]...)
		took := time.Since(start)
		t.Logf("%s: %v", strings.Join(c.args, " "), took)
		if n := strings.Count(out, "\n"); n < c.want || n > c.want+3 || took > c.limit {
			t.Errorf("%v: %d lines in %v", c.args, n, took)
		}
	}
	start := time.Now()
	const lookups = 2000
	for range lookups {
		id := lib.ids[rand.IntN(count)]
		if _, err := os.Stat(filepath.Join(dir, "by-id", id, "image.json")); err != nil {
			t.Fatal(err)
		}
	}
	each := time.Since(start) / lookups
	t.Logf("lookup of by-id/ID/image.json: %v", each)
	if each > 50*time.Millisecond {
		t.Errorf("a lookup takes %v", each)
	}
}

func sortShelf(s *shelf) {
	ids := s.ids
	s.ids = nil
	sort.Strings(ids)
	s.ids = ids
	for _, id := range ids {
		name := s.images[id].Name
		s.names[name] = append(s.names[name], id)
	}
}

func TestCloseWhileOpen(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	dir := filepath.Join(t.TempDir(), "mnt")
	tree, err := Mount(t.Context(), Config{Dir: dir, Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "by-id", images[0].ID, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("after closing: %v, %v", entries, err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 2<<20); err == nil {
		t.Error("a file that is still open can be read")
	}
	if err := tree.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestForeignMountStays(t *testing.T) {
	need(t, "mount", "umount")
	lib, _ := shelfOf(t)
	dir := t.TempDir()
	run(t, "mount", "-t", "tmpfs", "tmpfs", dir)
	defer run(t, "umount", dir)
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Mount(t.Context(), Config{Dir: dir, Library: lib}); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("mounting over files: %v", err)
	}
	_, live := mounted(t, lib)
	if _, err := Mount(t.Context(), Config{Dir: live, Library: lib}); !errors.Is(err, os.ErrExist) {
		t.Errorf("mounting over a live tree: %v", err)
	}
}

// TestCrashed kills a process that serves a tree and mounts again.
func TestCrashed(t *testing.T) {
	if dir := os.Getenv("FUSEFS_TEST_SERVE"); dir != "" {
		lib, _ := shelfOf(t, "debian")
		if _, err := Mount(t.Context(), Config{Dir: dir, Library: lib}); err != nil {
			t.Fatal(err)
		}
		// The kernel keeps the attributes of the root beyond our death.
		if _, err := os.Lstat(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("mounted")
		time.Sleep(10 * time.Minute)
		return
	}
	lib, images := shelfOf(t, "debian")
	dir := filepath.Join(t.TempDir(), "mnt")
	for range 2 {
		crash(t, dir)
	}
	if err := syscall.Statfs(dir, new(syscall.Statfs_t)); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("the dead mount answers %v", err)
	}
	tree, err := Mount(t.Context(), Config{Dir: dir, Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "by-id", images[0].ID, "disk.raw")); err != nil {
		t.Error(err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if typ, err := mountedOn(tree.cfg.Dir); err != nil || typ != "" {
		t.Errorf("left behind: %s, %v", typ, err)
	}
}

func crash(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashed$")
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_SERVE="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	for buf := make([]byte, 256); !strings.Contains(said.String(), "mounted"); {
		n, err := pipe.Read(buf)
		if err != nil {
			t.Fatalf("the child ended: %v: %s", err, said.String())
		}
		said.Write(buf[:n])
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != -1 {
		t.Fatal("exit code " + strconv.Itoa(cmd.ProcessState.ExitCode()))
	}
}
