//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
)

// TestMachine is the whole story of an image: a real qcow2 is uploaded and
// booted from, first ephemerally, then from an overlay, where the guest leaves
// a mark; the overlay is captured while the guest works; the captured image
// boots and has the mark; the first image has not changed.
func TestMachine(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64", "openstack", "qemu-img", "mmdebstrap")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guests run under %s", files.Accel)
	g := gateway.Start(t)
	id := strings.TrimSpace(g.Command(t, "openstack", "image", "create", "-f", "value", "-c", "id",
		"--file", files.Disk, "--disk-format", "qcow2", "--container-format", "bare", "debian"))

	boot := func(export string) *guest.Machine {
		t.Helper()
		start := time.Now()
		m, err := files.Boot(ctx, "-blockdev driver=nbd,node-name=disk,server.type=unix,server.path="+g.Socket+",export="+export+
			" -device virtio-blk-pci,drive=disk")
		if err != nil {
			t.Fatal(err)
		}
		return up(ctx, t, m, start)
	}
	mark := func(m *guest.Machine, word string) {
		t.Helper()
		if err := m.Send("mark %s", word); err != nil {
			t.Fatal(err)
		}
		if err := m.Expect(ctx, "marked "+word); err != nil {
			t.Fatal(err)
		}
	}

	m := boot("ephemeral/" + id)
	mark(m, "gone-with-the-connection")
	end(ctx, t, m)

	ov := field(t, call(t, g, "POST", "/platter/v1/overlays", `{"image_id":"`+id+`","name":"vm"}`, 201), "id")
	att := call(t, g, "POST", "/platter/v1/attachments", `{"overlay_id":"`+ov+`","mode":"rw","transport":"unix"}`, 201)
	start := time.Now()
	m, err = files.Boot(ctx, field(t, att, "qemu"))
	if err != nil {
		t.Fatal(err)
	}
	up(ctx, t, m, start)
	mark(m, "seen-by-the-capture")
	if err := m.Send("work"); err != nil {
		t.Fatal(err)
	}
	if err := m.Expect(ctx, "working"); err != nil {
		t.Fatal(err)
	}
	task := call(t, g, "POST", "/platter/v1/overlays/"+ov+"/capture", `{"image":{"name":"captured","disk_format":"qcow2"}}`, 202)
	captured := waitTask(t, g, field(t, task, "id"))
	mark(m, "after-the-capture")
	end(ctx, t, m)
	call(t, g, "DELETE", "/platter/v1/attachments/"+field(t, att, "id"), "", 204)

	m = boot("ephemeral/" + captured)
	if m.Mark != "seen-by-the-capture" {
		t.Errorf("the captured image has the mark %q", m.Mark)
	}
	end(ctx, t, m)
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", files.Disk, g.Export(id))
	if got := sumFile(t, g.Mount+"/by-id/"+id+"/native.qcow2"); got != sumFile(t, files.Disk) {
		t.Error("the first image's bytes have changed")
	}
}

// up waits until the guest is up and healthy.
func up(ctx context.Context, t *testing.T, m *guest.Machine, start time.Time) *guest.Machine {
	t.Helper()
	t.Cleanup(func() { m.Kill() })
	if err := m.Up(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %v", time.Since(start).Round(100*time.Millisecond))
	if err := m.Send("check"); err != nil {
		t.Fatal(err)
	}
	if err := m.Expect(ctx, "check ok"); err != nil {
		t.Fatal(err)
	}
	return m
}

func end(ctx context.Context, t *testing.T, m *guest.Machine) {
	t.Helper()
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
}

// waitTask waits until a capture has succeeded and returns its image.
func waitTask(t testing.TB, g *gateway.Gateway, id string) string {
	t.Helper()
	for range 3000 {
		var task struct {
			Status, Message string
			Result          map[string]any
		}
		if err := json.Unmarshal(call(t, g, "GET", "/v2/tasks/"+id, "", 200), &task); err != nil {
			t.Fatal(err)
		}
		switch task.Status {
		case "success":
			image, _ := task.Result["image_id"].(string)
			return image
		case "failure":
			t.Fatalf("the capture failed: %s", task.Message)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the capture does not end")
	return ""
}
