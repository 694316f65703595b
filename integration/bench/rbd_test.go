//go:build integration

package bench

import (
	"fmt"
	"testing"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// A job is what fio does, and how many times the peer's rate is the aim.
type job struct {
	name  string
	aim   float64
	large bool // counted in MiB/s
	args  []string
}

// BenchmarkRBD reads one image of a Ceph pool through gateways and through
// qemu-nbd. The aims are for the gateway without a cache, whose every read
// reaches the cluster. Beside it are one whose cache is an eighth of the
// image, so that most reads miss, and one that has cached all of it.
func BenchmarkRBD(b *testing.B) {
	gateway.Need(b, "fio", "qemu-nbd")
	const size = 1 << 30
	c := ceph(b)
	pool := "reads"
	c.AddPool(b, pool)
	start := func(more ...string) *gateway.Gateway {
		flags := append(gateway.RBDStore(c, pool), "--log-level", "warn", "--mount", "off",
			"PLATTER_CACHE_TRACES=false", "PLATTER_CATALOG_ETCD="+etcd(b).Endpoints[0], "PLATTER_CATALOG_PREFIX=/"+pool)
		return gateway.Start(b, append(flags, more...)...)
	}
	plain := start("PLATTER_CACHE_DIR=off")
	small := start("PLATTER_CACHE_SIZE=128MiB")
	cached := start()
	id := plain.Upload(b, "reads", "raw", rawDisk(b, size))
	tool(b, "nbdcopy", cached.Export(id), "null:")

	image := fmt.Sprintf("rbd:%s/%s@snap:id=%s:conf=%s", pool, id, c.User, c.Conf)
	peer, _ := qemuNBD(b, "qemu-nbd", image, "-r", "-f", "raw")
	sides := []side{peer}
	for i, g := range []*gateway.Gateway{plain, small, cached} {
		name := []string{"no cache", "cache of 1/8", "all cached"}[i]
		sides = append(sides, side{name: name, uri: g.Export(id), pid: g.PID()})
	}
	jobs := []job{
		{"4 KiB random, depth 32", 2.5, false, []string{"--rw=randread", "--bs=4k", "--iodepth=32", "--size=1g"}},
		{"4 KiB random, depth 1", 1, false, []string{"--rw=randread", "--bs=4k", "--iodepth=1", "--size=1g"}},
		{"1 MiB in order, depth 1, MiB/s", 1, true, []string{"--rw=read", "--bs=1m", "--iodepth=1", "--size=1g"}},
		{"1 MiB in order, depth 4, MiB/s", 1, true, []string{"--rw=read", "--bs=1m", "--iodepth=4", "--size=1g"}},
	}
	for b.Loop() {
		results := map[string][]result{} // by job and side
		for range rounds() {
			for _, j := range jobs {
				for _, s := range sides {
					results[j.name+s.name] = append(results[j.name+s.name], fio(b, s, j.large, j.args...))
				}
			}
		}
		compare(b, "An image in a Ceph pool, read over NBD", jobs, sides, peer.name, "no cache", results)
	}
}

// compare makes a table of what the sides came to beside peer. The aims are
// those of the side called aimed.
func compare(b *testing.B, what string, jobs []job, sides []side, peer, aimed string, results map[string][]result) {
	b.Helper()
	t := tables.table(title(what, "requests a second or MiB/s"),
		"what", "who", "rate", "µs CPU", "times "+peer, "aim", "")
	for _, j := range jobs {
		theirs := rates(results[j.name+peer])
		for _, s := range sides {
			all := results[j.name+s.name]
			times, aim := ratio(rates(all), theirs), 0.0
			if s.name == aimed {
				aim = j.aim
				b.ReportMetric(times, metric(j.name))
			}
			row := []string{j.name, s.name, figure(median(rates(all))), figure(median(cpus(all))), figure(times), "", ""}
			if aim > 0 {
				row[5], row[6] = "≥ "+figure(aim), verdict(times, aim, true)
			}
			t.row(row...)
		}
	}
	b.Log("\n" + t.String())
}

// title is the title of a table of fio's rates.
func title(what, unit string) string {
	return fmt.Sprintf("%s: %s; medians of %d rounds of %d s", what, unit, rounds(), seconds())
}

func rates(all []result) (list []float64) {
	for _, r := range all {
		list = append(list, r.rate)
	}
	return list
}

func cpus(all []result) (list []float64) {
	for _, r := range all {
		list = append(list, r.cpu)
	}
	return list
}

// metric is the name of a job as a unit of a benchmark, without spaces.
func metric(name string) string {
	p := []byte(name + " times")
	for i, c := range p {
		if c == ' ' || c == ',' || c == '/' {
			p[i] = '-'
		}
	}
	return string(p)
}
