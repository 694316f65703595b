//go:build integration

package crashes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/guest"
)

// A volume is a file system in a disk of the guest.
type volume struct {
	g       *gateway.Gateway
	kind    string // ext4 or xfs
	device  string // in the guest
	overlay string
}

func (v *volume) dir() string { return "/tmp/" + filepath.Base(v.device) }

// TestFileSystems lets a guest write files to ext4 and XFS in overlays of each
// engine, and sync them. The gateways are killed on the way, and come back;
// the guest goes on as if nothing had been. Then every file that was synced
// is there, and the checkers of the file systems find no fault.
func TestFileSystems(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64", "qemu-img", "mkfs.ext4", "mkfs.xfs", "fsck.ext4", "xfs_repair")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	files, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log := gateway.Start(t, flags(inVersity(t)...)...)
	rbd := gateway.Start(t, flags(inPool(t)...)...)
	var volumes []*volume
	for i, g := range []*gateway.Gateway{log, log, rbd, rbd} {
		v := &volume{g: g, kind: []string{"ext4", "xfs"}[i%2], device: fmt.Sprintf("/dev/vd%c", 'b'+i)}
		v.make(t)
		volumes = append(volumes, v)
	}
	for round := range times(1, 9) {
		w := &work{t: t, ctx: ctx, volumes: volumes, round: round, gateways: []*gateway.Gateway{log, rbd}}
		w.boot(files)
		w.write()
		if round%2 == 1 { // the next one finds what the last sync left
			w.lose()
		} else {
			w.check()
		}
	}
	for _, v := range volumes {
		v.check(t)
	}
}

// make uploads a file system and lays an overlay over it. XFS wants 300 MiB,
// so that one is a qcow2.
func (v *volume) make(t *testing.T) {
	t.Helper()
	path, format := filepath.Join(t.TempDir(), v.kind), "raw"
	size := int64(64 << 20)
	if v.kind == "xfs" {
		size = 320 << 20
	}
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	tool(t, "mkfs."+v.kind, "-q", path)
	if v.kind == "xfs" {
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, path+".qcow2")
		path, format = path+".qcow2", "qcow2"
	}
	v.overlay = v.g.NewOverlay(t, v.g.Upload(t, v.kind, format, path), "")
}

// check looks for faults in what the guest left.
func (v *volume) check(t *testing.T) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "left")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", v.g.Export("overlay/"+v.overlay), path)
	if v.kind == "ext4" {
		tool(t, "fsck.ext4", "-f", "-n", path)
	} else {
		tool(t, "xfs_repair", "-n", path)
	}
}

// A work is what one boot of the guest does.
type work struct {
	t        *testing.T
	ctx      context.Context
	m        *guest.Machine
	volumes  []*volume
	gateways []*gateway.Gateway
	round    int
}

func (w *work) boot(files guest.Files) {
	w.t.Helper()
	disks := fmt.Sprintf("-drive file=%s,if=none,id=root,snapshot=on -device virtio-blk-pci,drive=root", files.Disk)
	for i, v := range w.volumes {
		disks += fmt.Sprintf(" -blockdev driver=nbd,node-name=d%d,server.type=unix,server.path=%s,export=overlay/%s,reconnect-delay=120,discard=unmap"+
			" -device virtio-blk-pci,drive=d%d", i, v.g.Socket, v.overlay, i)
	}
	start := time.Now()
	var err error
	if w.m, err = files.Boot(w.ctx, disks); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.m.Kill() })
	if err := w.m.Up(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("up after %v", time.Since(start).Round(100*time.Millisecond))
	for _, v := range w.volumes {
		w.run("mkdir -p %[1]s && mount -t %[2]s -o discard %[3]s %[1]s", v.dir(), v.kind, v.device)
		if w.round > 0 {
			w.run("(cd %s && md5sum --quiet -c sums)", v.dir())
		}
	}
}

// run lets the guest do something and waits until it is done.
func (w *work) run(line string, args ...any) {
	w.t.Helper()
	if err := w.m.Send("run "+line, args...); err != nil {
		w.t.Fatal(err)
	}
	for {
		said, err := w.m.Line(w.ctx, "r")
		if err != nil || said == "run failed" {
			w.t.Fatalf("the guest's %s: %v %s", fmt.Sprintf(line, args...), err, said)
		}
		if said == "ran" {
			return
		}
	}
}

// write lets the guest write files and sync them, all file systems at once,
// and kills the gateways while it does.
func (w *work) write() {
	t := w.t
	count := 9
	var jobs []string
	for _, v := range w.volumes {
		// Every third file goes away again.
		jobs = append(jobs, fmt.Sprintf(`(cd %s && for i in $(seq %d); do f=f%d.$i; dd if=/dev/urandom of=$f bs=37k count=$((i + 3)) 2>/dev/null; md5sum $f >>sums.new; `+
			`[ $i -lt 4 ] || [ $((i %% 3)) != 0 ] || { rm f%[3]d.$((i - 2)); sed -i "/f%[3]d.$((i - 2))$/d" sums.new; }; `+
			`cp sums.new sums; sync -f .; say "synced $PWD $i"; done; say "finished") &`, v.dir(), count, w.round))
	}
	if err := w.m.Send("run %s", strings.Join(jobs, " ")); err != nil {
		t.Fatal(err)
	}
	finished, synced, kills := 0, 0, 0
	for finished < len(w.volumes) {
		line, err := w.m.Line(w.ctx, "ed")
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(line, "finished"):
			finished++
			continue
		case strings.HasPrefix(line, "synced"):
			synced++
		}
		if synced%(count-2) == 5 && kills < 4 {
			g := w.gateways[kills%2]
			kills++
			g.Kill(t)
			time.Sleep(100 * time.Millisecond)
			g.Run(t)
		}
	}
	t.Logf("%d files synced, %d kills", synced, kills)
	if synced != count*len(w.volumes) || kills < 4 {
		t.Errorf("%d files were synced, and %d times a gateway was killed", synced, kills)
	}
}

// check lets the guest read everything, from the disks, and ends it.
func (w *work) check() {
	w.t.Helper()
	for _, v := range w.volumes {
		w.run("umount %[1]s && mount -t %[2]s %[3]s %[1]s && (cd %[1]s && md5sum --quiet -c sums) && umount %[1]s", v.dir(), v.kind, v.device)
	}
	if err := w.m.PowerOff(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.kill()
}

// lose ends the guest as a loss of power does, and the gateways with it.
func (w *work) lose() {
	w.t.Helper()
	if err := w.m.Kill(); err != nil {
		w.t.Fatal(err)
	}
	w.kill()
}

func (w *work) kill() {
	w.t.Helper()
	for _, g := range w.gateways {
		g.Kill(w.t)
		g.Run(w.t)
	}
}
