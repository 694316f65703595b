//go:build integration

package kernel

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKernel boots one guest and lets its kernel use exports in all ways.
func TestKernel(t *testing.T) {
	w := start(t)
	for _, s := range []struct {
		name string
		test func(t *testing.T, w *world)
	}{
		{"nbd-client reads an image", clientReads},
		{"nbd-client with one connection", func(t *testing.T, w *world) { clientWrites(t, w, 1) }},
		{"nbd-client with two connections", func(t *testing.T, w *world) { clientWrites(t, w, 2) }},
		{"a device of an image", deviceReads},
		{"a device with one connection", func(t *testing.T, w *world) { deviceWrites(t, w, 1) }},
		{"a device with two connections", func(t *testing.T, w *world) { deviceWrites(t, w, 2) }},
		{"a server that stays away", deviceTimesOut},
		{"refusals", deviceRefusals},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.test(t, w) }) {
			return // what the guest's kernel does next tells nothing
		}
	}
	if err := w.m.PowerOff(w.ctx); err != nil {
		t.Error(err)
	}
}

// clientReads uses the line that platter prints for an image.
func clientReads(t *testing.T, w *world) {
	w.run(t, "%s", w.attach(t, w.image, "nbd-client"))
	w.reads(t, "/dev/nbd0")
	w.run(t, "nbd-client -d /dev/nbd0")
	w.gone(t, "nbd0")
}

// reads compares a device with the image.
func (w *world) reads(t *testing.T, device string) {
	t.Helper()
	if got := w.run(t, "md5sum <%s", device); got != w.sum+"  -" {
		t.Errorf("the device holds %s, the image %s", got, w.sum)
	}
	if got := w.run(t, "blockdev --getro --getsize64 --getss %s", device); got != fmt.Sprintf("1\n%d\n512", imageSize) {
		t.Errorf("read-only, size and sector size: %q", got)
	}
	if out, err := w.m.Run(w.ctx, "dd if=/dev/zero of="+device+" bs=4096 count=1 conv=fsync"); err == nil {
		t.Errorf("the image was written to: %s", out)
	}
	w.sound(t)
}

// gone waits until the kernel has let a device go.
func (w *world) gone(t *testing.T, name string) {
	t.Helper()
	w.run(t, "for i in $(seq 100); do [ -e /sys/block/%[1]s/pid ] || break; sleep 0.1; done; [ ! -e /sys/block/%[1]s/pid ]", name)
}

// clientWrites uses the line that platter prints for an overlay.
func clientWrites(t *testing.T, w *world, connections int) {
	line := w.attach(t, "overlay/"+w.g.NewOverlay(t, w.blank, ""), "nbd-client")
	if connections > 1 {
		line += fmt.Sprintf(" -C %d", connections)
	}
	w.run(t, "%s", line)
	w.fill(t, "/dev/nbd0")
	// Debian 12's nbd-client does not come back by itself, whatever -persist
	// says. But it can be told to, and what was written is there.
	w.restart(t, 0)
	w.run(t, "nbd-client -d /dev/nbd0")
	w.gone(t, "nbd0")
	w.run(t, "%s", line)
	w.filled(t, "/dev/nbd0")
	w.verify(t, "/dev/nbd0")
	w.run(t, "nbd-client -d /dev/nbd0")
	w.gone(t, "nbd0")
	w.sound(t)
}

// fill makes a file system, writes files to it, removes some and trims.
func (w *world) fill(t *testing.T, device string) {
	t.Helper()
	w.run(t, "mkdir -p /tmp/mnt && mkfs.ext4 -q %[1]s && mount -o discard %[1]s /tmp/mnt", device)
	w.run(t, "cd /tmp/mnt && for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=f$i bs=97k count=$((i * 5)) 2>/dev/null; done; rm f4; md5sum f* >sums; sync -f .; cd /")
	if got := w.run(t, "fstrim -v /tmp/mnt"); !strings.Contains(got, "trimmed") {
		t.Errorf("fstrim: %s", got)
	}
	w.run(t, "umount /tmp/mnt")
	w.sound(t)
}

