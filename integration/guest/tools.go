package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tools makes a disk of programs of this machine, with the libraries that they
// need, as a raw ext4 image in dir. The guest is of the same Debian but has
// next to nothing; this is cheaper than to build another.
//
// A guest that has it as its second disk finds each program in /tools/bin once
// it has run the lines of [ToolsReady].
func Tools(ctx context.Context, dir string, programs ...string) (disk string, err error) {
	tree := filepath.Join(dir, "tools")
	for _, sub := range []string{"bin", "lib", "real"} {
		if err := os.MkdirAll(filepath.Join(tree, sub), 0o755); err != nil {
			return "", err
		}
	}
	for _, name := range append(programs, "busybox") {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("guest: %s is missing; make deps installs it", name)
		}
		if err := addProgram(ctx, tree, path); err != nil {
			return "", err
		}
	}
	disk = filepath.Join(dir, "tools.ext4")
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", tree, disk, "256M").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("guest: make a disk of programs: %w\n%s", err, out)
	}
	return disk, nil
}

// addProgram copies a program and its libraries into a tree, and a script
// that starts it with them and not with the guest's.
func addProgram(ctx context.Context, tree, path string) error {
	name := filepath.Base(path)
	if err := copyFile(path, filepath.Join(tree, "real", name)); err != nil {
		return err
	}
	start := "exec /tools/real/" + name
	out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
	if err == nil { // a static one needs nothing
		for line := range strings.Lines(string(out)) {
			for _, word := range strings.Fields(line) {
				if !strings.HasPrefix(word, "/") {
					continue
				}
				lib := filepath.Join(tree, "lib", filepath.Base(word))
				if err := copyFile(word, lib); err != nil {
					return err
				}
				if strings.HasPrefix(filepath.Base(word), "ld-linux") {
					start = "exec /tools/lib/" + filepath.Base(word) + " --library-path /tools/lib /tools/real/" + name
				}
			}
		}
	}
	return os.WriteFile(filepath.Join(tree, "bin", name), []byte("#!/bin/sh\n"+start+` "$@"`+"\n"), 0o755)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// ToolsReady is what the guest runs first to have its tools, and the address
// that QEMU's user network gives it: the host's loopback is 10.0.2.2 then. The
// kernel's words stay out of the console, where they would cut lines in two.
func ToolsReady() []string {
	return []string{
		"echo 1 >/proc/sys/kernel/printk",
		"mount -t tmpfs tmpfs /tmp && mkdir -p /tools && mount -o ro -t ext4 /dev/vdb /tools && PATH=/tools/bin:$PATH",
		"busybox ifconfig lo up && busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up",
	}
}

// Run lets the guest run one line of shell and waits for it. It returns what
// that printed; an error says so if it failed. What it leaves in the
// background must write elsewhere.
func (m *Machine) Run(ctx context.Context, line string) (string, error) {
	// Braces, not a subshell: what is set stays set. The output goes through a
	// file because a pipe would make the line a subshell.
	end := ";"
	if strings.HasSuffix(line, "&") {
		end = ""
	}
	if err := m.Send(`run { %s %s } >/run/out 2>&1; rc=$?; while read -r l; do say "| $l"; done </run/out; [ $rc = 0 ]`, line, end); err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		said, err := m.Line(ctx, "")
		if err != nil {
			return out.String(), fmt.Errorf("the guest's %q: %w", line, err)
		}
		switch text, printed := strings.CutPrefix(said, "| "); {
		case printed:
			fmt.Fprintln(&out, text)
		case said == "ran":
			return out.String(), nil
		case said == "run failed":
			return out.String(), fmt.Errorf("guest: %q failed:\n%s", line, out.String())
		}
	}
}
