//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// rawOf returns the disk bytes of a file, as qemu-img sees them.
func rawOf(t *testing.T, path string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "qemu.raw")
	tool(t, "qemu-img", "convert", "-O", "raw", path, raw)
	return readAll(t, raw)
}

// TestFilesInShells uses the tree as people do in a shell.
func TestFilesInShells(t *testing.T) {
	gateway.Need(t, "tar", "cp", "find", "du", "df", "qemu-img")
	g := gateway.Start(t)
	disk := newDisk(t, "64M")
	want := rawOf(t, disk)
	id := upload(t, g, "debian", "qcow2", disk)
	dir := filepath.Join(g.Mount, "by-id", id)
	if got := tool(t, "ls", filepath.Join(g.Mount, "by-name", "debian")+"/"); got != "disk.raw\nimage.json\nnative.qcow2\n" {
		t.Errorf("ls: %q", got)
	}
	out := t.TempDir()
	tool(t, "cp", filepath.Join(dir, "disk.raw"), out+"/cp.raw")
	tool(t, "cp", "--sparse=always", filepath.Join(dir, "disk.raw"), out+"/sparse.raw")
	tool(t, "sh", "-c", `tar -C "$0" -cSf - disk.raw | tar -C "$1" -xSf -`, dir, out)
	for _, name := range []string{"cp.raw", "sparse.raw", "disk.raw"} {
		sameFile(t, filepath.Join(out, name), want)
		if st, err := os.Stat(filepath.Join(out, name)); err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > 2<<20 {
			t.Errorf("%s is not sparse: %+v", name, st.Sys())
		}
	}
	if got := strings.Fields(tool(t, "du", "-k", dir+"/disk.raw"))[0]; got != "1088" {
		t.Errorf("du says %s KiB, want the 1088 that are stored", got)
	}
	if got := tool(t, "find", g.Mount, "-type", "f"); strings.Count(got, "\n") != 4 {
		t.Errorf("find: %s", got)
	}
	if got := tool(t, "df", "--output=size,avail,target", dir); !strings.Contains(got, " 0 "+g.Mount) {
		t.Errorf("df: %s", got)
	}
	tool(t, "sh", "-c", `tar -C "$0" -cf - .platter | tar -C "$1" -xf -`, g.Mount, out)
	if text := readAll(t, filepath.Join(out, ".platter", "status")); !json.Valid(text) {
		t.Errorf("status after tar: %q", text)
	}
	if text := readAll(t, filepath.Join(dir, "image.json")); !json.Valid(text) || !bytes.HasPrefix(text, []byte("{\n  ")) || !bytes.HasSuffix(text, []byte("\n}\n")) {
		t.Errorf("image.json: %q", text)
	}
	buf := make([]byte, 64)
	if n, err := syscall.Getxattr(dir+"/disk.raw", "user.platter.name", buf); err != nil || string(buf[:n]) != "debian" {
		t.Errorf("user.platter.name: %q, %v", buf[:max(n, 0)], err)
	}
	if err := os.Remove(dir + "/disk.raw"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("rm: %v", err)
	}
}

