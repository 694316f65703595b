//go:build integration

package crashes

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestKill kills the gateway, again and again, while overlays are written,
// snapshotted and captured, and now and then once more while it recovers.
func TestKill(t *testing.T) {
	for _, k := range []struct {
		name         string
		env          func(t *testing.T, more ...string) []string
		more         []string
		format       string
		prefix       bool
		sample, full int
		sweep        bool
	}{
		{"log/gateway", inVersity, nil, "raw", true, 30, 300, false},
		{"log/gateway/small journal", inVersity, []string{"PLATTER_LIMITS_JOURNAL_BYTES=16MiB"}, "qcow2", true, 12, 150, true},
		{"log/store", inVersity, []string{"PLATTER_STORES_COLD_DURABILITY=store"}, "raw", true, 12, 150, false},
		{"log/gateway/rgw s3", inRGW, nil, "raw", true, 4, 50, false},
		{"log/store/rgw swift", inSwift, []string{"PLATTER_STORES_COLD_DURABILITY=store"}, "raw", true, 4, 50, false},
		{"rbd/clone", inPool, nil, "raw", false, 35, 400, false},
		{"rbd/bare", inPool, nil, "qcow2", false, 25, 150, true},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			gateway.Need(t, "qemu-img")
			env := append(k.env(t), flags(k.more...)...)
			g := gateway.Start(t, env...)
			r := newRig(t, g, k.prefix, k.format)
			killer := killer{rig: r}
			killer.run(times(k.sample, k.full))
			if soaking() || k.sweep { // it takes half a minute, for the dead are waited for
				killer.sweep(env)
			}
		})
	}
}

// A killer kills one rig's gateway.
type killer struct {
	*rig
	kills, again, captured int
	snapshots              []string
}

func (k *killer) run(rounds int) {
	t := k.t
	start := time.Now()
	c := k.open()
	for round := range rounds {
		k.round(c)
		c = k.open()
		disk := k.read(c)
		k.check(disk, span{flushed: true})
		k.settle(c, disk)
		if round%8 == 7 {
			k.checkSnapshots()
		}
		if t.Failed() {
			t.Fatalf("after kill %d", k.kills)
		}
	}
	// A clean stop loses nothing at all.
	stop := k.write(c)
	k.between(100, 200)
	stop()
	leave(t, c)
	k.g.Stop(t)
	k.g.Run(t)
	c = k.open()
	disk := k.read(c)
	k.check(disk, span{after: k.h.tick()})
	leave(t, c)
	t.Logf("%d kills and %d during recovery in %v; %d writes, %d flushes, %d captures compared; the slowest opening took %v",
		k.kills, k.again, time.Since(start).Round(time.Second), k.h.writes, k.h.flushed, k.captured, k.slowest.Round(time.Millisecond))
	if k.h.writes < 20*rounds || k.h.flushed < rounds {
		t.Error("too little was going on for the kills to mean anything")
	}
}

// round writes, kills, and starts again, perhaps more than once.
func (k *killer) round(c *nbdtest.Client) {
	t := k.t
	stop := k.write(c)
	aside := make(chan struct{})
	kind := k.rng.IntN(12)
	pause := time.Duration(k.rng.IntN(100)) * time.Millisecond
	go func() {
		defer close(aside)
		time.Sleep(pause)
		switch kind {
		case 0, 1:
			k.snapshot()
		case 2:
			k.capture(false)
		}
	}()
	if kind == 3 {
		k.capture(true)
	}
	k.between(20, 350)
	k.g.Kill(t)
	k.kills++
	c.Close()
	stop()
	<-aside
	for k.rng.IntN(4) == 0 {
		k.g.Launch(t)
		k.between(10, 400)
		k.g.Kill(t)
		k.again++
	}
	k.g.Run(t)
}

// snapshot makes one, or deletes one. It may be cut off.
func (k *killer) snapshot() {
	path := "/platter/v1/overlays/" + k.overlay + "/snapshots"
	if len(k.snapshots) > 3 {
		id := k.snapshots[0]
		if _, status, err := k.g.Ask("DELETE", path+"/"+id, ""); err != nil || status/100 != 2 && status != 404 {
			if err == nil {
				k.t.Errorf("delete snapshot %s: status %d", id, status)
			}
			return
		}
		k.snapshots = k.snapshots[1:]
		return
	}
	answer, status, err := k.g.Ask("POST", path, `{"name":"kept"}`)
	if err != nil {
		return
	}
	var made struct{ ID string }
	if json.Unmarshal(answer, &made); status != 201 || made.ID == "" {
		k.t.Errorf("snapshot: status %d %s", status, answer)
		return
	}
	k.snapshots = append(k.snapshots, made.ID)
}

