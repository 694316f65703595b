//go:build integration

package delta_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/overlay/delta"
)

// TestQEMUKeepsOff: what we have open QEMU does not open, except to look at it
// when told that it may change.
func TestQEMUKeepsOff(t *testing.T) {
	k := newDisk(t, 8<<20, 8<<20)
	refused := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "lock") {
			t.Errorf("%s %s: %v, want a refusal because of a lock\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	for range 2 { // as made, and as opened
		refused("qemu-io", "-f", "qcow2", "-c", "write 0 4k", k.file)
		refused("qemu-io", "-r", "-f", "qcow2", "-c", "read 0 4k", k.file)
		refused("qemu-img", "info", k.file)
		refused("qemu-img", "check", "-r", "all", k.file)
		refused("qemu-img", "snapshot", "-c", "no", k.file)
		refused("qemu-img", "resize", k.file, "+1M")
		run(t, "qemu-img", "info", "-U", k.file)
		run(t, "qemu-img", "check", "-U", k.file)
		if err := k.d.WriteAt(t.Context(), make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		if err := k.d.Close(); err != nil {
			t.Fatal(err)
		}
		// Nobody has it: everything is allowed.
		run(t, "qemu-img", "info", k.file)
		run(t, "qemu-img", "check", k.file)
		run(t, "qemu-io", "-f", "qcow2", "-c", "write 0 4k", k.file)
		var err error
		if k.d, err = delta.Open(t.Context(), k.cfg); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.d.Close(); err != nil {
		t.Fatal(err)
	}
}

// waitLocked waits until somebody locks the file.
func waitLocked(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", info.Sys().(*syscall.Stat_t).Ino)
	for range 6000 {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(locks), inode) {
			time.Sleep(500 * time.Millisecond) // it takes several
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("QEMU does not lock its image")
}

// TestKeepsOffQEMU: what QEMU has open we do not open, and say why.
func TestKeepsOffQEMU(t *testing.T) {
	k := newDisk(t, 8<<20, 8<<20)
	if err := k.d.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ mode, says string }{
		{"", "open for writing"},
		{"-r", "nobody to write"},
	} {
		args := []string{"-f", "qcow2", "-c", "read 0 4k", "-c", "sleep 60000", k.file}
		if c.mode != "" {
			args = append([]string{c.mode}, args...)
		}
		cmd := exec.Command("qemu-io", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitLocked(t, k.file)
		begin := time.Now()
		_, err = delta.Open(t.Context(), k.cfg)
		if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), k.file) {
			t.Errorf("qemu-io %s has it open, we say: %v", c.mode, err)
		}
		if waited := time.Since(begin); waited > 30*time.Second {
			t.Errorf("waited %v", waited)
		}
		t.Log(err)
		cmd.Process.Kill()
		cmd.Wait()
	}
	after, err := os.ReadFile(k.file)
	if err != nil || string(after) != string(before) {
		t.Error("the file was changed, or: ", err)
	}
	if k.d, err = delta.Open(t.Context(), k.cfg); err != nil {
		t.Fatal("after QEMU has ended: ", err)
	}
	if err := k.d.Close(); err != nil {
		t.Fatal(err)
	}
}
