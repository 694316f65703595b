//go:build integration

package integration

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// peak returns the most memory that a process has had resident since
// resetPeak, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	status := readAll(t, fmt.Sprintf("/proc/%d/status", pid))
	kib, err := strconv.ParseInt(string(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestUploadMemory sends four large uploads at once: each may cost the gateway
// 32 MiB, whatever its size.
func TestUploadMemory(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	size := int64(256 << 20)
	if os.Getenv("PLATTER_SOAK") != "" {
		size = 4 << 30
	}
	put(t, g, newImage(t, g, "raw"), 1<<20) // whatever is made once
	resetPeak(t, g.PID())
	before := peak(t, g.PID())
	var uploads sync.WaitGroup
	for range 4 {
		id := newImage(t, g, "raw")
		uploads.Go(func() {
			if status, text := put(t, g, id, size); status != 204 {
				t.Errorf("upload: %d %s", status, text)
			}
		})
	}
	uploads.Wait()
	grown := peak(t, g.PID()) - before
	t.Logf("4 uploads of %d MiB: %d MiB more than the %d MiB before", size>>20, grown>>20, before>>20)
	if grown > 4*32<<20 {
		t.Errorf("%d MiB for 4 uploads", grown>>20)
	}
}
