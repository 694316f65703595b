//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// smallDisk mounts a file system of a few MiB, for what happens when a disk
// is full.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "platter-small-")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	t.Cleanup(func() {
		for range 50 { // a process that ends may hold it for a moment
			if _, err := os.Stat(dir); err == nil && unmounted(dir) {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		os.Remove(dir)
	})
	return dir
}

func unmounted(dir string) bool {
	return exec.Command("umount", dir).Run() == nil
}

// put sends n random bytes as the data of an image and returns the answer.
func put(t *testing.T, g *gateway.Gateway, id string, n int64) (int, string) {
	t.Helper()
	body := io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, g.URL+"/v2/images/"+id+"/file", body)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func newImage(t *testing.T, g *gateway.Gateway, format string) string {
	t.Helper()
	return field(t, call(t, g, "POST", "/v2/images", fmt.Sprintf(`{"disk_format":%q,"container_format":"bare"}`, format), 201), "id")
}

// TestDiskFull fills the disk by an upload and by a guest's writes. The upload
// is refused and leaves nothing; the guest gets ENOSPC, keeps what was
// acknowledged and can go on once there is room; the catalog goes on all the
// while, since it has a reserve.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "512m")
	g := gateway.New(t, "--mount", "off", "--data-dir", dir, "PLATTER_LIMITS_RESERVE=128MiB", "PLATTER_LIMITS_OVERLAY_BYTES=1GiB")
	g.Dir, g.Socket = dir, filepath.Join(dir, "nbd.sock")
	g.Run(t)
	file, data := randomFile(t, 16<<20)
	base := upload(t, g, "base", "raw", file)

	big := newImage(t, g, "raw")
	if status, text := put(t, g, big, 1<<30); status != 413 || !strings.Contains(text, "space") {
		t.Errorf("an upload larger than the disk: %d %s", status, text)
	}
	if got := field(t, call(t, g, "GET", "/v2/images/"+big, "", 200), "status"); got != "queued" {
		t.Errorf("afterwards the image is %s", got)
	}
	if files := objects(t, dir); len(files) != 1 {
		t.Errorf("the refused upload left %v", files)
	}
	sameFileOverHTTP(t, g, base, data)

	body := fmt.Sprintf(`{"image_id":%q,"name":"full","size":%d}`, base, 1<<30)
	overlay := field(t, call(t, g, "POST", "/platter/v1/overlays", body, 201), "id")
	c, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 1<<20)
	written := fill(t, c, p)
	if written < 50 || written > 400 {
		t.Errorf("ENOSPC after %d MiB of a disk with some 300 free", written)
	}
	call(t, g, "POST", "/v2/images", `{"name":"the catalog has room"}`, 201)
	for i := range written {
		got, err := c.Read(uint64(i)<<20, len(p), 0)
		if err != nil || got[0] != byte(i+1) || got[len(got)-1] != byte(i+1) {
			t.Fatalf("MiB %d reads %d after the disk was full: %v", i, got[0], err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Errorf("flush on a full disk: %v", err)
	}
	for i := range min(written, 64) { // what the guest discards makes room again
		if err := c.Trim(uint64(i)<<20, 1<<20, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	err = c.WriteAt(p, 900<<20, 0)
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); err = c.WriteAt(p, 900<<20, 0) {
		time.Sleep(200 * time.Millisecond) // the free space is looked at now and then
	}
	if err != nil {
		t.Errorf("write after a discard: %v", err)
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	c.Disconnect()
	c.Close()
	g.Stop(t)
	if leaks, corruptions := checkOverlay(t, g, overlay); leaks+corruptions > 0 {
		t.Errorf("qemu-img check finds %d leaks and %d corruptions", leaks, corruptions)
	}
	g.Run(t)
}

// fill writes MiB after MiB until there is no room, and returns how many.
func fill(t *testing.T, c *nbdtest.Client, p []byte) int {
	t.Helper()
	for i := range 1 << 10 {
		for j := range p {
			p[j] = byte(i + 1)
		}
		err := c.WriteAt(p, uint64(i)<<20, 0)
		var refused *nbdtest.Error
		if errors.As(err, &refused) && refused.Errno == 28 {
			return i
		}
		if err != nil {
			t.Fatalf("MiB %d: %v, want ENOSPC", i, err)
		}
	}
	t.Fatal("the disk is never full")
	return 0
}

// fillUp leaves no byte of a disk.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 64 << 10; n > 0; n /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
}

// TestStopOnAFullDisk stops gateways where somebody else has taken the last
// byte: before the stop, again and again while it goes on, and with changes to
// the catalog in between. What was acknowledged is there at the next start;
// the stop is as any other, or says what to do.
func TestStopOnAFullDisk(t *testing.T) {
	for _, c := range []struct {
		name            string
		changes, greedy bool
	}{{"full", false, false}, {"changes", true, false}, {"greedy", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			dir := smallDisk(t, "400m")
			g := gateway.New(t, "--mount", "off", "--data-dir", dir, "PLATTER_LIMITS_RESERVE=1MiB")
			g.Dir, g.Socket = dir, filepath.Join(dir, "nbd.sock")
			g.Run(t)
			path, data := randomFile(t, 1<<20)
			image := upload(t, g, "base", "raw", path)
			overlay := field(t, call(t, g, "POST", "/platter/v1/overlays", fmt.Sprintf(`{"image_id":%q}`, image), 201), "id")
			conn, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := errors.Join(conn.WriteAt([]byte("kept"), 0, 0), conn.Flush()); err != nil {
				t.Fatal(err)
			}
			filler := filepath.Join(dir, "filler")
			fillUp(t, filler)
			made := []string{image}
			for range 100 {
				if !c.changes {
					break
				}
				body, status, err := g.Ask("POST", "/v2/images", `{"name":"late","disk_format":"raw","container_format":"bare"}`)
				if err != nil || status != 201 {
					break
				}
				made = append(made, field(t, body, "id"))
			}
			process := g.Process()
			process.Process.Signal(syscall.SIGTERM)
			for stopped := false; !stopped; {
				if c.greedy {
					fillUp(t, filler)
				}
				select {
				case <-g.Done():
					stopped = true
				case <-time.After(time.Millisecond):
				}
			}
			code := process.ProcessState.ExitCode()
			t.Logf("it ended with %d after %d changes", code, len(made)-1)
			want := "the embedded etcd has ended: the disk is full: make room" // before the stop
			if c.greedy {
				want = "make room"
			}
			if code != 0 && !strings.Contains(g.Log(), want) {
				t.Errorf("it ended with %d and said\n%s", code, g.Log()[max(0, len(g.Log())-2000):])
			}
			os.Remove(filler)
			g.Run(t)
			sameFileOverHTTP(t, g, image, data)
			for _, id := range made {
				call(t, g, "GET", "/v2/images/"+id, "", 200)
			}
			if conn, err = nbdtest.Open("unix", g.Socket, "overlay/"+overlay); err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got, err := conn.Read(0, 4, 0); err != nil || string(got) != "kept" {
				t.Errorf("the overlay has %q, %v", got, err)
			}
		})
	}
}

// TestHandOverOnAFullDisk: where the next process might not start, the first
// one goes on.
func TestHandOverOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, "400m")
	g := gateway.New(t, "--mount", "off", "--data-dir", dir, "PLATTER_LIMITS_RESERVE=1MiB")
	g.Dir, g.Socket = dir, filepath.Join(dir, "nbd.sock")
	g.Run(t)
	path, _ := randomFile(t, 1<<20)
	conn, err := nbdtest.Open("unix", g.Socket, "overlay/"+g.NewOverlay(t, upload(t, g, "base", "raw", path), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteAt([]byte("kept"), 0, 0); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	fillUp(t, filler)
	back := g.LaunchTakeOver(t)
	<-g.Done()
	if code := g.ExitCode(); code != 1 || !strings.Contains(g.Log(), "make room") {
		t.Errorf("the next one ended with %d", code)
	}
	back()
	for range 2 {
		if got, err := conn.Read(0, 4, 0); err != nil || string(got) != "kept" {
			t.Fatalf("the overlay has %q, %v", got, err)
		}
		os.Remove(filler)
		g.TakeOver(t)
	}
	conn.Disconnect()
}

// TestQuotas wants quotas of overlays and ephemeral disks to be ENOSPC.
func TestQuotas(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "PLATTER_LIMITS_OVERLAY_BYTES=16MiB", "PLATTER_LIMITS_EPHEMERAL_BYTES=16MiB", "PLATTER_LIMITS_IMAGE_SIZE=8MiB")
	file, _ := randomFile(t, 4<<20)
	base := upload(t, g, "base", "raw", file)
	if status, _ := put(t, g, newImage(t, g, "raw"), 8<<20+1); status != 413 {
		t.Errorf("an upload over the limit: %d", status)
	}
	big := fmt.Sprintf(`{"image_id":%q,"size":%d}`, base, 64<<20)
	for _, export := range []string{
		"overlay/" + field(t, call(t, g, "POST", "/platter/v1/overlays", big, 201), "id"),
	} {
		c, err := nbdtest.Open("unix", g.Socket, export)
		if err != nil {
			t.Fatal(err)
		}
		if n := fill(t, c, make([]byte, 1<<20)); n < 14 || n > 16 {
			t.Errorf("%s: ENOSPC after %d MiB, the quota is 16", export, n)
		}
		c.Close()
	}
}

// objects lists the files of the store.
func objects(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	filepath.WalkDir(filepath.Join(dir, "images"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	return files
}

func sameFileOverHTTP(t *testing.T, g *gateway.Gateway, id string, want []byte) {
	t.Helper()
	if code, body := get(t, g.URL+"/v2/images/"+id+"/file"); code != 200 || body != string(want) {
		t.Errorf("download of %s: %d, %d bytes of %d", id, code, len(body), len(want))
	}
}
