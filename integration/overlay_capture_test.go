//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// A captureTask is what clients see of a capture.
type captureTask struct {
	ID, Status, Message string
	ImageID             string `json:"image_id"`
	Progress            struct{ Done, Total int64 }
}

func beginCapture(t *testing.T, g *gateway.Gateway, overlay, image string) (task captureTask) {
	t.Helper()
	if err := json.Unmarshal(call(t, g, "POST", "/platter/v1/overlays/"+overlay+"/capture", `{"image":`+image+`}`, 202), &task); err != nil {
		t.Fatal(err)
	}
	return task
}

func (c captureTask) now(t *testing.T, g *gateway.Gateway) (task captureTask) {
	t.Helper()
	if err := json.Unmarshal(call(t, g, "GET", "/v2/tasks/"+c.ID, "", 200), &task); err != nil {
		t.Fatal(err)
	}
	return task
}

// until waits until a task is in a state.
func (c captureTask) until(t *testing.T, g *gateway.Gateway, ok func(captureTask) bool) captureTask {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		now := c.now(t, g)
		if ok(now) {
			return now
		}
		if now.Status == "success" || now.Status == "failure" || time.Now().After(end) {
			t.Fatalf("the task is %+v", now)
		}
	}
}

// bigOverlay is one whose capture as raw takes a while: every byte of a raw
// image is stored and hashed.
func bigOverlay(t *testing.T, g *gateway.Gateway, size int64) (base, overlay string) {
	t.Helper()
	path, _ := randomFile(t, 1<<20)
	base = upload(t, g, "base", "raw", path)
	return base, newOverlay(t, g, base, fmt.Sprintf(`,"size":%d`, size))
}

// TestCaptureInTheOpen looks at a long capture from outside, with the clients
// that there are, ends it by deleting its image, and by a stop.
func TestCaptureInTheOpen(t *testing.T) {
	gateway.Need(t, "glance", "qemu-img")
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn", "PLATTER_LIMITS_ORPHAN_GRACE=1s")
	base, overlay := bigOverlay(t, g, 64<<30)
	objectsBefore := len(tree(t, g.Dir, "images"))

	task := beginCapture(t, g, overlay, `{"disk_format":"raw"}`)
	moving := func(now captureTask) bool { return now.Status == "processing" && now.Progress.Done > 0 }
	first := task.until(t, g, moving)
	task.until(t, g, func(now captureTask) bool {
		return now.Progress.Done > first.Progress.Done && now.Progress.Total == 64<<30
	})
	glance := func(args ...string) string {
		return g.Command(t, "env", append([]string{"-u", "OS_AUTH_TYPE", "glance", "--os-image-url", g.URL, "--os-auth-token", "none"}, args...)...)
	}
	if out := glance("task-show", task.ID); !strings.Contains(out, "processing") || !strings.Contains(out, "progress") {
		t.Errorf("glance task-show:\n%s", out)
	}
	if out := glance("task-list"); !strings.Contains(out, task.ID) {
		t.Errorf("glance task-list:\n%s", out)
	}

	for path, names := range map[string]string{
		"/platter/v1/overlays/" + overlay: "capture " + task.ID, "/v2/images/" + base: "overlay " + overlay,
	} {
		if text := call(t, g, "DELETE", path, "", 409); !strings.Contains(string(text), names) {
			t.Errorf("deleting %s while it is captured: %s", path, text)
		}
	}
	start := time.Now()
	call(t, g, "DELETE", "/v2/images/"+task.ImageID, "", 204)
	task.until(t, g, func(now captureTask) bool {
		return now.Status == "failure" && strings.Contains(now.Message, "was deleted")
	})
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the capture ended %v after its image was deleted", took)
	}

	stopped, waiting := beginCapture(t, g, overlay, `{"disk_format":"raw"}`), captureTask{}
	for range 4 { // some of them wait for their turn
		waiting = beginCapture(t, g, overlay, `{"disk_format":"raw"}`)
	}
	stopped.until(t, g, moving)
	start = time.Now()
	g.Stop(t)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if leaks, bad := checkOverlay(t, g, overlay); leaks+bad > 0 {
		t.Errorf("the stop left %d leaks and %d corruptions", leaks, bad)
	}
	g.Run(t)
	for _, task := range []captureTask{stopped, waiting} {
		now := task.until(t, g, func(now captureTask) bool { return now.Status == "failure" })
		if !strings.Contains(now.Message, "capture again") {
			t.Errorf("the stopped capture says %q", now.Message)
		}
		call(t, g, "GET", "/v2/images/"+task.ImageID, "", 404)
	}
	if left := tree(t, g.Dir, "images"); len(left) != objectsBefore {
		t.Errorf("left in the store: %v", left)
	}
	call(t, g, "DELETE", "/platter/v1/overlays/"+overlay, "", 204)
	call(t, g, "DELETE", "/v2/images/"+base, "", 204)
}