// filled looks whether a device has what fill wrote.
func (w *world) filled(t *testing.T, device string) {
	t.Helper()
	w.run(t, "echo 3 >/proc/sys/vm/drop_caches; fsck.ext4 -f -n %s >/dev/null 2>&1", device)
	w.run(t, "mount %s /tmp/mnt && (cd /tmp/mnt && md5sum --quiet -c sums && [ ! -e f4 ]) && umount /tmp/mnt", device)
	w.sound(t)
}

// verify discards a whole device and lets fio write and verify on it.
func (w *world) verify(t *testing.T, device string) {
	t.Helper()
	w.run(t, "blkdiscard -f %[1]s && echo 3 >/proc/sys/vm/drop_caches && [ $(dd if=%[1]s bs=1M count=4 2>/dev/null | tr -d '\\0' | wc -c) = 0 ]", device)
	w.run(t, "%s", fio(device, "--size=8M"))
	w.sound(t)
}

// fio is a line that writes, reads back and compares.
func fio(device, more string) string {
	return "fio --name=v --filename=" + device + " --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 " +
		"--verify=crc32c --verify_fatal=1 --randrepeat=0 " + more + " >/tmp/fio.out 2>/tmp/fio.err || { cat /tmp/fio.err; false; }"
}

// deviceReads lets platter connect an image.
func deviceReads(t *testing.T, w *world) {
	d := w.device(t, w.image, "")
	w.reads(t, d)
	w.detach(t, d)
}

// device starts "platter attach --device" in the guest and returns the name of
// the device, once it is there.
func (w *world) device(t *testing.T, what, flags string) string {
	t.Helper()
	uri := w.attach(t, what, "uri")
	w.run(t, "rm -f /tmp/device /tmp/ended; { platter attach '%s' --device auto %s >/tmp/device 2>/tmp/log; echo $? >/tmp/ended; } </dev/null &", uri, flags)
	got := w.run(t, "for i in $(seq 300); do [ -s /tmp/device ] && break; [ -e /tmp/ended ] && { cat /tmp/log; false; break; }; sleep 0.1; done; cat /tmp/device")
	if !strings.HasPrefix(got, "/dev/nbd") {
		t.Fatalf("platter attach: %s", got)
	}
	return got
}

// detach disconnects a device, which ends the command that keeps it.
func (w *world) detach(t *testing.T, device string) {
	t.Helper()
	w.run(t, "platter detach %s", device)
	if got := w.run(t, "for i in $(seq 150); do [ -e /tmp/ended ] && break; sleep 0.1; done; cat /tmp/ended; cat /tmp/log"); !strings.HasPrefix(got, "0\n") {
		t.Errorf("platter attach ended with %s", got)
	}
	w.gone(t, strings.TrimPrefix(device, "/dev/"))
	if out, err := w.m.Run(w.ctx, "platter detach "+device); err == nil || !strings.Contains(out, "not connected") {
		t.Errorf("detached twice: %s", out)
	}
}

