package embedded_test

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/embedded"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// writeForever is the process that TestKilled kills: it says the id of each
// image that it has created.
func writeForever(t *testing.T, dir string) {
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(t.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		img, err := c.CreateImage(t.Context(), catalog.Image{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("created", img.ID)
	}
}

// TestKilled kills a process that writes, a few times, with kill -9: the next
// start needs no hand, and all that was acknowledged is there.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("PLATTER_TEST_WRITE_INTO"); dir != "" {
		writeForever(t, dir)
	}
	dir := t.TempDir()
	var created []string
	for range 3 {
		created = append(created, killAfter(t, dir, 20)...)
	}
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := catalog.Open(t.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, id := range created {
		if _, err := c.Image(t.Context(), id); err != nil {
			t.Errorf("lost after a kill: %v", err)
		}
	}
}

// killAfter lets a process create n images, and kills it while it goes on.
func killAfter(t *testing.T, dir string, n int) (created []string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), "PLATTER_TEST_WRITE_INTO="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for len(created) < n && lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "created "); ok {
			created = append(created, id)
		} else {
			fmt.Fprintln(&trouble, lines.Text())
		}
	}
	cmd.Process.Kill()
	for lines.Scan() { // what was acknowledged before the kill counts, too
		if id, ok := strings.CutPrefix(lines.Text(), "created "); ok && len(id) == 36 {
			created = append(created, id)
		}
	}
	cmd.Wait()
	if len(created) < n {
		t.Fatalf("the process created %d images, want %d: %s", len(created), n, trouble.String())
	}
	return created
}

// slow tells whether a line is about a machine that is slow just now, of which
// etcd warns rightly.
func slow(line string) bool {
	for _, what := range []string{"took too long", "slow fdatasync", "overloaded", "took longer", "request stats"} {
		if strings.Contains(line, what) {
			return true
		}
	}
	return false
}

// TestQuiet checks that a start, a restart and a stop say nothing that would
// worry an operator.
func TestQuiet(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	for range 2 {
		logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		c, err := catalog.Open(t.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for line := range strings.Lines(log.String()) {
		if !slow(line) {
			t.Errorf("the log says %s", line)
		}
	}
}
