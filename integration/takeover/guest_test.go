//go:build integration

package takeover

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
)

// A booted is a guest with two disks of the gateway: its root, over the socket,
// and /dev/vdc, over TCP. QEMU's block driver is the client, and connects
// again for a minute.
type booted struct {
	t   *testing.T
	ctx context.Context
	m   *guest.Machine
}

func boot(t *testing.T, ctx context.Context, g *gateway.Gateway) *booted {
	t.Helper()
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := guest.Tools(ctx, t.TempDir(), "fio")
	if err != nil {
		t.Fatal(err)
	}
	root := "overlay/" + g.NewOverlay(t, g.Upload(t, "root", "qcow2", files.Disk), "")
	data := "overlay/" + g.NewOverlay(t, g.Upload(t, "data", "raw", image(t, "raw")), "")
	disk := func(id, server, export string) string {
		return fmt.Sprintf(" -blockdev driver=nbd,node-name=%[1]s,%[2]s,export=%[3]s,reconnect-delay=60,discard=unmap -device virtio-blk-pci,drive=%[1]s", id, server, export)
	}
	m, err := files.Boot(ctx, disk("root", "server.type=unix,server.path="+g.Socket, root)+
		" -drive file="+tools+",if=none,id=tools,format=raw,read-only=on -device virtio-blk-pci,drive=tools"+
		disk("data", "server.type=inet,server.host=127.0.0.1,server.port="+port(g.NBD), data)+
		" -netdev user,id=net -device virtio-net-pci,netdev=net,romfile=")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	b := &booted{t, ctx, m}
	for _, line := range guest.ToolsReady() {
		b.run(line)
	}
	return b
}

// run lets the guest run a line, which must succeed, and returns what it
// printed.
func (b *booted) run(line string) string {
	b.t.Helper()
	out, err := b.m.Run(b.ctx, line)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// work starts what the disks are used for: files on the root, fio with verify
// on one part of the other, and on the rest of it a loop that writes a block,
// reads it back and notes the longest time that one took, by the guest's
// clock.
func (b *booted) work() {
	b.t.Helper()
	b.run(`(while [ ! -e /tmp/stop ]; do dd if=/dev/urandom of=/work.$((RANDOM % 8)) bs=64k count=4 conv=fsync 2>/dev/null || echo root >>/tmp/bad; sleep 0.2; done) &`)
	b.run(`(fio --name=v --filename=/dev/vdc --offset=16M --size=32M --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=4 ` +
		`--fsync=256 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --rate_iops=200 --time_based --runtime=10h --thread >/tmp/fio 2>&1 & echo $! >/tmp/fio.pid; wait; echo $? >/tmp/fio.end) </dev/null &`)
	b.run(`(n=0; worst=0; clock() { read -r up _ </proc/uptime; now=${up%.*}${up#*.}; }; while [ ! -e /tmp/stop ]; do n=$((n+1)); clock; begin=$now; ` +
		`echo "block $n of a loop" | dd of=/tmp/piece bs=4k conv=sync 2>/dev/null; ` +
		`dd if=/tmp/piece of=/dev/vdc bs=4k seek=$((n % 1024)) oflag=direct 2>/dev/null || echo write >>/tmp/bad; ` +
		`dd if=/dev/vdc bs=4k count=1 skip=$((n % 1024)) iflag=direct 2>/dev/null | cmp -s - /tmp/piece || echo read >>/tmp/bad; ` +
		`clock; [ $((now - begin)) -le $worst ] || worst=$((now - begin)); ` +
		`if [ -e /tmp/ask ]; then echo $n $worst >/tmp/told; worst=0; rm /tmp/ask; fi; done) &`)
}

// stalled returns the longest time that a block of the loop took since the last
// call, to a hundredth of a second, once the one under way is done.
func (b *booted) stalled() time.Duration {
	b.t.Helper()
	out := b.run(`touch /tmp/ask; while [ -e /tmp/ask ]; do sleep 0.05; done; cat /tmp/told`)
	_, worst, _ := strings.Cut(out, " ")
	n, err := strconv.Atoi(worst)
	if err != nil {
		b.t.Fatalf("the guest says %q", out)
	}
	return time.Duration(n) * 10 * time.Millisecond
}

// sound ends the test unless all has gone well up to now.
func (b *booted) sound() {
	b.t.Helper()
	if got := b.run(`[ ! -e /tmp/bad -a ! -e /tmp/fio.end ] || cat /tmp/bad /tmp/fio*`); got != "" {
		b.t.Fatalf("in the guest: %s", got)
	}
	if got := b.run(`dmesg | grep -iE 'i/o error|ext4-fs error|ext4-fs warning|critical|remounting' || :`); got != "" {
		b.t.Fatalf("the guest's kernel says: %s", got)
	}
}

// end stops the work and checks everything once more.
func (b *booted) end() {
	b.t.Helper()
	b.sound()
	b.run(`touch /tmp/stop; kill $(cat /tmp/fio.pid); for i in $(seq 600); do [ ! -e /tmp/fio.end ] || break; sleep 0.1; done`)
	if got := b.run(`cat /tmp/fio`); !strings.Contains(got, "err= 0") || strings.Contains(got, "verify:") || strings.Contains(got, "error") {
		b.t.Fatalf("fio in the guest: %s", got)
	}
	b.t.Logf("the guest's fio: %s", b.run(`grep -E '(read|write): IOPS|issued' /tmp/fio`))
	b.run(`rm /tmp/fio /tmp/fio.end`)
	b.sound()
	if err := b.m.Send("check"); err != nil {
		b.t.Fatal(err)
	}
	if err := b.m.Expect(b.ctx, "check ok"); err != nil {
		b.t.Fatal(err)
	}
	if err := b.m.PowerOff(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

// TestGuest boots a guest from an overlay. While it works, the gateway is
// handed over and restarted in turn. The guest may see no error, and everything
// that it wrote and read back is right.
func TestGuest(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64", "fio", "busybox", "mke2fs")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	g := gateway.Start(t)
	b := boot(t, ctx, g)
	b.work()
	rounds := times(5, 100)
	var said, quiet, over, down, up, restart, beyond []time.Duration
	b.stalled()
	for range rounds {
		time.Sleep(time.Second)
		quiet = append(quiet, b.stalled())
		said = append(said, g.TakeOver(t))
		over = append(over, b.stalled())
		time.Sleep(time.Second)
		begin := time.Now()
		g.Stop(t)
		stopped := time.Now()
		g.Run(t)
		started := time.Now()
		down, up = append(down, stopped.Sub(begin)), append(up, started.Sub(stopped))
		felt := b.stalled()
		restart, beyond = append(restart, felt), append(beyond, max(0, felt-started.Sub(begin)))
		if felt > 5*time.Second {
			t.Logf("the guest waited for %v; the gateway was away for %v", felt, started.Sub(begin).Round(time.Millisecond))
		}
		b.sound()
	}
	t.Logf("without either, the longest that a block took the guest in a second: %s", stalls(quiet))
	t.Logf("%d hand-overs; the gateway paused: %s; the guest waited: %s", rounds, stalls(said), stalls(over))
	t.Logf("%d restarts; stop %s; start %s; the guest waited: %s; longer than stop and start, by QEMU's back-off: %s",
		rounds, stalls(down), stalls(up), stalls(restart), stalls(beyond))
	b.end()
}