// TestCaptureStoreFull captures into a store that has no room: the capture
// says so, leaves nothing, and the guest goes on.
func TestCaptureStoreFull(t *testing.T) {
	small := smallDisk(t, "64m")
	conf := filepath.Join(t.TempDir(), "platter.toml")
	text := fmt.Sprintf("default_store = \"local\"\n[limits]\nreserve = \"1MiB\"\n[stores.local]\ntype = \"file\"\ndir = \"images\"\n[stores.small]\ntype = \"file\"\ndir = %q\n", small)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gateway.Start(t, "--config", conf, "--mount", "off")
	_, overlay := bigOverlay(t, g, 256<<20)
	c, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range uint64(100) {
		if err := c.WriteAt(noise(1<<20, byte(i)), i<<20, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"raw", "qcow2"} {
		var task captureTask
		json.Unmarshal(call(t, g, "POST", "/platter/v1/overlays/"+overlay+"/capture",
			fmt.Sprintf(`{"store":"small","image":{"disk_format":%q}}`, format), 202), &task)
		now := task.until(t, g, func(now captureTask) bool { return now.Status == "failure" })
		if !strings.Contains(now.Message, "space") {
			t.Errorf("the capture says %q", now.Message)
		}
		call(t, g, "GET", "/v2/images/"+task.ImageID, "", 404)
		if left := tree(t, small, ""); len(left) > 0 {
			t.Errorf("left in the full store: %v", left)
		}
		if err := c.WriteAt([]byte("goes on"), 0, nbdtest.FUA); err != nil {
			t.Error(err)
		}
	}
}

// TestStopUnderLoad stops the gateway while everything is going on: it is
// over in seconds, clients are told, and nothing acknowledged is lost.
func TestStopUnderLoad(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "PLATTER_LIMITS_STOP_WITHIN=3s", "PLATTER_LIMITS_ORPHAN_GRACE=1s")
	_, overlay := bigOverlay(t, g, 8<<30)
	path, data := randomFile(t, 32<<20)
	kept := upload(t, g, "kept", "raw", path)
	x, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
	if err != nil {
		t.Fatal(err)
	}
	s := &sequence{client: x}
	var work sync.WaitGroup
	work.Go(func() { s.untilCut() })
	for range 3 {
		work.Go(func() { watchUntilCut(t, g) })
	}
	endless := newImage(t, g, "raw")
	var sent atomic.Int64
	work.Go(func() { // an upload that never ends
		req, _ := http.NewRequest("PUT", g.URL+"/v2/images/"+endless+"/file", &trickle{&sent})
		req.Header.Set("Content-Type", "application/octet-stream")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	})
	work.Go(func() { // a download that is never read
		resp, err := http.Get(g.URL + "/v2/images/" + kept + "/file")
		if err == nil {
			time.Sleep(5 * time.Second)
			resp.Body.Close()
		}
	})
	task := beginCapture(t, g, overlay, `{"disk_format":"raw"}`)
	for s.done() < 300 || sent.Load() < 1<<20 {
		time.Sleep(10 * time.Millisecond)
	}
	start := time.Now()
	g.Stop(t)
	took := time.Since(start)
	work.Wait()
	if took > 25*time.Second {
		t.Errorf("the stop took %v", took)
	}
	t.Logf("stopped in %v after %d writes", took.Round(time.Millisecond), s.done())
	g.Run(t)
	if got := field(t, call(t, g, "GET", "/v2/images/"+endless, "", 200), "status"); got != "queued" {
		t.Errorf("the image of the upload that was cut is %s", got)
	}
	task.until(t, g, func(now captureTask) bool { return now.Status == "failure" })
	sameFileOverHTTP(t, g, kept, data)
	y := openSoon(t, "unix", g.Socket, "overlay/"+overlay)
	defer y.Close()
	n := s.done()
	for k := max(1, n-slots+2); k <= n; k++ { // a stop in good order is a flush
		got, err := y.Read(uint64(k%slots)*slotSize*10, slotSize, 0)
		if err != nil || string(got[:16]) != string(slotBytes(k)[:16]) {
			t.Errorf("write %d of %d is lost: %.16q, %v", k, n, got, err)
		}
	}
	for end := time.Now().Add(time.Minute); len(tree(t, g.Dir, "images")) != 2; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left are %v", tree(t, g.Dir, "images"))
		}
	}
}

