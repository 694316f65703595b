//go:build integration

package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
)

// run runs a program, and fails the test if it does or if it is not there.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.String()
}

const clientsSize = 64 << 20

// withClients runs f over each kind of disk and socket.
func withClients(t *testing.T, f func(t *testing.T, uri func(export string) string, disk func() []byte)) {
	for _, kind := range []string{"memory", "sparse file"} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(kind+" over "+network, func(t *testing.T) {
				a := serve(t)
				mem, file := newMemory(clientsSize), newFileDisk(t, clientsSize)
				rw, ro := nbd.Export{Disk: mem}, nbd.Export{Disk: readOnly{mem}}
				content := func() []byte { return bytes.Clone(mem.data) }
				write := mem.WriteAt
				if kind == "sparse file" {
					rw, ro = nbd.Export{Disk: file}, nbd.Export{Disk: onlyRead{file}}
					write = file.WriteAt
					content = func() []byte {
						p, err := os.ReadFile(file.f.Name())
						if err != nil {
							t.Fatal(err)
						}
						return p
					}
				}
				for off := int64(1 << 20); off < clientsSize; off += 7 << 20 {
					if err := write(t.Context(), pattern(1<<20, byte(off>>20)), off); err != nil {
						t.Fatal(err)
					}
				}
				rw.MultiConn, ro.MultiConn = true, true
				rw.Description = "a disk"
				a.exports.byName["rw"], a.exports.byName["ro"] = rw, ro
				uri := func(export string) string { return "nbd+unix:///" + export + "?socket=" + a.socket }
				if network == "tcp" {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					go a.Serve(t.Context(), l)
					uri = func(export string) string { return "nbd://" + l.Addr().String() + "/" + export }
				}
				f(t, uri, content)
			})
		}
	}
}

// onlyRead is a fileDisk that cannot be written.
type onlyRead struct{ d *fileDisk }

func (r onlyRead) Size() int64 { return r.d.size }
func (r onlyRead) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.d.ReadAt(ctx, p, off)
}

func TestNbdinfo(t *testing.T) {
	withClients(t, func(t *testing.T, uri func(string) string, disk func() []byte) {
		var info struct {
			Protocol   string
			Structured bool
			Exports    []struct {
				Name        string              `json:"export-name"`
				Description string              `json:"description"`
				Size        int64               `json:"export-size"`
				Contexts    []string            `json:"contexts"`
				ReadOnly    bool                `json:"is_read_only"`
				MultiConn   bool                `json:"can_multi_conn"`
				Cache       bool                `json:"can_cache"`
				DF          bool                `json:"can_df"`
				FastZero    bool                `json:"can_fast_zero"`
				Trim        bool                `json:"can_trim"`
				FUA         bool                `json:"can_fua"`
				Flush       bool                `json:"can_flush"`
				Maximum     int64               `json:"block_size_maximum"`
				_           map[string]struct{} `json:"-"`
			}
		}
		text := run(t, "nbdinfo", "--json", uri("rw"))
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		e := info.Exports[0]
		if info.Protocol != "newstyle-fixed" || !info.Structured || e.Size != clientsSize || e.ReadOnly || !e.MultiConn ||
			!e.Cache || !e.DF || !e.FastZero || !e.Trim || !e.FUA || !e.Flush || e.Maximum != 32<<20 || e.Description != "a disk" ||
			fmt.Sprint(e.Contexts) != "[base:allocation qemu:allocation-depth]" {
			t.Errorf("nbdinfo says\n%s", text)
		}
		run(t, "nbdinfo", "--is", "read-only", uri("ro"))
		if size := strings.TrimSpace(run(t, "nbdinfo", "--size", uri("ro"))); size != fmt.Sprint(clientsSize) {
			t.Errorf("size %s", size)
		}
		if list := run(t, "nbdinfo", "--list", "--json", uri("")); strings.Count(list, `"export-name"`) != 4 {
			t.Errorf("nbdinfo --list says\n%s", list)
		}
		totals := run(t, "nbdinfo", "--map", "--totals", uri("rw"))
		if !strings.Contains(totals, "9437184") { // nine pieces of 1 MiB
			t.Errorf("nbdinfo --map --totals says\n%s", totals)
		}
	})
}

