//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// churnTime is how long everything happens at once.
func churnTime() time.Duration {
	if os.Getenv("PLATTER_SOAK") != "" {
		return 30 * time.Minute
	}
	return 4 * time.Second
}

// A churn is many clients that make, use and delete everything at once.
type churn struct {
	t    *testing.T
	g    *gateway.Gateway
	base string // an image that stays, since
	hold string // an overlay on it does

	mu   sync.Mutex
	seen map[string]int // answers by "what status"
	bad  []string
}

// TestChurn lets clients attach, detach, write, capture, snapshot and delete
// without asking each other, kills the gateway in between, and wants that no
// answer is a failure of the gateway's and that in the end nothing is left:
// no file, no record, no connection, no goroutine, no descriptor.
func TestChurn(t *testing.T) {
	g := gateway.New(t, "--mount", "off", "--log-level", "warn", "PLATTER_LIMITS_ORPHAN_GRACE=1s", "PLATTER_LIMITS_STOP_WITHIN=3s")
	g.Run(t)
	path, data := randomFile(t, 4<<20)
	c := &churn{t: t, g: g, seen: map[string]int{}, base: upload(t, g, "base", "raw", path)}
	c.hold = newOverlay(t, g, c.base, "")
	c.run(time.Second) // what is made once
	c.clear()
	goroutines, files := settled(t, g, func(int, int) bool { return true })
	var backups sync.WaitGroup
	for _, kill := range []bool{true, false} {
		backups.Go(func() { c.backup() })
		c.run(churnTime())
		backups.Wait()
		if kill {
			g.Kill(t)
			g.Run(t)
		}
	}
	wanted := []string{"attach 201", "detach 204", "capture 202", "delete overlay 204", "delete overlay 409", "attach 409", "snapshot 201"}
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && !c.saw(wanted); { // on a slow machine
		c.run(churnTime())
	}
	c.clear()
	c.empty()
	few := func(now, open int) bool { return now <= goroutines+20 && open <= files+8 }
	if now, open := settled(t, g, few); !few(now, open) {
		t.Errorf("%d goroutines of %d at first, %d descriptors of %d", now, goroutines, open, files)
	}
	sameFileOverHTTP(t, g, c.base, data)
	t.Logf("answers: %v", c.seen)
	for _, text := range c.bad[:min(len(c.bad), 10)] {
		t.Error(text)
	}
	for _, what := range wanted {
		if c.seen[what] == 0 {
			t.Errorf("it never came to %q", what)
		}
	}
}

// backup writes a backup in the midst of it all.
func (c *churn) backup() {
	for range 2 {
		file := filepath.Join(c.t.TempDir(), "backup")
		if _, err := c.g.Try(c.t.Context(), gateway.Binary(c.t, "platterd"), "--data-dir", c.g.Dir, "backup", file); err != nil {
			c.t.Error(err)
		}
	}
}

// saw tells whether all these answers came.
func (c *churn) saw(wanted []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(wanted, func(what string) bool { return c.seen[what] == 0 })
}

// settled counts goroutines and descriptors when nothing is going on, and they
// are as few as they should be, or do not become so.
func settled(t *testing.T, g *gateway.Gateway, few func(goroutines, files int) bool) (goroutines, files int) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	last := -1
	for range 300 {
		time.Sleep(100 * time.Millisecond)
		_, text := get(t, g.Debug+"/metrics")
		goroutines, files = int(metric(text, "go_goroutines")), openFiles(g)
		if goroutines == last && metric(text, "platter_nbd_connections") == 0 && few(goroutines, files) {
			break
		}
		last = goroutines
	}
	return goroutines, files
}

// do is one request whose answer may be anything but a failure.
func (c *churn) do(ctx context.Context, what, method, path, body string) []byte {
	req, _ := http.NewRequestWithContext(ctx, method, c.g.URL+path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			c.note("", fmt.Sprintf("%s: %v", what, err))
		}
		return nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	bad := ""
	if resp.StatusCode >= 500 && resp.StatusCode != 503 || resp.StatusCode == 400 || resp.StatusCode == 403 {
		bad = fmt.Sprintf("%s: %s %s", what, resp.Status, text)
	}
	c.note(fmt.Sprintf("%s %d", what, resp.StatusCode), bad)
	if resp.StatusCode/100 != 2 {
		return nil
	}
	return text
}

