//go:build integration

package kernel

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
)

// A world is a gateway and a guest on its machine, whose kernel is the client.
type world struct {
	g   *gateway.Gateway
	m   *guest.Machine
	ctx context.Context

	image string // a raw disk
	sum   string // MD5 of its bytes
	blank string // an empty raw disk
}

const (
	imageSize = 24 << 20
	blankSize = 96 << 20
)

// soaking says whether the full counts are wanted.
func soaking() bool { return os.Getenv("PLATTER_SOAK") != "" }

// start starts both and makes two images.
func start(t *testing.T) *world {
	t.Helper()
	gateway.Need(t, "qemu-system-x86_64", "nbd-client", "fio", "busybox", "mke2fs", "go")
	within := 40 * time.Minute
	if soaking() {
		within = 2 * time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tools, err := guest.Tools(ctx, dir, "nbd-client", "fio", static(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{g: gateway.Start(t, "--mount", "off", "--log-level", "info"), ctx: ctx}
	w.image, w.sum = w.upload(t, dir, "random", imageSize)
	w.blank, _ = w.upload(t, dir, "blank", blankSize)

	begin := time.Now()
	w.m, err = files.Boot(ctx, fmt.Sprintf("-drive file=%s,if=none,id=root,snapshot=on -device virtio-blk-pci,drive=root "+
		"-drive file=%s,if=none,id=tools,format=raw,read-only=on -device virtio-blk-pci,drive=tools "+
		"-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=", files.Disk, tools))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.m.Kill() })
	if err := w.m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	for _, line := range guest.ToolsReady() {
		w.run(t, "%s", line)
	}
	t.Logf("the guest is up after %v", time.Since(begin).Round(100*time.Millisecond))
	return w
}

// static builds a platter that runs without libraries.
func static(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "platter")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/platter")
	cmd.Dir = gateway.Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// upload makes an image with random bytes, or an empty one.
func (w *world) upload(t *testing.T, dir, name string, size int64) (id, sum string) {
	t.Helper()
	data := make([]byte, size)
	if name == "random" {
		r := rand.NewChaCha8([32]byte{1})
		r.Read(data)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	digest := md5.Sum(data)
	return w.g.Upload(t, name, "raw", path), hex.EncodeToString(digest[:])
}

// run lets the guest run a line, which must succeed, and returns what it
// printed.
func (w *world) run(t *testing.T, line string, args ...any) string {
	t.Helper()
	out, err := w.m.Run(w.ctx, fmt.Sprintf(line, args...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// attach makes an attachment and returns what "platter attach --print" prints,
// with the host's address as the guest sees it.
func (w *world) attach(t *testing.T, what, print string, more ...string) string {
	t.Helper()
	line := w.g.Command(t, gateway.Binary(t, "platter"), append([]string{"attach", what, "--transport", "tcp", "--print", print}, more...)...)
	return strings.Replace(strings.TrimSpace(line), "127.0.0.1", "10.0.2.2", 1)
}

// restart stops the gateway as an operator does and starts it again after a
// while.
func (w *world) restart(t *testing.T, away time.Duration) {
	t.Helper()
	w.g.Stop(t)
	time.Sleep(away)
	w.g.Run(t)
}

// sound ends the test if the guest's kernel has seen an I/O error since the
// last time.
func (w *world) sound(t *testing.T) {
	t.Helper()
	if log := w.run(t, "busybox dmesg -c | grep -E 'I/O error|EXT4-fs error|Aborting journal' || :"); log != "" {
		t.Fatalf("the guest's kernel says:\n%s", log)
	}
}
