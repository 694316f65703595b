//go:build integration

package takeover

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
)

// TestGuest boots a guest from an overlay. While it writes, the gateway is
// handed over and restarted, each some times. The guest's kernel may see no
// error, and everything that it wrote and read back is right.
func TestGuest(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g := gateway.Start(t)
	root := "overlay/" + g.NewOverlay(t, g.Upload(t, "root", "qcow2", files.Disk), "")
	data := "overlay/" + g.NewOverlay(t, g.Upload(t, "data", "raw", image(t, "raw")), "")
	disk := func(id, server, export string) string {
		return fmt.Sprintf(" -blockdev driver=nbd,node-name=%[1]s,%[2]s,export=%[3]s,reconnect-delay=60,discard=unmap -device virtio-blk-pci,drive=%[1]s", id, server, export)
	}
	m, err := files.Boot(ctx, disk("root", "server.type=unix,server.path="+g.Socket, root)+
		disk("data", "server.type=inet,server.host=127.0.0.1,server.port="+port(g.NBD), data))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	run := func(line string) {
		t.Helper()
		if err := m.Send("run %s", line); err != nil {
			t.Fatal(err)
		}
		said, err := m.Line(ctx, "r")
		for ; err == nil && said != "ran"; said, err = m.Line(ctx, "r") {
			t.Log(said)
			if said == "run failed" {
				t.Fatalf("the guest's %s failed", line)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Send("work"); err != nil { // on the root disk
		t.Fatal(err)
	}
	if err := m.Expect(ctx, "working"); err != nil {
		t.Fatal(err)
	}
	// On the other: write, drop the cache, read back.
	rounds := times(5, 100)
	run(`(n=0; while [ ! -e /stop ]; do n=$((n+1)); dd if=/dev/urandom of=/piece bs=64k count=8 2>/dev/null; ` +
		`dd if=/piece of=/dev/vdb bs=64k seek=$((n % 16 * 8)) oflag=direct 2>/dev/null || echo bad >>/bad; ` +
		`dd if=/dev/vdb bs=64k count=8 skip=$((n % 16 * 8)) iflag=direct 2>/dev/null | cmp - /piece || echo bad >>/bad; done; echo $n >/stopped) &`)
	for range rounds {
		t.Logf("handed over; the gateway paused for %v", g.TakeOver(t).Round(time.Millisecond))
		time.Sleep(500 * time.Millisecond)
		begin := time.Now()
		g.Stop(t)
		g.Run(t)
		t.Logf("restarted in %v", time.Since(begin).Round(time.Millisecond))
		time.Sleep(500 * time.Millisecond)
	}
	run(`touch /stop; while [ ! -e /stopped ]; do sleep 0.2; done; say "wrote $(cat /stopped) times"; [ ! -e /bad ]`)
	run(`! dmesg | grep -iE 'i/o error|ext4-fs error|ext4-fs warning|critical|remounting' >/errors || { while read -r l; do say "$l"; done </errors; false; }`)
	if err := m.Send("check"); err != nil {
		t.Fatal(err)
	}
	if err := m.Expect(ctx, "check ok"); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
}
