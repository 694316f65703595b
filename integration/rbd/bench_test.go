//go:build integration

package rbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
	"github.com/seed-478a8fee/platter/nbd"
)

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) backends.Store { return open(b, config(b, ceph(b))) })
}

func BenchmarkDevice(b *testing.B) {
	s := open(b, config(b, ceph(b)))
	clone(b, s, "o", make([]byte, 64<<20), 0)
	d := device(b, s, "o", 1)
	defer closing(b, d)
	if err := d.WriteAt(b.Context(), storetest.Bytes(1, 64<<20), 0); err != nil {
		b.Fatal(err)
	}
	blocktest.Benchmark(b, d)
	blocktest.BenchmarkDevice(b, d)
}

// disks are Exports of one disk.
type disks struct{ disk block.Reader }

func (d disks) Open(_ context.Context, _ nbd.Client, name string) (nbd.Export, error) {
	if name != "k" {
		return nbd.Export{}, fs.ErrNotExist
	}
	return nbd.Export{Disk: d.disk}, nil
}

func (d disks) List(context.Context, nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(func(nbd.Info, error) bool) {}
}

// serve serves a disk by our NBD server and returns its URI.
func serve(t testing.TB, disk block.Reader) string {
	t.Helper()
	server, err := nbd.New(nbd.Config{Exports: disks{disk}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		<-done
		if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return "nbd+unix:///k?socket=" + path
}

// qemuNBD serves an object by qemu-nbd and returns its URI.
func qemuNBD(t testing.TB, c *servers.Ceph, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	image := fmt.Sprintf("rbd:%s/%s@snap:id=%s:conf=%s", c.Pool, key, c.User, c.Conf)
	cmd := exec.Command("qemu-nbd", "-r", "-t", "-f", "raw", "-x", "k", "-e", "4", "-k", path, image)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "nbd+unix:///k?socket=" + path
}

// fio runs a job and returns reads a second and bytes a second.
func fio(t testing.TB, args ...string) (iops, rate float64) {
	t.Helper()
	args = append([]string{"--name=j", "--output-format=json", "--time_based", "--runtime=3", "--ramp_time=1", "--size=1g"}, args...)
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		t.Fatalf("fio %v: %v\n%s", args, err, out)
	}
	var result struct {
		Jobs []struct {
			Read struct {
				IOPS float64 `json:"iops"`
				BW   float64 `json:"bw_bytes"`
			} `json:"read"`
		} `json:"jobs"`
	}
	out = out[max(bytes.IndexByte(out, '{'), 0):] // the engine says hello first
	if err := json.Unmarshal(out, &result); err != nil || len(result.Jobs) != 1 {
		t.Fatalf("fio: %v\n%s", err, out)
	}
	return result.Jobs[0].Read.IOPS, result.Jobs[0].Read.BW
}

// TestSpeed reads one object through our NBD server and through QEMU's, in one
// run, and with librbd's own engine of fio for the scale.
func TestSpeed(t *testing.T) {
	c := ceph(t)
	s := open(t, plain(t, c))
	const key, size = "speed", 1 << 30
	w, err := s.Create(t.Context(), key, size)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	piece := storetest.Bytes(1, 16<<20)
	for range size / len(piece) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // when QEMU no longer has it open
		if err := s.Delete(context.WithoutCancel(t.Context()), key); err != nil {
			t.Error(err)
		}
	})
	r, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, r)
	ours, theirs := "--uri="+serve(t, r), "--uri="+qemuNBD(t, c, key)
	for _, job := range []struct {
		name  string
		least float64 // of ours to theirs
		args  []string
	}{
		{"4 KiB random, depth 1", 0.9, []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
		{"4 KiB random, depth 32", 2.5, []string{"--rw=randread", "--bs=4k", "--iodepth=32"}},
		{"1 MiB sequential, depth 1", 0.9, []string{"--rw=read", "--bs=1m", "--iodepth=1"}},
		{"1 MiB sequential, depth 4", 0.9, []string{"--rw=read", "--bs=1m", "--iodepth=4"}},
	} {
		our, rate := fio(t, append(job.args, "--ioengine=nbd", ours)...)
		their, theirRate := fio(t, append(job.args, "--ioengine=nbd", theirs)...)
		t.Logf("%s: ours %.0f/s (%.0f MB/s), qemu-nbd %.0f/s (%.0f MB/s): %.2f times", job.name, our, rate/1e6, their, theirRate/1e6, our/their)
		if our < job.least*their {
			t.Errorf("%s: %.2f times qemu-nbd, want %.1f", job.name, our/their, job.least)
		}
	}
}
