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
		_ = cmd.Process.Signal(os.Interrupt) // it says good-bye to the cluster
		_ = cmd.Wait()
	})
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "nbd+unix:///k?socket=" + path
}

// fio runs a job and returns reads a second.
func fio(t testing.TB, args ...string) float64 {
	t.Helper()
	args = append([]string{"--name=j", "--output-format=json", "--time_based", "--runtime=2", "--size=512m"}, args...)
	out, err := exec.Command("fio", args...).Output()
	if err != nil {
		t.Fatalf("fio %v: %v\n%s", args, err, out)
	}
	var result struct {
		Jobs []struct {
			Read struct {
				IOPS float64 `json:"iops"`
			} `json:"read"`
		} `json:"jobs"`
	}
	out = out[max(bytes.IndexByte(out, '{'), 0):] // the engine says hello first
	if err := json.Unmarshal(out, &result); err != nil || len(result.Jobs) != 1 {
		t.Fatalf("fio: %v\n%s", err, out)
	}
	return result.Jobs[0].Read.IOPS
}

// BenchmarkBesideQEMU reads one object through our NBD server and through
// QEMU's, in turns: on a small machine a neighbour can spoil one of them, so
// the best of three counts.
func BenchmarkBesideQEMU(b *testing.B) {
	c := ceph(b)
	s := open(b, plain(b, c))
	const key, size = "speed", 512 << 20
	b.Cleanup(func() { // when QEMU no longer has it open
		if err := s.Delete(context.WithoutCancel(b.Context()), key); err != nil {
			b.Error(err)
		}
	})
	if err := storetest.Put(b.Context(), s, key, size, storetest.Bytes(1, size)); err != nil {
		b.Fatal(err)
	}
	r, err := s.Open(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closing(b, r) })
	ours, theirs := "--uri="+serve(b, r), "--uri="+qemuNBD(b, c, key)
	for _, job := range []struct {
		name  string
		least float64 // of ours to theirs
		args  []string
	}{
		{"random-4k-depth-1", 1, []string{"--rw=randread", "--bs=4k", "--iodepth=1"}},
		{"random-4k-depth-32", 2.5, []string{"--rw=randread", "--bs=4k", "--iodepth=32"}},
		{"sequential-1m-depth-1", 1, []string{"--rw=read", "--bs=1m", "--iodepth=1"}},
		{"sequential-1m-depth-4", 1, []string{"--rw=read", "--bs=1m", "--iodepth=4"}},
	} {
		b.Run(job.name, func(b *testing.B) {
			var our, their float64
			for b.Loop() {
				for range 3 {
					our = max(our, fio(b, append(job.args, "--ioengine=nbd", ours)...))
					their = max(their, fio(b, append(job.args, "--ioengine=nbd", theirs)...))
				}
			}
			b.ReportMetric(our, "reads/s")
			b.ReportMetric(their, "qemu-nbd-reads/s")
			b.ReportMetric(our/their, "times")
			b.ReportMetric(0, "ns/op")
			if our < job.least*their {
				b.Logf("SHORT of the aim of %.1f times", job.least)
			}
		})
	}
}
