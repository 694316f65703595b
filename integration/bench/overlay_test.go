//go:build integration

package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// A writer is one kind of overlay. Fresh makes a new one and opens it; done
// lets it go.
type writer struct {
	name  string
	fresh func() (s side, done func())
}

// BenchmarkOverlay writes to overlays of the same raw image: as a log of
// objects in S3, as a clone in Ceph, and as a qcow2 file that qemu-nbd serves,
// once with the page cache and once without. Each promises that what was
// flushed survives a crash, and fio flushes after every 32 writes. Each round
// has new overlays, that are written to twice, the second time with most
// blocks in their places.
func BenchmarkOverlay(b *testing.B) {
	gateway.Need(b, "fio", "qemu-nbd", "qemu-img")
	const size = 1 << 30
	raw := rawDisk(b, size)
	c := ceph(b)
	c.AddPool(b, "writes")
	versity(b).MakeBucket(b, "writes")
	logs := gateway.Start(b, append(gateway.S3Store(versity(b).S3, "writes"), "--log-level", "warn", "--mount", "off")...)
	strict := gateway.Start(b, append(gateway.S3Store(versity(b).S3, "writes", "PREFIX=strict/", "DURABILITY=store"), "--log-level", "warn", "--mount", "off")...)
	clones := gateway.Start(b, append(gateway.RBDStore(c, "writes"), "--log-level", "warn", "--mount", "off")...)
	files := gateway.Start(b, "--log-level", "warn", "--mount", "off")

	kinds := []writer{
		ours(b, "object log", logs, logs.Upload(b, "disk", "raw", raw)),
		ours(b, "object log, durable in S3", strict, strict.Upload(b, "disk", "raw", raw)),
		ours(b, "rbd clone", clones, clones.Upload(b, "disk", "raw", raw)),
		ours(b, "qcow2 file", files, files.Upload(b, "disk", "raw", raw)),
		local(b, "qemu-nbd, writeback", raw, "raw", "--cache=writeback"),
		local(b, "qemu-nbd, cache=none", raw, "raw", "--cache=none", "--aio=native"),
	}
	fill := []string{"--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=1g", "--fsync=32"}
	jobs := []job{
		{name: "new overlay", args: fill},
		{name: "the same again", args: fill},
	}
	for b.Loop() {
		results := map[string][]result{}
		var sides []side
		for range rounds() {
			sides = sides[:0]
			for _, k := range kinds {
				s, done := k.fresh()
				s.name = k.name
				sides = append(sides, s)
				for _, j := range jobs {
					results[j.name+s.name] = append(results[j.name+s.name], fio(b, s, false, j.args...))
				}
				done()
			}
		}
		writes(b, jobs, sides, results)
	}
}

// writes makes the table of overlays: the log beside all others.
func writes(b *testing.B, jobs []job, sides []side, results map[string][]result) {
	b.Helper()
	t := tables.table(title("4 KiB random writes to overlays at depth 32, a flush after each 32", "writes a second"),
		"what", "who", "rate", "µs CPU", "object log is, times", "aim", "")
	for _, j := range jobs {
		log := rates(results[j.name+sides[0].name])
		for _, s := range sides {
			all := results[j.name+s.name]
			times, aim := ratio(log, rates(all)), 0.0
			switch s.name {
			case "rbd clone":
				aim = 3
			case "qemu-nbd, writeback", "qemu-nbd, cache=none":
				aim = 1
			}
			row := []string{j.name, s.name, figure(median(rates(all))), figure(median(cpus(all))), figure(times), "", ""}
			if aim > 0 {
				row[5], row[6] = "≥ "+figure(aim), verdict(times, aim, true)
				b.ReportMetric(times, metric(j.name+" "+s.name))
			}
			t.row(row...)
		}
	}
	b.Log("\n" + t.String())
}

// ours are overlays of a gateway, opened by attachments as guests do.
func ours(b *testing.B, name string, g *gateway.Gateway, image string) writer {
	return writer{name, func() (side, func()) {
		ov := g.NewOverlay(b, image, "")
		var att struct{ ID, URI string }
		if err := json.Unmarshal(g.Call(b, "POST", "/platter/v1/attachments", `{"overlay_id":"`+ov+`"}`, 201), &att); err != nil {
			b.Fatal(err)
		}
		return side{uri: att.URI, socket: g.Socket, export: export(b, att.URI), pid: g.PID()}, func() {
			g.Call(b, "DELETE", "/platter/v1/attachments/"+att.ID, "", 204)
			g.Call(b, "DELETE", "/platter/v1/overlays/"+ov, "", 204)
		}
	}}
}

// local are qcow2 files on this machine over another file.
func local(b *testing.B, name, base, format string, args ...string) writer {
	return writer{name, func() (side, func()) {
		path := filepath.Join(b.TempDir(), "overlay.qcow2")
		tool(b, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", format, path)
		s, stop := qemuNBD(b, name, path, append(args, "-f", "qcow2")...)
		return s, func() {
			stop()
			if err := os.Remove(path); err != nil {
				b.Fatal(err)
			}
		}
	}}
}