func (c *churn) note(answer, bad string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer != "" {
		c.seen[answer]++
	}
	if bad != "" {
		c.bad = append(c.bad, bad)
	}
}

// pick returns the id of some record of a listing.
func (c *churn) pick(ctx context.Context, rng *rand.Rand, path, key string) string {
	var ids []string
	for _, id := range c.ids(ctx, path, key) {
		if id != c.base && id != c.hold {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "00000000-0000-4000-8000-000000000000"
	}
	return ids[rng.IntN(len(ids))]
}

func (c *churn) ids(ctx context.Context, path, key string) []string {
	var list map[string]json.RawMessage
	var rows []struct{ ID string }
	if text := c.do(ctx, "list", "GET", path, ""); json.Unmarshal(text, &list) == nil {
		json.Unmarshal(list[key], &rows)
	}
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return ids
}

// run lets everybody work for a while.
func (c *churn) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(c.t.Context(), d)
	defer cancel()
	var work sync.WaitGroup
	jobs := []func(context.Context, *rand.Rand){
		c.makeOverlay, c.attachOverlay, c.attachOverlay, c.attachImage, c.attachImage, c.useByName, c.useByName,
		c.detach, c.deleteOverlay, c.snapshot, c.capture, c.deleteImage,
	}
	for i, job := range jobs {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			for ctx.Err() == nil {
				job(ctx, rng)
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			}
		})
	}
	work.Wait()
}

func (c *churn) makeOverlay(ctx context.Context, _ *rand.Rand) {
	c.do(ctx, "create overlay", "POST", "/platter/v1/overlays", fmt.Sprintf(`{"image_id":%q,"name":"o"}`, c.base))
	time.Sleep(50 * time.Millisecond)
}

func (c *churn) attachOverlay(ctx context.Context, rng *rand.Rand) {
	id := c.pick(ctx, rng, "/platter/v1/overlays", "overlays")
	mode := []string{"rw", "rw", "ro"}[rng.IntN(3)]
	c.attach(ctx, rng, fmt.Sprintf(`{"overlay_id":%q,"mode":%q}`, id, mode))
}

func (c *churn) attachImage(ctx context.Context, rng *rand.Rand) {
	mode := []string{"ro", "ephemeral"}[rng.IntN(2)]
	c.attach(ctx, rng, fmt.Sprintf(`{"image_id":%q,"mode":%q,"transport":"tcp"}`, c.base, mode))
}

// attach makes an attachment and uses it until it is cut, or leaves in one
// way or another.
func (c *churn) attach(ctx context.Context, rng *rand.Rand, body string) {
	text := c.do(ctx, "attach", "POST", "/platter/v1/attachments", body)
	if text == nil {
		return
	}
	_, name, _ := strings.Cut(field(c.t, text, "uri"), "attach/")
	name, _, _ = strings.Cut(name, "?")
	network, addr := "unix", c.g.Socket
	if strings.Contains(body, "tcp") {
		network, addr = "tcp", c.g.NBD
	}
	c.use(rng, network, addr, "attach/"+name)
	if rng.IntN(3) > 0 {
		c.do(ctx, "detach", "DELETE", "/platter/v1/attachments/"+field(c.t, text, "id"), "")
	}
}

func (c *churn) useByName(ctx context.Context, rng *rand.Rand) {
	name := "ephemeral/" + c.base
	if rng.IntN(2) == 0 {
		name = "overlay/" + c.pick(ctx, rng, "/platter/v1/overlays", "overlays")
	}
	c.use(rng, "unix", c.g.Socket, name)
}

// use works on an export for a moment, as far as it is let.
func (c *churn) use(rng *rand.Rand, network, addr, name string) {
	x, err := nbdtest.Open(network, addr, name)
	if err != nil {
		return
	}
	defer x.Close()
	p := make([]byte, 4096*(1+rng.IntN(16)))
	for end := time.Now().Add(time.Duration(rng.IntN(60)) * time.Millisecond); time.Now().Before(end); {
		if err := x.WriteAt(p, uint64(rng.IntN(900))*4096, 0); err != nil {
			return
		}
		if rng.IntN(8) == 0 && x.Flush() != nil {
			return
		}
	}
	if rng.IntN(2) == 0 {
		x.Disconnect()
	}
}

