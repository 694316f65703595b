//go:build integration

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A side is one of those that are compared: an export, and the process that
// serves it.
type side struct {
	name string
	uri  string
	pid  int
}

// A result is what one run of fio came to.
type result struct {
	rate float64 // requests a second, or MiB/s where they are large
	cpu  float64 // µs of CPU of the server for a request, or for a MiB
}

// fio runs a job against a side.
func fio(t testing.TB, s side, large bool, args ...string) result {
	t.Helper()
	args = append([]string{"--name=j", "--ioengine=nbd", "--uri=" + s.uri, "--output-format=json", "--thread=1",
		"--time_based", "--runtime=" + strconv.Itoa(seconds()), "--norandommap", "--randrepeat=0"}, args...)
	before := cpuTime(t, s.pid)
	out, err := exec.CommandContext(t.Context(), "fio", args...).Output()
	if err != nil {
		t.Fatalf("fio %v: %v\n%s", args, err, out)
	}
	used := cpuTime(t, s.pid) - before
	type direction struct {
		IOPS  float64 `json:"iops"`
		Bytes float64 `json:"io_bytes"`
		Total float64 `json:"total_ios"`
		BW    float64 `json:"bw_bytes"`
	}
	var parsed struct {
		Jobs []struct {
			Read  direction `json:"read"`
			Write direction `json:"write"`
			Error int       `json:"error"`
		} `json:"jobs"`
	}
	out = out[max(bytes.IndexByte(out, '{'), 0):] // the engine says hello first
	if err := json.Unmarshal(out, &parsed); err != nil || len(parsed.Jobs) != 1 || parsed.Jobs[0].Error != 0 {
		t.Fatalf("fio %v: %v\n%s", args, err, out)
	}
	d := parsed.Jobs[0].Read
	if w := parsed.Jobs[0].Write; w.Total > 0 {
		d = w
	}
	micros := float64(used.Microseconds())
	if large {
		return result{rate: d.BW / (1 << 20), cpu: micros / (d.Bytes / (1 << 20))}
	}
	return result{rate: d.IOPS, cpu: micros / d.Total}
}

// cpuTime returns how much CPU time a process has used. The kernel counts it
// in hundredths of a second.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// qemuNBD serves a disk by qemu-nbd until stop.
func qemuNBD(t testing.TB, name, image string, args ...string) (s side, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "platter-bench-") // short, for the socket's sake
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	cmd := exec.Command("qemu-nbd", append(args, "-t", "-x", "k", "-e", "4", "-k", path, image)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(os.Interrupt) // it says good-bye to the cluster
			_ = cmd.Wait()
		}
		os.RemoveAll(dir)
	}
	t.Cleanup(stop)
	for range 500 {
		if _, err := os.Stat(path); err == nil {
			return side{name: name, uri: "nbd+unix:///k?socket=" + path, pid: cmd.Process.Pid}, stop
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("qemu-nbd %s does not answer: %s", image, said.String())
	return side{}, nil
}
