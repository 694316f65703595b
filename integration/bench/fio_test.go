//go:build integration

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A side is one of those that are compared: an export, and the process that
// serves it.
type side struct {
	name   string
	uri    string
	socket string // and export: what uri says, if it is a unix socket
	export string
	pid    int
}

// A result is what one run of fio came to.
type result struct {
	rate float64 // requests a second, or MiB/s where they are large
	cpu  float64 // µs of CPU of the server for a request, or for a MiB
	p99  float64 // µs that 99 of 100 requests took at most; 0 if nobody measured
}

// fio runs a job against a side for as long as BENCH_SECONDS says.
func fio(t testing.TB, s side, large bool, args ...string) result {
	t.Helper()
	return fioAmount(t, s, large, append([]string{"--time_based", "--runtime=" + strconv.Itoa(seconds()), "--norandommap"}, args...)...)
}

// fioAmount runs a job against a side until it has done what args say.
func fioAmount(t testing.TB, s side, large bool, args ...string) result {
	t.Helper()
	args = append([]string{"--name=j", "--ioengine=nbd", "--uri=" + s.uri, "--output-format=json", "--thread=1", "--randrepeat=0"}, args...)
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
		Took  struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
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
	micros, p99 := float64(used.Microseconds()), d.Took.Percentile["99.000000"]/1000
	if large {
		return result{rate: d.BW / (1 << 20), cpu: micros / (d.Bytes / (1 << 20)), p99: p99}
	}
	return result{rate: d.IOPS, cpu: micros / d.Total, p99: p99}
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
