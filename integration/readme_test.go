//go:build integration

package integration

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// shellBlocks returns the README's blocks of shell commands, in order.
func shellBlocks(t *testing.T) []string {
	t.Helper()
	text := string(readAll(t, filepath.Join(gateway.Root(), "README.md")))
	var blocks []string
	for _, part := range strings.Split(text, "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) < 5 {
		t.Fatalf("the README has %d blocks of commands", len(blocks))
	}
	return blocks
}

// TestQuickStart types the README's commands, as they stand there, into a
// shell in a fresh clone. Where one boots a guest, it waits until the guest is
// up and tells it to power off.
func TestQuickStart(t *testing.T) {
	gateway.Need(t, "git", "make", "openstack", "qemu-system-x86_64")
	blocks := shellBlocks(t)
	home := t.TempDir()
	clone := filepath.Join(home, "platter")
	tool(t, "git", "clone", "-q", "--no-hardlinks", gateway.Root(), clone)

	_, start, _ := strings.Cut(blocks[0], "\n") // all but the clone
	server := shell(t, clone, start)
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	begun := time.Now()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		syscall.Kill(-server.Process.Pid, syscall.SIGTERM)
		server.Wait()
		if t.Failed() {
			t.Logf("make run said:\n%s", log.String())
		}
	}()
	for !ready() {
		if time.Since(begun) > 15*time.Minute {
			t.Fatal("make run does not get ready")
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("ready %v after make run", time.Since(begun).Round(time.Second))

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	boots := 0
	path := "export PATH=$PWD/bin:$PATH\n"
	for _, block := range blocks[1:] {
		cmd := shell(t, clone, "set -e\n"+path+block)
		boots += strings.Count(block, "qemu-system-x86_64")
		if out, err := obey(ctx, cmd); err != nil {
			t.Fatalf("%v\n%s\n%s", err, block, out)
		}
	}
	if boots < 2 {
		t.Errorf("%d guests booted, want 2", boots)
	}
	t.Logf("from make run to a captured image: %v", time.Since(begun).Round(time.Second))
}

func ready() bool {
	resp, err := http.Get("http://127.0.0.1:9292/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == 200
}

func shell(t *testing.T, dir, script string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	// The guest is in the cache already, and so is what Go needs.
	cmd.Env = append(os.Environ(), "PLATTER_CACHE="+filepath.Join(dir, ".cache"), "PYTHONWARNINGS=ignore")
	return cmd
}

// obey runs cmd and powers off every guest that comes up in it.
func obey(ctx context.Context, cmd *exec.Cmd) (string, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, pipe := io.Pipe()
	cmd.Stdout, cmd.Stderr = pipe, pipe
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); pipe.Close() }()
	var said strings.Builder
	for s := bufio.NewScanner(out); s.Scan(); {
		said.WriteString(s.Text() + "\n")
		if strings.Contains(s.Text(), "GUEST: up") {
			io.WriteString(in, "mark readme\npoweroff\n")
		}
	}
	in.Close()
	return said.String(), <-done
}
