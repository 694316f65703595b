//go:build integration

package bench

import (
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// diskSize is the size of the disks that the gateway and its peers serve.
const diskSize = 512 << 20

// A rival is one side of a contest.
type rival struct {
	who string // ourName, qemuName or kitName, of which the better one counts; "" stands beside
	writer
}

const (
	ourName  = "platter"
	qemuName = "qemu-nbd"
	kitName  = "nbdkit"
)

// A load is what is done to each side, and how many times a peer's rate is the
// aim; 0 is no aim.
type load struct {
	name   string
	unit   string // of the rate
	qemu   float64
	nbdkit float64
	cpu    float64 // the most CPU for a request that is good, beside nbdkit's
	writes bool
	run    func(t testing.TB, s side) result
}

// A contest is one kind of export, and who serves it.
type contest struct {
	name   string
	rivals []rival
	goals  *table
	detail *table
}

// BenchmarkNBD is the door beside qemu-nbd and nbdkit: the same disks, the same
// client, unix sockets. Each load is a benchmark of its own, so that -bench
// 'NBD/qcow2/random' runs one of them.
//
// Of qemu-nbd's two ways to reach a file, threads and io_uring, the one with
// the better rate is the peer, for each load anew.
func BenchmarkNBD(b *testing.B) {
	gateway.Need(b, "fio", "qemu-nbd", "qemu-img", "nbdkit", "nbdcopy")
	goals := tables.table(title("The NBD door beside its peers", "medians of the ratios of each round"),
		"what", "times qemu-nbd", "aim", "", "times nbdkit", "aim", "", "CPU, of nbdkit's", "aim", "", "p99, of the better peer's", "aim", "")
	b.Run("raw", func(b *testing.B) { benchRaw(b, goals) })
	b.Run("rawwrite", func(b *testing.B) { benchRawWrite(b, goals) })
	b.Run("qcow2", func(b *testing.B) { benchFormat(b, goals, "qcow2") })
	b.Run("zlib", func(b *testing.B) { benchFormat(b, goals, "zlib") })
	b.Run("zstd", func(b *testing.B) { benchFormat(b, goals, "zstd") })
	b.Run("overlay", func(b *testing.B) { benchOverlay(b, goals) })
	b.Run("connect", func(b *testing.B) { benchConnect(b, goals) })
	b.Run("tls", func(b *testing.B) { benchTLS(b, goals) })
	b.Run("idle", benchIdle)
}

// newContest begins a contest with its table.
func newContest(name, what string, goals *table, rivals ...rival) *contest {
	return &contest{name: name, rivals: rivals, goals: goals,
		detail: tables.table(title(what, "a rate in the load's unit"), "what", "who", "rate", "unit", "µs CPU", "p99, µs")}
}

// race runs a load against all sides in turns and writes down what came of it.
func (c *contest) race(b *testing.B, l load) {
	b.Run(l.name, func(b *testing.B) {
		for b.Loop() {
			results := make([][]result, len(c.rivals))
			for range rounds() {
				for i, r := range c.rivals {
					s, done := r.fresh()
					if l.writes {
						syscall.Sync() // what others wrote before is not this one's to wait for
					}
					results[i] = append(results[i], l.run(b, s))
					done()
				}
			}
			c.enter(b, l, results)
		}
	})
}

// enter writes the results of one load into the tables.
func (c *contest) enter(b *testing.B, l load, results [][]result) {
	b.Helper()
	best := map[string][]result{}
	for i, r := range c.rivals {
		all := results[i]
		c.detail.row(l.name, r.name, figure(median(rates(all))), l.unit, figure(median(cpus(all))), figure(median(p99s(all))))
		if before := best[r.who]; before == nil || median(rates(all)) > median(rates(before)) {
			best[r.who] = all
		}
	}
	us, qemu, kit := best[ourName], best[qemuName], best[kitName]
	row := []string{c.name + ", " + l.name}
	compare := func(got, aim float64, least bool) {
		if got == 0 {
			row = append(row, "", "", "")
			return
		}
		sign := "≤ "
		if least {
			sign = "≥ "
		}
		if row = append(row, figure(got)); aim == 0 {
			row = append(row, "", "")
			return
		}
		row = append(row, sign+figure(aim), verdict(got, aim, least))
	}
	compare(ratio(rates(us), rates(qemu)), l.qemu, true)
	compare(ratio(rates(us), rates(kit)), l.nbdkit, true)
	compare(ratio(cpus(us), cpus(kit)), l.cpu, false)
	peer := p99s(qemu)
	if kit != nil && (peer == nil || median(p99s(kit)) < median(peer)) {
		peer = p99s(kit)
	}
	compare(ratio(p99s(us), peer), 1.1, false)
	c.goals.row(row...)
	b.ReportMetric(ratio(rates(us), rates(qemu)), "times-qemu-nbd")
}

func p99s(all []result) (list []float64) {
	for _, r := range all {
		if r.p99 > 0 {
			list = append(list, r.p99)
		}
	}
	return list
}

// always is a side that is the same in every round.
func always(who string, s side) rival {
	return rival{who, writer{s.name, func() (side, func()) { return s, func() {} }}}
}

// qemus are qemu-nbd with each of its ways to reach a file.
func qemus(b *testing.B, image string, args ...string) (list []rival) {
	for _, aio := range []string{"threads", "io_uring"} {
		s, _ := qemuNBD(b, qemuName+", "+aio, image, append(slices.Clone(args), "--cache=writeback", "--aio="+aio)...)
		list = append(list, always(qemuName, s))
	}
	return list
}

// exported is an export of a gateway as a side.
func exported(g *gateway.Gateway, name string) side {
	return side{name: ourName, uri: g.Export(name), socket: g.Socket, export: name, pid: g.PID()}
}

// lasting is a load of fio that lasts BENCH_SECONDS.
func lasting(large bool, args ...string) func(testing.TB, side) result {
	args = append(args, "--size=512m")
	return func(t testing.TB, s side) result { return fio(t, s, large, args...) }
}

// amount is a load of fio that ends when all is done.
func amount(large bool, args ...string) func(testing.TB, side) result {
	return func(t testing.TB, s side) result { return fioAmount(t, s, large, args...) }
}

// copied is the load of nbdcopy, which reads all of the disk once.
func copied(t testing.TB, s side, args ...string) result {
	t.Helper()
	before, from := cpuTime(t, s.pid), time.Now()
	if out, err := exec.CommandContext(t.Context(), "nbdcopy", append(args, s.uri, "null:")...).CombinedOutput(); err != nil {
		t.Fatalf("nbdcopy %s: %v\n%s", s.uri, err, out)
	}
	took := time.Since(from).Seconds()
	return result{rate: diskSize / (1 << 20) / took, cpu: float64((cpuTime(t, s.pid) - before).Microseconds()) / (diskSize / (1 << 20))}
}

// whole is copied without further words.
func whole(t testing.TB, s side) result { return copied(t, s) }

// randomReads and inOrder are loads that several exports get.
func randomReads(depth string) func(testing.TB, side) result {
	return lasting(false, "--rw=randread", "--bs=4k", "--iodepth="+depth)
}

func inOrder(rw string) func(testing.TB, side) result {
	return lasting(true, "--rw="+rw, "--bs=1m", "--iodepth=4")
}

// warm reads all that a side serves, so that no round meets a cold page cache.
func warm(b *testing.B, rivals []rival) {
	b.Helper()
	for _, r := range rivals {
		s, done := r.fresh()
		tool(b, "nbdcopy", s.uri, "null:")
		done()
	}
}