// untilCut writes until the gateway says no.
func (s *sequence) untilCut() {
	for n := 1; s.client.WriteAt(slotBytes(n), uint64(n%slots)*slotSize*10, 0) == nil; n++ {
		s.mu.Lock()
		s.n = n
		s.mu.Unlock()
	}
}

// watchUntilCut reads events until the stream ends, which it must do in good
// order.
func watchUntilCut(t *testing.T, g *gateway.Gateway) {
	resp, err := http.Get(g.URL + "/platter/v1/watch")
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), "event: task") {
		t.Errorf("the watch ended with %v after %.200q", err, text)
	}
}

// A trickle is a body without an end.
type trickle struct{ sent *atomic.Int64 }

func (s *trickle) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	n := min(len(p), 64<<10)
	s.sent.Add(int64(n))
	return n, nil
}

// TestSecondSignal: who cannot wait for requests in flight signals again.
func TestSecondSignal(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "PLATTER_LIMITS_STOP_WITHIN=60s")
	id := newImage(t, g, "raw")
	var sent atomic.Int64
	var work sync.WaitGroup
	work.Go(func() {
		req, _ := http.NewRequest("PUT", g.URL+"/v2/images/"+id+"/file", &trickle{&sent})
		req.Header.Set("Content-Type", "application/octet-stream")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	})
	for sent.Load() < 1<<20 {
		time.Sleep(10 * time.Millisecond)
	}
	syscall.Kill(g.PID(), syscall.SIGTERM)
	select {
	case <-g.Done():
		t.Error("the first signal did not wait for the upload")
	case <-time.After(2 * time.Second): // one that comes sooner is the same signal
	}
	syscall.Kill(g.PID(), syscall.SIGTERM)
	select {
	case <-g.Done():
	case <-time.After(30 * time.Second): // it could wait for 60 s
		t.Error("the second signal does not end it")
	}
	work.Wait()
	g.Run(t)
	if got := field(t, call(t, g, "GET", "/v2/images/"+id, "", 200), "status"); got != "queued" {
		t.Errorf("the image is %s", got)
	}
}

// TestSweeperSparesTheLiving sweeps every second while uploads stall for
// longer than the grace: what somebody still sends stays, what nobody has
// goes.
func TestSweeperSparesTheLiving(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn", "PLATTER_LIMITS_ORPHAN_GRACE=1s")
	path, _ := randomFile(t, 1<<20)
	upload(t, g, "other", "raw", path)
	old := time.Now().Add(-2 * time.Hour)
	orphan := filepath.Join(g.Dir, "images", "00000000-0000-4000-8000-000000000000", "attempt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(orphan), 0o700), os.WriteFile(orphan, []byte("left by a crash"), 0o600), os.Chtimes(orphan, old, old)); err != nil {
		t.Fatal(err)
	}
	data := noise(3<<20, 7)
	var work sync.WaitGroup
	for range 4 {
		id := newImage(t, g, "raw")
		work.Go(func() {
			body := io.MultiReader(bytes.NewReader(data[:1<<20]), pause(2500*time.Millisecond), bytes.NewReader(data[1<<20:]), pause(time.Second))
			req, _ := http.NewRequest("PUT", g.URL+"/v2/images/"+id+"/file", body)
			req.Header.Set("Content-Type", "application/octet-stream")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 204 {
				t.Errorf("an upload that stalled: %s", resp.Status)
				return
			}
			sameFileOverHTTP(t, g, id, data)
		})
	}
	work.Wait()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(orphan); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the orphan is still there")
		}
	}
	if n := len(tree(t, g.Dir, "images")); n != 5 {
		t.Errorf("the store has %d objects: %v", n, tree(t, g.Dir, "images"))
	}
}

// pause is a body without bytes that takes its time.
type pause time.Duration

func (p pause) Read([]byte) (int, error) { time.Sleep(time.Duration(p)); return 0, io.EOF }
