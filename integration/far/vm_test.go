//go:build integration

package far

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
	"github.com/seed-478a8fee/platter/integration/proxy"
)

// TestMachine is the whole story of an image in a far store: a real qcow2 is
// uploaded and booted from, first ephemerally, then from an overlay, where the
// guest leaves a mark; the overlay is captured while the guest works; the
// captured image boots and has the mark; the first image has not changed.
// Boots are few: one kind of store, and with PLATTER_SOAK all.
func TestMachine(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64", "qemu-img", "mmdebstrap")
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guests run under %s", files.Accel)
	t.Run("s3 counted", func(t *testing.T) {
		versity(t).MakeBucket(t, "machine")
		p := proxy.Start(t, versity(t).URL, proxy.Config{})
		machine(ctx, t, files, gateway.Start(t, gateway.S3Store(versity(t).S3.At(p.URL), "machine")...), p)
	})
	if os.Getenv("PLATTER_SOAK") == "" {
		return
	}
	t.Run("file", func(t *testing.T) { machine(ctx, t, files, gateway.Start(t), nil) })
	each(t, func(t *testing.T, k kind) { machine(ctx, t, files, start(t, k), nil) })
}

// machine is the story on one gateway. If p is not nil it counts what is read
// of the store behind it.
func machine(ctx context.Context, t *testing.T, files guest.Files, g *gateway.Gateway, p *proxy.Proxy) {
	id := g.Upload(t, "debian", "qcow2", files.Disk)
	counted(t, g, p, id, func() {
		m := boot(ctx, t, files, ephemeral(g, id))
		mark(ctx, t, m, "gone-with-the-connection")
		end(ctx, t, m)
	})

	ov := g.NewOverlay(t, id, `,"name":"vm"`)
	var att struct{ ID, QEMU string }
	if err := json.Unmarshal(g.Call(t, "POST", "/platter/v1/attachments", `{"overlay_id":"`+ov+`"}`, 201), &att); err != nil {
		t.Fatal(err)
	}
	before := received(p)
	m := boot(ctx, t, files, att.QEMU)
	// The same blocks as at the first boot: this gateway has them.
	if n := received(p) - before; n > 0 {
		t.Errorf("the second boot read %d bytes of the store", n)
	}
	check(ctx, t, m)
	mark(ctx, t, m, "seen-by-the-capture")
	say(ctx, t, m, "work", "working")
	captured := g.Capture(t, ov, `{"name":"captured","disk_format":"qcow2"}`)
	mark(ctx, t, m, "after-the-capture")
	end(ctx, t, m)
	g.Call(t, "DELETE", "/platter/v1/attachments/"+att.ID, "", 204)

	m = boot(ctx, t, files, ephemeral(g, captured))
	if m.Mark != "seen-by-the-capture" {
		t.Errorf("the captured image has the mark %q", m.Mark)
	}
	check(ctx, t, m)
	end(ctx, t, m)
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", files.Disk, g.Export(id))
}

func ephemeral(g *gateway.Gateway, id string) string {
	return "-blockdev driver=nbd,node-name=disk,server.type=unix,server.path=" + g.Socket + ",export=ephemeral/" + id + " -device virtio-blk-pci,drive=disk"
}

// received is how much has been read of a store.
func received(p *proxy.Proxy) int64 {
	if p == nil {
		return 0
	}
	return p.Count(http.MethodGet).Received
}

// counted compares what a boot with an empty cache read of the store with what
// the guest asked for.
func counted(t *testing.T, g *gateway.Gateway, p *proxy.Proxy, image string, work func()) {
	t.Helper()
	if p == nil {
		work()
		return
	}
	g.Call(t, "DELETE", "/platter/v1/cache/images/"+image, "", 204)
	far, asked := received(p), metric(t, g, `platter_nbd_bytes_total{command="read"}`)
	work()
	far, asked = received(p)-far, metric(t, g, `platter_nbd_bytes_total{command="read"}`)-asked
	t.Logf("a boot with an empty cache asked for %d bytes; %d were read of the store: %.2f", asked, far, float64(far)/float64(asked))
	if asked == 0 || far*2 > asked*3 {
		t.Errorf("%d bytes of the store were read for %d that the guest asked for", far, asked)
	}
}

// metric returns a number that the gateway counts.
func metric(t *testing.T, g *gateway.Gateway, name string) int64 {
	t.Helper()
	resp, err := http.Get(g.Debug + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(n)
		}
	}
	return 0 // nothing was counted yet
}

// boot starts a guest and waits until it is up.
func boot(ctx context.Context, t *testing.T, files guest.Files, disk string) *guest.Machine {
	t.Helper()
	start := time.Now()
	m, err := files.Boot(ctx, disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(start).Round(100*time.Millisecond))
	return m
}

// say gives the guest a command and waits for its answer.
func say(ctx context.Context, t *testing.T, m *guest.Machine, command, answer string) {
	t.Helper()
	if err := m.Send("%s", command); err != nil {
		t.Fatal(err)
	}
	if err := m.Expect(ctx, answer); err != nil {
		t.Fatal(err)
	}
}

func check(ctx context.Context, t *testing.T, m *guest.Machine) {
	t.Helper()
	say(ctx, t, m, "check", "check ok")
}

func mark(ctx context.Context, t *testing.T, m *guest.Machine, word string) {
	t.Helper()
	say(ctx, t, m, fmt.Sprintf("mark %s", word), "marked "+word)
}

func end(ctx context.Context, t *testing.T, m *guest.Machine) {
	t.Helper()
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
}
