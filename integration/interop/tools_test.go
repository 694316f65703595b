//go:build integration

package interop

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// tools are the programs of one release of Debian.
type tools struct {
	name string
	root string // where they are unpacked; "" for those of this machine
}

// debian12 is what this machine has.
func debian12(t testing.TB) tools {
	gateway.Need(t, "nbdinfo", "nbdcopy", "nbdsh", "qemu-img", "qemu-io", "qemu-nbd", "fio")
	return tools{name: "debian 12"}
}

// debian13 is unpacked once.
func debian13(t testing.TB) tools {
	t.Helper()
	gateway.Need(t, "mmdebstrap")
	dir := filepath.Join(cmp.Or(os.Getenv("PLATTER_CACHE"), filepath.Join(gateway.Root(), ".cache")), "newer")
	if out, err := exec.CommandContext(t.Context(), filepath.Join(gateway.Root(), "integration", "interop", "build.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("the clients of Debian 13: %v\n%s", err, out)
	}
	return tools{name: "debian 13", root: filepath.Join(dir, "root")}
}

// command makes a command that ends within a minute and with the test.
func (k tools) command(t testing.TB, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	if k.root == "" {
		if name == "nbdsh" { // which asks PATH for a Python that may not have libnbd
			name, args = "/usr/bin/python3", append([]string{"-mnbd"}, args...)
		}
		return exec.CommandContext(ctx, name, args...)
	}
	usr := filepath.Join(k.root, "usr")
	if name == "nbdsh" {
		name, args = "python3.13", append([]string{"-mnbd"}, args...)
	}
	line := append([]string{"--library-path", filepath.Join(usr, "lib/x86_64-linux-gnu"), filepath.Join(usr, "bin", name)}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(usr, "lib64/ld-linux-x86-64.so.2"), line...)
	cmd.Env = append(os.Environ(), "PYTHONHOME="+usr, "PYTHONPATH="+filepath.Join(usr, "lib/python3/dist-packages"))
	return cmd
}

// try runs a program and returns what it prints; the error has it, too.
func (k tools) try(t testing.TB, name string, args ...string) (string, error) {
	cmd := k.command(t, name, args...)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %s %s: %w\n%s%s", k.name, name, strings.Join(args, " "), err, out.String(), words.String())
	}
	return out.String(), nil
}

// run is try of what must succeed.
func (k tools) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := k.try(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shell runs a few lines of Python in nbdsh and returns what they print.
// URI and whatever else they need is put in by the caller.
func (k tools) shell(t testing.TB, lines ...string) string {
	t.Helper()
	return strings.TrimSpace(k.run(t, "nbdsh", "-c", strings.Join(lines, "\n")))
}

// start runs a program beside the test until stop.
func (k tools) start(t testing.TB, name string, args ...string) (stop func() error) {
	t.Helper()
	cmd := k.command(t, name, args...)
	var words bytes.Buffer
	cmd.Stderr, cmd.Stdout = &words, &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %s: %w\n%s", k.name, name, err, words.String())
		}
		return nil
	})
	t.Cleanup(func() { cmd.Process.Kill(); stop() })
	return stop
}
