//go:build integration

package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// mapped is what nbdinfo says of a context: runs of one number.
func mapped(t *testing.T, k tools, context, uri string) (runs []string) {
	t.Helper()
	for line := range strings.Lines(k.run(t, "nbdinfo", "--map="+context, uri)) {
		runs = append(runs, strings.Join(strings.Fields(line)[:3], " "))
	}
	return runs
}

// runs are runs of one number as mapped has them: pairs of a length in KiB and
// the number.
func runs(pairs ...int) (out []string) {
	at := 0
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, fmt.Sprintf("%d %d %d", at<<10, pairs[i]<<10, pairs[i+1]))
		at += pairs[i]
	}
	return out
}

// TestContexts writes known ranges to an overlay and has libnbd and QEMU tell
// which they were.
func TestContexts(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	raw, _ := disk(t)
	qcow2 := raw + ".qcow2"
	g.Command(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	image := g.Upload(t, "base", "qcow2", qcow2)
	for _, with := range []tools{debian12(t), debian13(t)} {
		t.Run(with.name, func(t *testing.T) {
			id := g.NewOverlay(t, image, `,"name":"o"`)
			d := door{"unix", g, ""}
			uri := d.uri("overlay/" + id)
			write := func(commands ...string) {
				t.Helper()
				var line []string
				for _, c := range commands {
					line = append(line, "-c", c)
				}
				_, at := d.qemu("overlay/" + id)
				with.run(t, "qemu-io", append(line, at)...)
			}
			same := func(context string, want []string) {
				t.Helper()
				if got := mapped(t, with, context, uri); strings.Join(got, ", ") != strings.Join(want, ", ") {
					t.Errorf("%s is\n%v, want\n%v", context, got, want)
				}
			}
			// 1 is the overlay, 2 the image, 0 nowhere.
			const depth = "qemu:allocation-depth"
			same(depth, runs(1024, 2, 1088, 0, 128, 2, 2880, 0, 1024, 2, 15360, 0, 512, 2, 2496, 0, 64, 2))
			write("write 512k 64k", "write 9M 128k")
			same(depth, runs(512, 2, 64, 1, 448, 2, 1088, 0, 128, 2, 2880, 0, 1024, 2, 3072, 0, 128, 1, 12160, 0, 512, 2, 2496, 0, 64, 2))

			snapshot := func(name string) {
				t.Helper()
				g.Call(t, "POST", "/platter/v1/overlays/"+id+"/snapshots", fmt.Sprintf(`{"name":%q}`, name), 201)
			}
			const bitmap = "qemu:dirty-bitmap:"
			snapshot("monday")
			same(bitmap+"monday", runs(24<<10, 0))
			write("write 1M 64k", "write 9M 64k") // of a block of 128 KiB that the snapshot shares: all of it is written anew
			snapshot("tuesday")
			write("write 12M 128k")
			same(bitmap+"monday", runs(1024, 0, 64, 1, 8128, 0, 128, 1, 2944, 0, 128, 1, 12160, 0))
			same(bitmap+"tuesday", runs(12<<10, 0, 128, 1, 12160, 0))
			write("write 13M 4k") // inside of a cluster: rounded, and no more than that
			sum := 0
			for _, r := range mapped(t, with, bitmap+"tuesday", uri)[2:] {
				var at, n, dirty int
				fmt.Sscan(r, &at, &n, &dirty)
				if dirty == 1 && (at != 13<<20 || n < 4096 || n > 65536) {
					t.Errorf("a write of 4 KiB at 13 MiB makes %s", r)
				}
				sum += dirty
			}
			if sum != 1 {
				t.Errorf("a write of 4 KiB is told %d times", sum)
			}
			nbd := fmt.Sprintf(`json:{"driver":"nbd","server":{"type":"unix","path":%q},"export":%q,"x-dirty-bitmap":%q}`, g.Socket, "overlay/"+id, bitmap+"monday")
			var list []struct {
				Start, Length int64
				Data          bool // what is dirty is told as no data
			}
			out := with.run(t, "qemu-img", "map", "--output=json", nbd)
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				t.Fatal(err)
			}
			dirty := ""
			for _, p := range list {
				if !p.Data {
					dirty += fmt.Sprintf("%d+%d ", p.Start>>10, p.Length>>10)
				}
			}
			if !strings.HasPrefix(dirty, "1024+64 9216+128 12288+128 13312+") {
				t.Errorf("qemu-img map of the bitmap: %s\n%s", dirty, out)
			}
			names := with.run(t, "nbdinfo", "--json", uri)
			for _, name := range []string{"base:allocation", depth, bitmap + "monday", bitmap + "tuesday"} {
				if !strings.Contains(names, fmt.Sprintf("%q", name)) {
					t.Errorf("nbdinfo does not list %s:\n%s", name, names)
				}
			}
		})
	}
}

// TestBeyond32Bits has what only extended headers can say: ranges of more than
// 4 GiB in one request and one extent.
func TestBeyond32Bits(t *testing.T) {
	with := debian13(t)
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	raw, _ := disk(t)
	id := g.NewOverlay(t, g.Upload(t, "base", "raw", raw), fmt.Sprintf(`,"name":"o","size":%d`, int64(100)<<30))
	d := door{"tcp", g, ""}
	uri := d.uri("overlay/" + id)
	out := with.shell(t, "h.add_meta_context('base:allocation')", fmt.Sprintf("h.connect_uri(%q)", uri), "assert h.get_extended_headers_negotiated()",
		"told = []", "h.block_status_64(h.get_size(), 0, lambda m, off, e, err: told.extend(e))", "print(len(told), sum(n for n, _ in told) == h.get_size(), max(told) > (99 << 30, 0))")
	if !strings.HasSuffix(out, "True True") {
		t.Errorf("one status of 100 GiB: %s", out)
	}
	with.shell(t, fmt.Sprintf("h.connect_uri(%q)", uri), "h.pwrite(b'x' * 65536, 50 << 30)", "h.pwrite(b'x' * 65536, 0)", "h.zero(60 << 30, 1 << 30)",
		"assert h.pread(65536, 50 << 30) == bytes(65536)", "assert h.pread(65536, 0) == b'x' * 65536", "h.trim(90 << 30, 5 << 30)", "h.cache(99 << 30, 1 << 30)", "h.flush()")
	_, at := d.qemu("overlay/" + id)
	with.run(t, "qemu-io", "-c", "write -P 7 70G 64k", "-c", "write -z -u -n 20G 60G", "-c", "read -P 0 70G 64k", "-c", "read -P 0x78 0 64k", at)
	got := mapped(t, with, "base:allocation", uri)
	var n int64
	fmt.Sscan(strings.Fields(got[len(got)-1])[1], &n)
	if n < 29<<30 {
		t.Errorf("the map ends with %v", got[max(0, len(got)-3):])
	}
	var list []piece
	if err := json.Unmarshal([]byte(with.run(t, "qemu-img", "map", "--output=json", at)), &list); err != nil || len(list) < 2 || list[len(list)-1].Length < 29<<30 {
		t.Errorf("qemu-img map: %v %v", err, list)
	}
}