// deviceWrites hands the gateway over and restarts it, in turn, under a device
// that is being written to.
func deviceWrites(t *testing.T, w *world, connections int) {
	d := w.device(t, "overlay/"+w.g.NewOverlay(t, w.blank, ""), fmt.Sprintf("--connections %d --request-timeout 5s", connections))
	w.fill(t, d)
	w.filled(t, d)
	w.verify(t, d)

	rounds := 2
	if connections == 1 && soaking() {
		rounds = 100
	}
	w.run(t, "rm -f /tmp/fio.end; (%s; echo >/tmp/fio.end) </dev/null &", fio(d, "--size=64M --verify_backlog=256 --time_based --runtime=10h --rate_iops=300"))
	var over, away, restart []time.Duration
	for range rounds {
		w.goesOn(t, d)
		begin := time.Now()
		w.g.TakeOver(t)
		w.goesOn(t, d)
		over = append(over, time.Since(begin))
		begin = time.Now()
		w.restart(t, 0)
		away = append(away, time.Since(begin))
		w.goesOn(t, d)
		restart = append(restart, time.Since(begin))
		w.sound(t)
	}
	t.Logf("%d hand-overs; 50 requests were done after %v at most, %v in the median", rounds, slices.Max(over), median(over))
	t.Logf("%d restarts; the gateway was back after %v at most, %v in the median; 50 requests were done after %v, %v; the kernel repeats what is 5 s old",
		rounds, slices.Max(away), median(away), slices.Max(restart), median(restart))
	w.run(t, "[ ! -e /tmp/fio.end ] && kill $(busybox ps | awk '/fio --name=v/ && !/awk/ { print $1; exit }'); for i in $(seq 3000); do [ -e /tmp/fio.end ] && break; sleep 0.1; done; [ -e /tmp/fio.end ]")
	if got := w.run(t, "cat /tmp/fio.out"); !strings.Contains(got, "err= 0") || strings.Contains(got, "verify:") {
		t.Fatalf("fio says %s", got)
	}
	w.sound(t)
	if got, err := strconv.Atoi(w.run(t, "grep -c 'connected again' /tmp/log")); err != nil || got < rounds {
		t.Errorf("connected again %d times after %d restarts, %v: %s", got, rounds, err, w.run(t, "cat /tmp/log"))
	}

	// A file system that stays mounted.
	w.run(t, "mkfs.ext4 -q %[1]s && mount -o discard %[1]s /tmp/mnt && cp -r /usr/bin /tmp/mnt/a && sync", d)
	w.restart(t, time.Second)
	w.run(t, "cp -r /usr/bin /tmp/mnt/b && sync && echo 3 >/proc/sys/vm/drop_caches && diff -r /tmp/mnt/a /tmp/mnt/b && rm -r /tmp/mnt/a && fstrim /tmp/mnt && umount /tmp/mnt && fsck.ext4 -f -n %s >/dev/null 2>&1", d)
	w.sound(t)
	w.detach(t, d)
}

// goesOn waits until a device has done some more requests.
func (w *world) goesOn(t *testing.T, device string) {
	t.Helper()
	w.run(t, "ios() { awk '{ print $1 + $5 }' /sys/block/%s/stat; }; a=$(ios); for i in $(seq 600); do [ $(ios) -gt $((a + 50)) ] && break; sleep 0.1; done; [ $i -lt 600 ]", strings.TrimPrefix(device, "/dev/"))
}

func median(list []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// deviceTimesOut lets the gateway be away for longer than requests wait.
func deviceTimesOut(t *testing.T, w *world) {
	d := w.device(t, w.image, "--request-timeout 2s --reconnect 4s")
	w.g.Stop(t)
	begin := time.Now()
	out, err := w.m.Run(w.ctx, "dd if="+d+" of=/dev/null bs=64k count=1 iflag=direct")
	took := time.Since(begin)
	if err == nil || took < 2*time.Second || took > 2*time.Minute {
		t.Errorf("reading without a gateway: %v after %v: %s", err, took, out)
	}
	w.run(t, "busybox dmesg -c >/dev/null")
	w.g.Run(t)
	w.run(t, "for i in $(seq 1200); do grep -q 'requests have failed' /tmp/log && break; sleep 0.1; done; cat /tmp/log")
	w.reads(t, d)
	w.detach(t, d)
}

// deviceRefusals asks for what cannot be.
func deviceRefusals(t *testing.T, w *world) {
	uri := w.attach(t, w.image, "uri")
	d := w.device(t, w.image, "")
	for _, c := range []struct{ line, want string }{
		{"platter attach '" + uri + "' --device " + d, "is in use"},
		{"platter attach '" + uri + "x' --device auto", "no such export"},
		{"platter attach nbd://10.0.2.2:1/x --device auto", "is the gateway running"},
		{"platter attach nbds://10.0.2.2/x --device auto", "TLS"},
		{"platter attach '" + uri + "' --device /dev/vda", "no nbd device"},
		{"setpriv --reuid 65534 --clear-groups --bounding-set=-all platter attach '" + uri + "' --device auto", "as root"},
	} {
		out, err := w.m.Run(w.ctx, c.line)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %s", c.line, out)
		}
	}
	w.detach(t, d)
	out, err := w.m.Run(w.ctx, "busybox rmmod nbd && platter attach '"+uri+"' --device auto")
	if err == nil || !strings.Contains(out, "modprobe nbd") {
		t.Errorf("without the module: %s", out)
	}
}