// checkSnapshots wants those that were acknowledged to be there.
func (k *killer) checkSnapshots() {
	k.t.Helper()
	var ov struct{ Snapshots []struct{ ID string } }
	text := k.g.Call(k.t, "GET", "/platter/v1/overlays/"+k.overlay, "", 200)
	if err := json.Unmarshal(text, &ov); err != nil {
		k.t.Fatal(err)
	}
	there := map[string]bool{}
	for _, s := range ov.Snapshots {
		there[s.ID] = true
	}
	for i, id := range k.snapshots {
		if !there[id] && i > 0 { // the first may have been on its way out
			k.t.Errorf("snapshot %s is gone: %s", id, text)
		}
	}
}

// capture makes an image while the lanes write, which shows the disk as it was
// at some moment in between. One that is not waited for is cut off.
func (k *killer) capture(wait bool) {
	from := k.h.tick()
	answer, status, err := k.g.Ask("POST", "/platter/v1/overlays/"+k.overlay+"/capture", `{"image":{"name":"captured","disk_format":"raw"}}`)
	if err != nil {
		return
	}
	if status != 202 {
		k.t.Errorf("capture: status %d %s", status, answer)
		return
	}
	if !wait {
		return
	}
	var task struct {
		ID, Status, Message string
		Result              struct {
			Image string `json:"image_id"`
		}
	}
	json.Unmarshal(answer, &task)
	for end := time.Now().Add(5 * time.Minute); task.Status != "success"; time.Sleep(20 * time.Millisecond) {
		answer := k.g.Call(k.t, "GET", "/v2/tasks/"+task.ID, "", 200)
		if err := json.Unmarshal(answer, &task); err != nil || task.Status == "failure" || time.Now().After(end) {
			k.t.Errorf("the capture: %v %s", err, answer)
			return
		}
	}
	to := k.h.tick()
	if err := k.checkImage(task.Result.Image, span{after: from, before: to}); err != nil {
		k.t.Errorf("the captured image: %v", err)
	}
	k.captured++
	k.g.Call(k.t, "DELETE", "/v2/images/"+task.Result.Image, "", 204)
}

// checkImage compares an image with what the overlay may have held.
func (k *killer) checkImage(id string, p span) error {
	c, err := nbdtest.Open("unix", k.g.Socket, id)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Size != diskSize {
		return fmt.Errorf("it has %d bytes", c.Size)
	}
	disk, err := readDisk(c)
	if err != nil {
		return err
	}
	_, err = k.h.prefix(disk, p)
	return err
}

// sweep deletes everything and wants nothing to be left in the store, of
// whatever was under way when the gateway died.
func (k *killer) sweep(env []string) {
	t := k.t
	k.g.Call(t, "DELETE", "/platter/v1/overlays/"+k.overlay, "", 204)
	var list struct{ Images []struct{ ID string } }
	if err := json.Unmarshal(k.g.Call(t, "GET", "/v2/images?limit=1000", "", 200), &list); err != nil {
		t.Fatal(err)
	}
	for _, img := range list.Images {
		k.g.Call(t, "DELETE", "/v2/images/"+img.ID, "", 204)
	}
	left := leftIn(t, env)
	start := time.Now()
	for strings.Join(left(), "") != "" {
		if time.Since(start) > 5*time.Minute {
			t.Fatalf("%d objects are left in the store: %.2000s%s", len(left()), strings.Join(left(), " "), about(t, env, left()))
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("nothing is left after %v", time.Since(start).Round(100*time.Millisecond))
}

// about tells what a cluster knows of images.
func about(t *testing.T, env, images []string) (text string) {
	for _, kv := range env {
		pool, ok := strings.CutPrefix(kv, "PLATTER_STORES_COLD_POOL=")
		for _, image := range images {
			for _, ask := range []string{"info", "status", "lock ls", "snap ls --all"} {
				if ok {
					out, err := ceph(t).Try("rbd", append(strings.Fields(ask), pool+"/"+image)...)
					text += fmt.Sprintf("\nrbd %s %s: %v\n%s", ask, image, err, out)
				}
			}
		}
	}
	return text
}

// leftIn returns what lists the objects of the store that env tells of.
func leftIn(t *testing.T, env []string) func() []string {
	for _, kv := range env {
		if pool, ok := strings.CutPrefix(kv, "PLATTER_STORES_COLD_POOL="); ok {
			return func() []string { // names, and those in the trash with their ids before them
				return strings.Split(strings.TrimSpace(ceph(t).Command(t, "rbd", "ls", pool)+ceph(t).Command(t, "rbd", "trash", "ls", "--all", pool)), "\n")
			}
		}
		if bucket, ok := strings.CutPrefix(kv, "PLATTER_STORES_COLD_BUCKET="); ok {
			return func() (keys []string) {
				server := ceph(t).RGW.S3
				if slices.Contains(env, "PLATTER_STORES_COLD_ENDPOINT="+versity(t).URL) {
					server = versity(t).S3
				}
				for o := range server.Client(t).ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
					if !strings.HasPrefix(o.Key, "platter-probe-") { // of a start that was cut off: a few bytes
						keys = append(keys, o.Key)
					}
				}
				return keys
			}
		}
	}
	return func() []string { return nil } // no client for this one here
}
