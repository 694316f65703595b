//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestNBDFio has fio write, discard, flush and verify, with several jobs, each
// a connection of its own.
func TestNBDFio(t *testing.T) {
	gateway.Need(t, "fio")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, _ := randomFile(t, 48<<20)
	image := upload(t, g, "base", "raw", file)
	overlay, attached := newOverlay(t, g, image, ""), newOverlay(t, g, image, "")
	_, token := attachment(t, g, "overlay_id", attached, "rw", "tcp")
	_, ephemeral := attachment(t, g, "image_id", image, "ephemeral", "unix")
	for _, d := range []struct {
		name, uri string
		jobs      int
	}{
		{"overlay", g.Export("overlay/" + overlay), 3},
		{"attached overlay", "nbd://" + g.NBD + "/" + token, 3},
		{"attached ephemeral", g.Export(ephemeral), 3},
		{"ephemeral", "nbd://" + g.NBD + "/ephemeral/" + image, 1},
	} {
		t.Run(d.name, func(t *testing.T) {
			common := []string{"--ioengine=nbd", "--uri=" + d.uri, "--thread=1", fmt.Sprintf("--numjobs=%d", d.jobs), "--size=12M", "--offset_increment=16M",
				"--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--group_reporting", "--verify_state_save=0"}
			fio := func(args ...string) {
				t.Helper()
				out := tool(t, "fio", append(common, args...)...)
				if strings.Contains(out, "verify failed") || strings.Contains(out, "bad magic") || strings.Contains(out, "bad header") {
					t.Errorf("fio complains:\n%s", out)
				}
			}
			fio("--name=mixed", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=0", "--fsync=20", "--do_verify=1", "--verify_backlog=64")
			fio("--name=trims", "--rw=randtrimwrite", "--bs=4k", "--fsync=50", "--do_verify=1", "--iodepth=1") // deeper, fio does not wait for the trim before the write
			fio("--name=large", "--rw=write", "--bs=1M", "--fsync=3", "--do_verify=1")
		})
	}
	g.Stop(t)
	for _, id := range []string{overlay, attached} {
		if leaks, corruptions := checkOverlay(t, g, id); leaks+corruptions > 0 {
			t.Errorf("%d leaks, %d corruptions", leaks, corruptions)
		}
	}
	g.Run(t)
}

// TestNBDModel does everything that a client can do, on several connections to
// one disk, and compares with a plain model of it.
func TestNBDModel(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	raw, data := nbdBase(t)
	packed := filepath.Join(t.TempDir(), "base.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, packed)
	image := upload(t, g, "base", "qcow2", packed)
	overlay := newOverlay(t, g, image, "")
	_, ephemeral := attachment(t, g, "image_id", image, "ephemeral", "tcp")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var work sync.WaitGroup
	for k, d := range [][3]string{{"unix", g.Socket, "overlay/" + overlay}, {"tcp", g.NBD, ephemeral}, {"tcp", g.NBD, "ephemeral/" + image}} {
		conns := []int{3, 3, 1}[k]
		for i := range conns {
			c := openSoon(t, d[0], d[1], d[2])
			for half := range 2 { // two at work on each connection
				m := &nbdModel{t: t, c: c, rng: rand.New(rand.NewPCG(seed, uint64(k*100+i*2+half))), off: uint64(i*2+half) * 1_000_003}
				m.want = bytes.Clone(data[m.off : m.off+1_000_003])
				m.unsure = make([]bool, len(m.want))
				work.Go(func() { m.run(3 * time.Second) })
			}
		}
	}
	work.Wait()
}

// nbdModel is what a part of a disk must hold. A byte that was discarded may
// be anything.
type nbdModel struct {
	t      *testing.T
	c      *nbdtest.Client
	rng    *rand.Rand
	off    uint64
	want   []byte
	unsure []bool
}

func (m *nbdModel) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !m.t.Failed(); {
		if err := m.step(); err != nil {
			m.t.Error(err)
			return
		}
	}
	m.compare(0, len(m.want), 0)
}

// step does one thing.
func (m *nbdModel) step() error {
	at := m.rng.IntN(len(m.want))
	n := min(len(m.want)-at, m.rng.IntN([]int{10, 5000, 40_000, 400_000}[m.rng.IntN(4)])+1)
	if m.rng.IntN(3) == 0 { // aligned
		at &^= 4095
		n = min(len(m.want)-at, max(n&^4095, 4096))
	}
	off, fua := m.off+uint64(at), uint16(m.rng.IntN(8)/7)*nbdtest.FUA
	switch m.rng.IntN(12) {
	case 0, 1, 2:
		p := noise(n, byte(m.rng.Uint32()))
		m.set(at, p)
		return m.c.WriteAt(p, off, fua)
	case 3, 4:
		m.set(at, make([]byte, n))
		return m.c.Zero(off, uint64(n), fua|[]uint16{0, nbdtest.NoHole}[m.rng.IntN(2)])
	case 5:
		err := m.c.Zero(off, uint64(n), nbdtest.FastZero)
		if nbdtest.Errno(err) == nbdtest.ENOTSUP {
			return nil
		}
		m.set(at, make([]byte, n))
		return err
	case 6:
		for i := at; i < at+n; i++ {
			m.unsure[i] = true
		}
		return m.c.Trim(off, uint64(n), fua)
	case 7:
		return m.c.Flush()
	case 8:
		return m.c.Cache(off, uint64(n))
	case 9:
		return m.promises(at, n)
	default:
		return m.compare(at, n, []uint16{0, nbdtest.DF}[m.rng.IntN(2)])
	}
}

func (m *nbdModel) set(at int, p []byte) {
	copy(m.want[at:], p)
	clear(m.unsure[at : at+len(p)])
}

// compare reads and wants what was written.
func (m *nbdModel) compare(at, n int, flags uint16) error {
	got, err := m.c.Read(m.off+uint64(at), n, flags)
	if err != nil {
		return err
	}
	for i, b := range got {
		if b != m.want[at+i] && !m.unsure[at+i] {
			return fmt.Errorf("byte %d is %#x, and %#x was written", m.off+uint64(at+i), b, m.want[at+i])
		}
	}
	return nil
}

// promises wants what is told as zero to be so.
func (m *nbdModel) promises(at, n int) error {
	list, err := m.c.Status(m.off+uint64(at), uint64(n), 0)
	if err != nil {
		return err
	}
	for _, e := range list {
		for i := at; e.Flags&2 != 0 && i < min(at+int(e.Len), len(m.want)); i++ {
			if m.want[i] != 0 && !m.unsure[i] {
				return fmt.Errorf("byte %d is told as zero, and %#x was written", m.off+uint64(i), m.want[i])
			}
		}
		at += int(e.Len)
	}
	return nil
}

// TestNBDCopy copies into an overlay over several connections and back.
func TestNBDCopy(t *testing.T) {
	gateway.Need(t, "nbdcopy", "qemu-io", "qemu-img")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	raw, data := nbdBase(t)
	image := upload(t, g, "base", "raw", raw)
	overlay := newOverlay(t, g, image, "")
	_, token := attachment(t, g, "overlay_id", newOverlay(t, g, image, ""), "rw", "unix")
	dir := t.TempDir()
	for _, uri := range []string{g.Export("overlay/" + overlay), "nbd://" + g.NBD + "/overlay/" + overlay, g.Export(token)} {
		other := filepath.Join(dir, "other.raw")
		tool(t, "qemu-img", "create", "-q", "-f", "raw", other, fmt.Sprint((len(data)+511)&^511))
		tool(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 300k", "-c", "write -P 9 20M 3M", "-c", "write -P 11 40M 512", other)
		for _, flags := range [][]string{{"--connections=4", "--flush"}, {"--synchronous"}, {"--connections=2", "--requests=64", "--request-size=2097152", "--flush"}, {"--allocated", "--flush"}} {
			tool(t, "nbdcopy", append(flags, other, uri)...)
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", other, uri)
			back := filepath.Join(dir, "back.raw")
			tool(t, "nbdcopy", uri, back)
			sameFile(t, back, readAll(t, other))
			tool(t, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "write -P 1 1M 100k", "-c", "write -z -u 1100k 64k", "-c", "write -f -P 2 2M 4k", "-c", "discard 3M 1M",
				"-c", "write -z 5M 9M", "-c", "flush", "-c", "read -P 1 1M 76k", "-c", "read -P 0 1100k 24k", "-c", "read -P 2 2M 4k", "-c", "read -P 0 5M 9M", uri)
		}
		tool(t, "nbdcopy", g.Export(image), uri) // from one export to another; the overlay is longer by part of a sector
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
	}
}