func (c *churn) detach(ctx context.Context, rng *rand.Rand) {
	c.do(ctx, "detach", "DELETE", "/platter/v1/attachments/"+c.pick(ctx, rng, "/platter/v1/attachments", "attachments"), "")
}

func (c *churn) deleteOverlay(ctx context.Context, rng *rand.Rand) {
	c.do(ctx, "delete overlay", "DELETE", "/platter/v1/overlays/"+c.pick(ctx, rng, "/platter/v1/overlays", "overlays"), "")
}

func (c *churn) snapshot(ctx context.Context, rng *rand.Rand) {
	path := "/platter/v1/overlays/" + c.pick(ctx, rng, "/platter/v1/overlays", "overlays") + "/snapshots"
	text := c.do(ctx, "snapshot", "POST", path, `{"name":"s"}`)
	if text != nil && rng.IntN(2) == 0 {
		c.do(ctx, "delete snapshot", "DELETE", path+"/"+field(c.t, text, "id"), "")
	}
}

func (c *churn) capture(ctx context.Context, rng *rand.Rand) {
	path := "/platter/v1/overlays/" + c.pick(ctx, rng, "/platter/v1/overlays", "overlays") + "/capture"
	c.do(ctx, "capture", "POST", path, fmt.Sprintf(`{"image":{"disk_format":%q}}`, []string{"raw", "qcow2"}[rng.IntN(2)]))
	time.Sleep(20 * time.Millisecond)
}

func (c *churn) deleteImage(ctx context.Context, rng *rand.Rand) {
	c.do(ctx, "delete image", "DELETE", "/v2/images/"+c.pick(ctx, rng, "/v2/images?limit=100", "images"), "")
	req, _ := http.NewRequestWithContext(ctx, "DELETE", c.g.URL+"/v2/images/"+c.base, nil)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 409 || !strings.Contains(string(text), "overlay "+c.hold) {
			c.note("", fmt.Sprintf("deleting an image in use: %s %s", resp.Status, text))
		}
	}
}

// clear deletes everything but the base, as somebody who is alone can.
func (c *churn) clear() {
	ctx := c.t.Context()
	for _, id := range c.ids(ctx, "/platter/v1/attachments?limit=1000", "attachments") {
		c.gone("/platter/v1/attachments/" + id)
	}
	for end := time.Now().Add(2 * time.Minute); len(c.running()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("captures do not end: %v", c.running())
		}
	}
	for _, id := range c.ids(ctx, "/platter/v1/overlays?limit=1000", "overlays") {
		if id != c.hold {
			c.gone("/platter/v1/overlays/" + id)
		}
	}
	for _, id := range c.ids(ctx, "/v2/images?limit=1000", "images") {
		if id != c.base {
			c.gone("/v2/images/" + id)
		}
	}
}

// gone deletes something. What was asked for before the clients were stopped
// may still be carried out meanwhile.
func (c *churn) gone(path string) {
	c.t.Helper()
	req, _ := http.NewRequestWithContext(c.t.Context(), "DELETE", c.g.URL+path, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 204 && resp.StatusCode != 404 {
		c.t.Fatalf("DELETE %s: %s\n%s", path, resp.Status, text)
	}
}

// running returns the tasks that have not ended.
func (c *churn) running() (left []string) {
	var list struct{ Tasks []struct{ ID, Status string } }
	json.Unmarshal(call(c.t, c.g, "GET", "/v2/tasks?limit=1000", "", 200), &list)
	for _, task := range list.Tasks {
		if task.Status == "pending" || task.Status == "processing" {
			left = append(left, task.ID)
		}
	}
	return left
}

// empty wants no file but those of the base.
func (c *churn) empty() {
	var left []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		left = slices.Concat(tree(c.t, c.g.Dir, "overlays"), tree(c.t, c.g.Dir, "ephemeral"), tree(c.t, c.g.Dir, "images"))
		left = slices.DeleteFunc(left, func(name string) bool { return strings.Contains(name, c.base) || strings.Contains(name, c.hold) })
		if len(left) == 0 {
			return
		}
	}
	c.t.Errorf("left are %v", left)
}