func TestNbdcopy(t *testing.T) {
	withClients(t, func(t *testing.T, uri func(string) string, disk func() []byte) {
		dir := t.TempDir()
		out, in := filepath.Join(dir, "out"), filepath.Join(dir, "in")
		run(t, "nbdcopy", uri("ro"), out)
		mustEqualFile(t, out, disk())
		image := append(pattern(20<<20, 5), make([]byte, clientsSize-20<<20)...)
		if err := os.WriteFile(in, image, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "nbdcopy", "--flush", in, uri("rw"))
		mustEqual(t, disk(), image)
		run(t, "nbdcopy", "--synchronous", uri("rw"), out)
		mustEqualFile(t, out, image)
		run(t, "nbdcopy", "--request-size", "33554432", "--connections", "1", uri("rw"), out)
		mustEqualFile(t, out, image)
	})
}

func mustEqualFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, got, want)
}

func TestQemuImg(t *testing.T) {
	withClients(t, func(t *testing.T, uri func(string) string, disk func() []byte) {
		dir := t.TempDir()
		raw, qcow2 := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
		if err := os.WriteFile(raw, disk(), 0o600); err != nil {
			t.Fatal(err)
		}
		if info := run(t, "qemu-img", "info", "-f", "raw", uri("ro")); !strings.Contains(info, fmt.Sprintf("(%d bytes)", clientsSize)) {
			t.Errorf("qemu-img info says\n%s", info)
		}
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri("ro"))
		var extents []struct {
			Start, Length int64
			Zero, Data    bool
		}
		text := run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri("rw"))
		if err := json.Unmarshal([]byte(text), &extents); err != nil {
			t.Fatal(err)
		}
		if len(extents) != 19 || !extents[0].Zero || extents[1].Zero || extents[1].Start != 1<<20 || extents[1].Length != 1<<20 {
			t.Errorf("qemu-img map says\n%s", text)
		}
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri("ro"), qcow2)
		run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow2, uri("ro"))
		// And back, over what was there.
		run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 3M 5M", "-c", "write -z 22M 1M", qcow2)
		run(t, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", qcow2, uri("rw"))
		run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow2, uri("rw"))
	})
}

func TestQemuIO(t *testing.T) {
	withClients(t, func(t *testing.T, uri func(string) string, disk func() []byte) {
		out := run(t, "qemu-io", "-f", "raw", "-d", "unmap",
			"-c", "write -P 0x11 0 1M", "-c", "write -f -P 0x22 512k 512", "-c", "flush",
			"-c", "aio_write -P 0x33 2M 3M", "-c", "aio_flush", "-c", "read -P 0x33 2M 3M",
			"-c", "write -z 100k 200k", "-c", "read -P 0 100k 200k", "-c", "write -z -u 4M 1M", "-c", "read -P 0 4M 1M",
			"-c", "discard 8M 1M", "-c", "write -P 0x44 1 5", "-c", "read -P 0x44 1 5", "-c", "read -P 0x22 512k 512",
			"-c", "write -P 0x55 63M 1M", "-c", "write -z 0 64M", "-c", "read -P 0 0 64M", uri("rw"))
		if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Error(out)
		}
		if n := bytes.Count(disk(), []byte{0}); n != clientsSize {
			t.Errorf("%d bytes are not zero", clientsSize-n)
		}
	})
}

func TestFio(t *testing.T) {
	withClients(t, func(t *testing.T, uri func(string) string, disk func() []byte) {
		common := []string{"--ioengine=nbd", "--thread=1", "--size=64m", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1",
			"--uri=" + uri("rw"), "--rw=randwrite", "--bs=4k", "--iodepth=32", "--name=verify"}
		if strings.HasPrefix(uri(""), "nbd://") {
			common = append(common, "--fsync=64")
		}
		run(t, "fio", append(common, "--io_size=16m")...)
		run(t, "fio", append(common, "--bsrange=512-256k", "--bs_unaligned=0", "--io_size=64m")...)
	})
}
