//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestNBDSharedDisk has several connections to one overlay: what one was told
// is written, all others read, and a flush on any of them keeps it over a kill
// of the gateway.
func TestNBDSharedDisk(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, _ := randomFile(t, 8<<20)
	image := upload(t, g, "base", "raw", file)
	byName, attached := newOverlay(t, g, image, ""), newOverlay(t, g, image, "")
	_, unixToken := attachment(t, g, "overlay_id", attached, "rw", "unix")
	tcpOverlay := newOverlay(t, g, image, "")
	_, tcpToken := attachment(t, g, "overlay_id", tcpOverlay, "rw", "tcp")
	_, ephemeral := attachment(t, g, "image_id", image, "ephemeral", "tcp")
	doors := [][3]string{{"unix", g.Socket, "overlay/" + byName}, {"unix", g.Socket, unixToken}, {"tcp", g.NBD, tcpToken}, {"tcp", g.NBD, ephemeral}}
	const conns, each = 4, 64
	for round := range 3 {
		var work sync.WaitGroup
		for _, d := range doors {
			work.Go(func() { shareDisk(t, d, byte(round), conns, each) })
		}
		work.Wait()
		g.Kill(t)
		g.Run(t)
		for _, d := range doors[:3] { // an ephemeral disk need not outlive a crash
			c, err := nbdtest.Open(d[0], d[1], d[2])
			if err != nil {
				t.Fatal(err)
			}
			for i := range conns * each {
				if p, err := c.Read(uint64(i)*8192, 8192, 0); err != nil || !bytes.Equal(p, noise(8192, byte(round)+byte(i))) {
					t.Fatalf("%s: write %d was answered before a flush on another connection, and is lost (%v)", d[2][:8], i, err)
				}
			}
			c.Close()
		}
	}
}

// shareDisk writes on all connections but flushes on one alone.
func shareDisk(t *testing.T, door [3]string, round byte, conns, each int) {
	var all []*nbdtest.Client
	for range conns {
		c, err := nbdtest.Open(door[0], door[1], door[2])
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if c.Flags&nbdtest.CanMultiConn == 0 {
			t.Errorf("%s over %s: multi-conn is not announced", door[2][:8], door[0])
		}
		all = append(all, c)
	}
	var work sync.WaitGroup
	for k, c := range all {
		work.Go(func() {
			for i := k; i < conns*each; i += conns {
				if err := c.WriteAt(noise(8192, round+byte(i)), uint64(i)*8192, 0); err != nil {
					t.Error(err)
				}
				// Whoever reads after the answer sees it, on any connection.
				if p, err := all[(k+1)%conns].Read(uint64(i)*8192, 8192, 0); err != nil || !bytes.Equal(p, noise(8192, round+byte(i))) {
					t.Errorf("a write on connection %d is not seen on the next: %v", k, err)
				}
			}
		})
	}
	work.Wait()
	if err := all[conns-1].Flush(); err != nil {
		t.Error(err)
	}
}

// stranger opens an export in another process and holds it until stop.
func stranger(t *testing.T, uri string) (name string, stop func()) {
	t.Helper()
	cmd := exec.Command("/usr/bin/qemu-io", "-f", "raw", uri)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { in.Close(); cmd.Wait() })
	t.Cleanup(end)
	fmt.Fprintln(in, "length")
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it has the export open
		t.Fatalf("qemu-io did not open %s: %v", uri, err)
	}
	return fmt.Sprintf("qemu-io (process %d)", cmd.Process.Pid), end
}