// tree lists the files under a folder of the data directory.
func tree(t *testing.T, dir, sub string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestCaptureWhileWriting captures again and again while one client writes a
// known sequence, each write after the answer to the one before. Every image
// must be a state that the disk had between the request and its answer.
func TestCaptureWhileWriting(t *testing.T) {
	gateway.Need(t, "qemu-img")
	g := gateway.Start(t, "--mount", "off")
	path, base := randomFile(t, 8<<20)
	id := newOverlay(t, g, upload(t, g, "base", "raw", path), "")
	x, err := nbdtest.Open("unix", g.Socket, "overlay/"+id)
	if err != nil {
		t.Fatal(err)
	}
	s := &sequence{base: base, client: x, stop: make(chan struct{})}
	var work sync.WaitGroup
	work.Go(func() { s.write(t) })
	type made struct {
		task      string
		low, high int
	}
	var tasks []made
	for i := range 12 {
		time.Sleep(50 * time.Millisecond)
		low := s.done()
		body := fmt.Sprintf(`{"image":{"name":"c%d","disk_format":%q,"stage":"%d","tags":["t"]}}`, i, []string{"raw", "qcow2"}[i%2], i)
		task := field(t, call(t, g, "POST", "/platter/v1/overlays/"+id+"/capture", body, 202), "id")
		tasks = append(tasks, made{task, low, s.done() + 1})
	}
	for i, m := range tasks {
		image := waitTask(t, g, m.task)
		n := s.state(t, g, image)
		if n < m.low || n > m.high {
			t.Errorf("capture %d has the disk after %d writes; %d were acknowledged before it was asked for and at most %d begun when it was answered", i, n, m.low, m.high)
		}
		rec := call(t, g, "GET", "/v2/images/"+image, "", 200)
		if field(t, rec, "stage") != fmt.Sprint(i) || field(t, rec, "image_type") != "snapshot" || field(t, rec, "status") != "active" {
			t.Errorf("the record is %s", rec)
		}
	}
	close(s.stop)
	work.Wait()
	t.Logf("%d writes, captures at %v", s.done(), tasks)
	x.Disconnect()
	x.Ended()
	x.Close()
	if leaks, bad := checkOverlay(t, g, id); leaks+bad > 0 {
		t.Errorf("the overlay has %d leaks and %d corruptions", leaks, bad)
	}
}

// A sequence is writes whose order shows: write n puts n into slot n%slots.
type sequence struct {
	base   []byte
	client *nbdtest.Client
	stop   chan struct{}
	mu     sync.Mutex
	n      int
}

const (
	slots    = 61
	slotSize = 12 << 10 // larger than a unit of allocation, and odd
)

func slotBytes(n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("write %09d\n", n)), slotSize/16)
}

func (s *sequence) done() int { s.mu.Lock(); defer s.mu.Unlock(); return s.n }

func (s *sequence) write(t *testing.T) {
	for n := 1; ; n++ {
		select {
		case <-s.stop:
			return
		default:
		}
		if err := s.client.WriteAt(slotBytes(n), uint64(n%slots)*slotSize*10, 0); err != nil {
			t.Errorf("write %d: %v", n, err)
			return
		}
		if n%17 == 0 {
			if err := s.client.Flush(); err != nil {
				t.Errorf("flush after write %d: %v", n, err)
			}
		}
		s.mu.Lock()
		s.n = n
		s.mu.Unlock()
	}
}

// state returns after how many writes a captured disk was as it is. That one
// write was under way is allowed for.
func (s *sequence) state(t *testing.T, g *gateway.Gateway, image string) int {
	t.Helper()
	out := filepath.Join(t.TempDir(), "disk.raw")
	tool(t, "qemu-img", "convert", "-O", "raw", g.Export(image), out)
	disk := readAll(t, out)
	newest := 0
	for i := range slots {
		var n int
		if fmt.Sscanf(string(disk[i*slotSize*10:][:16]), "write %d", &n); n > newest {
			newest = n
		}
	}
	for _, n := range []int{newest, newest - 1} { // the newest may be the one under way
		want := bytes.Clone(s.base)
		for k := max(1, n-slots+1); k <= n; k++ {
			copy(want[k%slots*slotSize*10:], slotBytes(k))
		}
		at := (n + 1) % slots * slotSize * 10 // under way: whatever is there of it
		copy(want[at:][:slotSize], disk[at:])
		if bytes.Equal(disk, want) {
			return n
		}
	}
	t.Errorf("image %s is no state that the disk had (newest write %d)", image, newest)
	return newest
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