// TestFilesForOthers lets another user look, where the configuration does.
func TestFilesForOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can become somebody else")
	}
	public, err := os.MkdirTemp("", "platter-public-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(public)
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{true, false} {
		mount := filepath.Join(public, fmt.Sprint(allowed))
		g := gateway.Start(t, "--mount", mount, "PLATTER_FUSE_ALLOW_OTHER="+fmt.Sprint(allowed))
		disk := newDisk(t, "8M")
		id := upload(t, g, "debian", "qcow2", disk)
		cmd := exec.CommandContext(t.Context(), "cat", filepath.Join(mount, "by-id", id, "native.qcow2"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
		out, err := cmd.Output()
		if allowed && (err != nil || !bytes.Equal(out, readAll(t, disk))) {
			t.Errorf("nobody cannot read: %v, %d bytes", err, len(out))
		}
		if !allowed && err == nil {
			t.Error("nobody may read though nobody said so")
		}
	}
}

// TestFilesWhileImagesChange reads through the tree while images come, change
// their names and go. A reader finds the right bytes, or no file.
func TestFilesWhileImagesChange(t *testing.T) {
	g := gateway.Start(t)
	disk := newDisk(t, "8M")
	want := sha256.Sum256(rawOf(t, disk))
	end := make(chan struct{})
	var readers sync.WaitGroup
	var reads atomic.Int64
	for i := range 4 {
		readers.Go(func() {
			dir := filepath.Join(g.Mount, []string{"by-name", "by-id"}[i%2])
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := readTree(dir, want, &reads); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var ids []string
	begun := time.Now()
	working := func() bool { // on a slow machine until enough was read
		past := time.Since(begun)
		return !t.Failed() && (past < 5*time.Second || past < time.Minute && reads.Load() < 20)
	}
	for working() {
		switch n := rng.IntN(4); {
		case len(ids) < 3 || n == 0 && len(ids) < 20:
			ids = append(ids, upload(t, g, fmt.Sprintf("name %d", rng.IntN(5)), "qcow2", disk))
		case n == 1:
			i := rng.IntN(len(ids))
			call(t, g, "DELETE", "/v2/images/"+ids[i], "", 204)
			vanished(t, g, ids[i]) // the watch has to hear of it
			ids = append(ids[:i], ids[i+1:]...)
		default:
			must(t, g, "image", "set", ids[rng.IntN(len(ids))], "--name", fmt.Sprintf("name %d", rng.IntN(5)))
		}
	}
	close(end)
	readers.Wait()
	if reads.Load() < 20 {
		t.Errorf("%d disks were read only", reads.Load())
	}
	t.Logf("%d disks read", reads.Load())
	var links []fs.DirEntry
	var err error
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // links are kept for a second
		links, err = os.ReadDir(filepath.Join(g.Mount, "by-name"))
		if err != nil || len(links) == len(ids) || time.Now().After(end) {
			break
		}
	}
	time.Sleep(1100 * time.Millisecond)
	if err != nil || len(links) != len(ids) {
		t.Errorf("%d links, want %d: %v", len(links), len(ids), err)
	}
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(g.Mount, "by-name", link.Name(), "disk.raw")); err != nil {
			t.Error(err)
		}
	}
}

// readTree reads every disk that a directory shows.
func readTree(dir string, want [32]byte, reads *atomic.Int64) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		f, err := os.Open(filepath.Join(dir, e.Name(), "disk.raw"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone, or renamed
		}
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("a file that was opened: %w", err)
		}
		if [32]byte(sum.Sum(nil)) != want {
			return fmt.Errorf("%s: wrong bytes", e.Name())
		}
		reads.Add(1)
	}
	return nil
}

// vanished waits until the tree does not show an image any more.
func vanished(t *testing.T, g *gateway.Gateway, id string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat(filepath.Join(g.Mount, "by-id", id))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("image %s is deleted and still there: %v", id, err)
		}
	}
}

// TestFileOpenWhileDeleted deletes an image under a reader.
func TestFileOpenWhileDeleted(t *testing.T) {
	g := gateway.Start(t)
	path, data := randomFile(t, 32<<20)
	id := upload(t, g, "raw", "raw", path)
	f, err := os.Open(filepath.Join(g.Mount, "by-name", "raw", "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 4096)
	if _, err := io.ReadFull(f, head); err != nil {
		t.Fatal(err)
	}
	call(t, g, "DELETE", "/v2/images/"+id, "", 204)
	vanished(t, g, id)
	rest, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(append(head, rest...), data) {
		t.Errorf("the open file: %d bytes, %v", len(rest), err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(data)) {
		t.Errorf("stat of the open file: %v, %v", st, err)
	}
}

// TestFilesAfterKill kills the gateway under a tree whose root somebody has
// looked at, which the kernel remembers beyond the gateway's death.
func TestFilesAfterKill(t *testing.T) {
	g := gateway.Start(t)
	disk := newDisk(t, "8M")
	want := rawOf(t, disk)
	id := upload(t, g, "debian", "qcow2", disk)
	inside := filepath.Join(g.Mount, "by-id", id, "disk.raw")
	for range 3 {
		for _, path := range []string{g.Mount, inside} {
			if _, err := os.Stat(path); err != nil {
				t.Fatal(err)
			}
		}
		held, err := os.Open(inside)
		if err != nil {
			t.Fatal(err)
		}
		g.Kill(t)
		g.Run(t)
		held.Close()
		sameFile(t, inside, want)
	}
	if table := string(readAll(t, "/proc/self/mountinfo")); strings.Count(table, " "+g.Mount+" ") != 1 {
		t.Errorf("mounts are left:\n%s", table)
	}
}