// TestNBDOneWriter wants a second client for writing to be refused, and told
// who has the overlay.
func TestNBDOneWriter(t *testing.T) {
	gateway.Need(t, "qemu-io")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, data := randomFile(t, 4<<20)
	image := upload(t, g, "base", "raw", file)
	id := newOverlay(t, g, image, "")
	name := "overlay/" + id
	refused := func(network, addr, export, holder string) {
		t.Helper()
		c, err := nbdtest.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Go(export)
		var no *nbdtest.OptError
		if !errors.As(err, &no) || no.Type != nbdtest.RepErrPolicy || !strings.Contains(no.Text, holder) || !strings.Contains(no.Text, id) {
			t.Errorf("%s over %s: %v, want a refusal that names %s", export[:8], network, err, holder)
		}
		if _, err := c.Go(image); err != nil { // and can do something else
			t.Error(err)
		}
	}
	conflict := func(body, holder string) {
		t.Helper()
		if text := string(call(t, g, "POST", "/platter/v1/attachments", body, 409)); !strings.Contains(text, holder) {
			t.Errorf("409 does not name %s: %s", holder, text)
		}
	}
	rw := fmt.Sprintf(`{"overlay_id":%q,"mode":"rw","transport":"unix"}`, id)

	// Another process by name.
	who, stop := stranger(t, g.Export(name))
	refused("unix", g.Socket, name, who)
	refused("tcp", g.NBD, name, who)
	conflict(rw, who)
	stop()

	// A TCP connection by name: it stands for itself.
	c := openSoon(t, "tcp", g.NBD, name)
	if c.Flags&nbdtest.CanMultiConn != 0 {
		t.Error("multi-conn is announced to a client that cannot have a second connection")
	}
	refused("tcp", g.NBD, name, c.Conn.LocalAddr().String())
	refused("unix", g.Socket, name, c.Conn.LocalAddr().String())
	conflict(rw, c.Conn.LocalAddr().String())
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}

	// An attachment: nobody else, by name or by another attachment.
	aid, token := attachment(t, g, "overlay_id", id, "rw", "unix")
	refused("unix", g.Socket, name, aid)
	conflict(rw, aid)
	a := openSoon(t, "unix", g.Socket, token)
	if err := a.WriteAt(noise(4096, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	refused("tcp", g.NBD, name, aid)

	// Those that only read may, and see what is written.
	_, reader := attachment(t, g, "overlay_id", id, "ro", "tcp")
	for range 3 {
		r := openSoon(t, "tcp", g.NBD, reader)
		defer r.Close()
		if r.Flags&nbdtest.ReadOnly == 0 {
			t.Error("an attachment for reading can write")
		}
		if err := r.WriteAt(make([]byte, 512), 0, 0); nbdtest.Errno(err) != nbdtest.EPERM {
			t.Errorf("write: %v", err)
		}
		if p, err := r.Read(0, 4096, 0); err != nil || !bytes.Equal(p, noise(4096, 1)) {
			t.Errorf("a reader does not see what was written: %v", err)
		}
	}
	img := openSoon(t, "tcp", g.NBD, image)
	if p, err := img.Read(0, 4096, 0); err != nil || !bytes.Equal(p, data[:4096]) {
		t.Errorf("the image has changed (%v)", err)
	}

	// Detached: cut at once, and free at once.
	call(t, g, "DELETE", "/platter/v1/attachments/"+aid, "", 204)
	if err := a.WriteAt(make([]byte, 512), 0, 0); err == nil {
		t.Error("a detached client can write")
	}
	d := openSoon(t, "unix", g.Socket, name)
	defer d.Close()
	if p, err := d.Read(0, 4096, 0); err != nil || !bytes.Equal(p, noise(4096, 1)) {
		t.Errorf("the overlay lost what was written: %v", err)
	}
}

// openSoon opens an export at once: whoever had it is gone.
func openSoon(t *testing.T, network, addr, name string) *nbdtest.Client {
	t.Helper()
	c, err := nbdtest.Open(network, addr, name)
	if err != nil {
		t.Fatalf("%s over %s: %v", name[:8], network, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestNBDOneAfterTheOther runs programs on one overlay by name, each as soon as
// the last has ended, the way a script does.
func TestNBDOneAfterTheOther(t *testing.T) {
	gateway.Need(t, "qemu-io", "qemu-img", "nbdcopy", "nbdinfo")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, _ := randomFile(t, 24<<20)
	id := newOverlay(t, g, upload(t, g, "base", "raw", file), "")
	uri, out := g.Export("overlay/"+id), filepath.Join(t.TempDir(), "out")
	tcp := "nbd://" + g.NBD + "/overlay/" + id
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, append(make([]byte, 3<<20), noise(21<<20, 3)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, u := range []string{uri, tcp, uri, tcp, uri} {
		tool(t, "nbdcopy", other, u) // an overlay with data in it
		tool(t, "nbdcopy", u, out)
		sameFile(t, out, readAll(t, other))
		tool(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P %d 1M 300k", i+1), "-c", "flush", "-c", "write -z 2M 64k", u)
		tool(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("read -P %d 1M 300k", i+1), "-c", "read -P 0 2M 64k", u)
		tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, u)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, u)
		tool(t, "nbdinfo", u)
	}
}

// TestNBDKilledClient kills clients with -9 in the middle of their work; the
// overlay is free for the next at once, whole, and the gateway keeps nothing.
func TestNBDKilledClient(t *testing.T) {
	gateway.Need(t, "fio", "qemu-img")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, _ := randomFile(t, 16<<20)
	id := newOverlay(t, g, upload(t, g, "base", "raw", file), "")
	uri := g.Export("overlay/" + id)
	for range 5 {
		cmd := exec.Command("fio", "--name=j", "--ioengine=nbd", "--uri="+uri, "--thread=1", "--numjobs=2", "--rw=randwrite", "--bs=64k", "--iodepth=32", "--time_based", "--runtime=60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if _, text := get(t, g.Debug+"/debug/nbd"); strings.Count(text, id) >= 2 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("fio did not begin")
			}
		}
		time.Sleep(100 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		c := openSoon(t, "tcp", g.NBD, "overlay/"+id)
		if err := c.WriteAt(noise(4096, 1), 0, nbdtest.FUA); err != nil {
			t.Error(err)
		}
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	}
	idle(t, g)
	g.Stop(t)
	if leaks, corruptions := checkOverlay(t, g, id); leaks+corruptions > 0 {
		t.Errorf("%d leaks, %d corruptions", leaks, corruptions)
	}
	g.Run(t)
}
