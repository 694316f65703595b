//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// crashRounds is how often the gateway is killed.
func crashRounds() int {
	if os.Getenv("PLATTER_SOAK") != "" {
		return 2000
	}
	return 200
}

// TestKill kills the gateway at random moments while it takes uploads,
// deletes, writes to an overlay and captures it, and wants after each start
// that nothing acknowledged is lost and nothing half is seen.
func TestKill(t *testing.T) {
	gateway.Need(t, "qemu-img")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	g := gateway.New(t, "--mount", "off", "PLATTER_LIMITS_ORPHAN_GRACE=1s", "--log-level", "warn")
	g.Run(t)

	path, base := randomFile(t, 8<<20)
	baseID := upload(t, g, "base", "raw", path)
	overlay := field(t, call(t, g, "POST", "/platter/v1/overlays", fmt.Sprintf(`{"image_id":%q,"name":"crashed"}`, baseID), 201), "id")
	c := &crasher{t: t, g: g, images: map[string]*crashImage{}, disk: newDiskModel(base), overlay: overlay}
	rounds := crashRounds()
	for round := range rounds {
		c.round(rand.New(rand.NewPCG(seed, uint64(round)+2)), time.Duration(20+rng.IntN(400))*time.Millisecond)
		g.Kill(t)
		c.checkFile()
		g.Run(t)
		c.check(round == rounds-1)
		if t.Failed() {
			t.Fatalf("after kill %d", round+1)
		}
	}
	c.checkEnd()
	t.Logf("%d kills; %d images acknowledged, %d deleted, %d captures begun", rounds, c.acknowledged, c.deleted, c.captures)
	if c.acknowledged < rounds/10 || c.deleted == 0 || c.captures == 0 || c.disk.next < uint64(rounds) {
		t.Error("too little was going on for the kills to mean anything")
	}
}

// crashImage is what the test knows of one image.
type crashImage struct {
	sum      [64]byte
	active   bool // its upload was acknowledged
	deleting bool
	deleted  bool // its deletion was acknowledged
}

type crasher struct {
	t       *testing.T
	g       *gateway.Gateway
	disk    *diskModel
	overlay string

	mu                              sync.Mutex
	images                          map[string]*crashImage
	acknowledged, deleted, captures int
}

// round lets everything work for a while; the caller then pulls the plug.
func (c *crasher) round(rng *rand.Rand, d time.Duration) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	nbd, err := nbdtest.Open("unix", c.g.Socket, "overlay/"+c.overlay)
	if err != nil {
		c.t.Fatal(err)
	}
	for share := range 4 {
		seed := rng.Uint64()
		work.Go(func() { c.disk.work(nbd, rand.New(rand.NewPCG(seed, 0)), share, 4) })
	}
	for _, job := range []func(context.Context, *rand.Rand) bool{c.upload, c.upload, c.remove} {
		seed := rng.Uint64()
		work.Go(func() {
			for r := rand.New(rand.NewPCG(seed, 0)); job(ctx, r) && ctx.Err() == nil; {
			}
		})
	}
	if rng.IntN(3) == 0 {
		work.Go(func() { c.capture(ctx) })
	}
	time.Sleep(d)
	// From here on the caller's kill decides; the workers see broken
	// connections.
	c.g.Kill(c.t)
	nbd.Close()
	cancel()
	work.Wait()
	c.g.Launch(c.t) // so that the caller's Kill has something to kill: a start that is cut off, too
	time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
}

func (c *crasher) do(ctx context.Context, method, path, contentType string, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.g.URL+path, body)
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// upload makes an image; false means that the gateway is gone.
func (c *crasher) upload(ctx context.Context, rng *rand.Rand) bool {
	data := make([]byte, rng.IntN(3<<20))
	rand.NewChaCha8([32]byte{byte(rng.Uint32()), byte(rng.Uint32())}).Read(data)
	status, text, err := c.do(ctx, "POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"raw","container_format":"bare"}`))
	if err != nil || status != 201 {
		return false
	}
	var made struct{ ID string }
	json.Unmarshal(text, &made)
	img := &crashImage{sum: sha512.Sum512(data)}
	c.mu.Lock()
	c.images[made.ID] = img
	c.mu.Unlock()
	status, _, err = c.do(ctx, "PUT", "/v2/images/"+made.ID+"/file", "application/octet-stream", bytes.NewReader(data))
	if err != nil || status != 204 {
		return false
	}
	c.mu.Lock()
	img.active = true
	c.acknowledged++
	c.mu.Unlock()
	return true
}

// remove deletes one image.
func (c *crasher) remove(ctx context.Context, _ *rand.Rand) bool {
	time.Sleep(4 * time.Millisecond)
	c.mu.Lock()
	var id string
	for k, img := range c.images {
		if img.active && !img.deleting && len(c.images) > 20 {
			id, img.deleting = k, true
			break
		}
	}
	c.mu.Unlock()
	if id == "" {
		return true
	}
	status, _, err := c.do(ctx, "DELETE", "/v2/images/"+id, "", nil)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if status == 204 {
		c.images[id].deleted = true
		c.deleted++
	}
	return true
}

func (c *crasher) capture(ctx context.Context) {
	status, _, err := c.do(ctx, "POST", "/platter/v1/overlays/"+c.overlay+"/capture", "application/json",
		strings.NewReader(`{"image":{"name":"captured","disk_format":"qcow2"}}`))
	if err == nil && status/100 == 2 {
		c.mu.Lock()
		c.captures++
		c.mu.Unlock()
	}
}

// checkFile looks at the overlay's file as the crash left it: leaked clusters
// are fine, anything else is corruption.
func (c *crasher) checkFile() {
	c.t.Helper()
	if leaks, corruptions := checkOverlay(c.t, c.g, c.overlay); corruptions > 0 {
		c.t.Errorf("after a crash qemu-img check finds %d corruptions (and %d leaks)", corruptions, leaks)
	}
}

// checkOverlay runs qemu-img check on an overlay's file, without its base.
func checkOverlay(t testing.TB, g *gateway.Gateway, id string) (leaks, corruptions int) {
	t.Helper()
	file := filepath.Join(g.Dir, "overlays", id+".qcow2")
	name := fmt.Sprintf(`json:{"driver":"qcow2","backing":null,"file":{"driver":"file","locking":"off","filename":%q}}`, file)
	out, err := exec.Command("qemu-img", "check", "--output=json", name).Output()
	var found struct {
		Leaks       int
		Corruptions int
		CheckErrors int `json:"check-errors"`
	}
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil {
		t.Fatalf("qemu-img check: %v, %v\n%s", err, jsonErr, out)
	}
	return found.Leaks, found.Corruptions + found.CheckErrors
}

// check looks at everything after a start.
func (c *crasher) check(all bool) {
	c.t.Helper()
	nbd, err := nbdtest.Open("unix", c.g.Socket, "overlay/"+c.overlay)
	if err != nil {
		c.t.Fatal(err)
	}
	c.disk.check(c.t, nbd)
	nbd.Disconnect()
	if err := nbd.Ended(); err != nil { // until then the overlay is taken
		c.t.Error(err)
	}
	nbd.Close()
	if leaks, corruptions := checkOverlay(c.t, c.g, c.overlay); leaks+corruptions > 0 {
		c.t.Errorf("after a start qemu-img check still finds %d leaks and %d corruptions", leaks, corruptions)
	}
	downloads := 2
	for id, img := range c.images {
		status, text, err := c.do(c.t.Context(), "GET", "/v2/images/"+id, "", nil)
		if err != nil {
			c.t.Fatal(err)
		}
		var rec struct {
			Status string
			Hash   string `json:"os_hash_value"`
		}
		json.Unmarshal(text, &rec)
		switch {
		case status == 404 && img.deleting:
			delete(c.images, id)
			continue
		case status != 200:
			c.t.Errorf("image %s: %d %s", id, status, text)
		case img.deleted:
			c.t.Errorf("image %s is back from the dead", id)
		case rec.Status == "active":
			if want := fmt.Sprintf("%x", img.sum); rec.Hash != want {
				c.t.Errorf("image %s has the hash %s, want %s", id, rec.Hash, want)
			}
			img.active, img.deleting = true, false
			if all || downloads > 0 {
				downloads--
				c.download(id, img)
			}
		case rec.Status == "queued" && !img.active:
			delete(c.images, id)
			c.do(c.t.Context(), "DELETE", "/v2/images/"+id, "", nil)
		default:
			c.t.Errorf("image %s is %s after a crash; its upload was acknowledged: %v", id, rec.Status, img.active)
		}
	}
	c.checkTasks()
}

func (c *crasher) download(id string, img *crashImage) {
	_, data, err := c.do(c.t.Context(), "GET", "/v2/images/"+id+"/file", "", nil)
	if err != nil || sha512.Sum512(data) != img.sum {
		c.t.Errorf("image %s: %d bytes that are not those uploaded: %v", id, len(data), err)
	}
}

type imageRow struct{ ID, Name, Status string }

// list returns every image, page after page.
func (c *crasher) list() []imageRow {
	c.t.Helper()
	var all []imageRow
	for next := "/v2/images?limit=500"; next != ""; {
		var page struct {
			Images []imageRow
			Next   string
		}
		_, text, err := c.do(c.t.Context(), "GET", next, "", nil)
		if err := errors.Join(err, json.Unmarshal(text, &page)); err != nil {
			c.t.Fatal(err)
		}
		all, next = append(all, page.Images...), page.Next
	}
	return all
}

// checkTasks wants no capture to look as if it went on, and every image in
// sight to be whole or queued.
func (c *crasher) checkTasks() {
	var list struct{ Tasks []struct{ ID, Status string } }
	_, text, _ := c.do(c.t.Context(), "GET", "/v2/tasks?limit=1000", "", nil)
	json.Unmarshal(text, &list)
	for _, task := range list.Tasks {
		if task.Status != "success" && task.Status != "failure" {
			c.t.Errorf("task %s is %s after a crash", task.ID, task.Status)
		}
	}
	captured := 0
	for _, img := range c.list() {
		if img.Status != "active" && img.Status != "queued" {
			c.t.Errorf("image %s is %s after a crash", img.ID, img.Status)
		}
		if img.Name != "captured" {
			continue
		}
		if captured++; img.Status != "active" || captured > 3 { // keep a few
			c.do(c.t.Context(), "DELETE", "/v2/images/"+img.ID, "", nil)
		}
	}
}

// checkEnd wants that nothing is left behind in the store, that captured
// images are sound, and that a clean stop leaves a clean overlay.
func (c *crasher) checkEnd() {
	var list struct {
		Images []struct{ ID, Name, Status string }
	}
	_, text, _ := c.do(c.t.Context(), "GET", "/v2/images?limit=1000", "", nil)
	json.Unmarshal(text, &list)
	active := 0
	for _, img := range list.Images {
		if img.Status == "active" {
			active++
		}
		if img.Name == "captured" && img.Status == "active" {
			file := filepath.Join(c.t.TempDir(), "captured.qcow2")
			_, data, _ := c.do(c.t.Context(), "GET", "/v2/images/"+img.ID+"/file", "", nil)
			os.WriteFile(file, data, 0o600)
			tool(c.t, "qemu-img", "check", "-q", file)
			tool(c.t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", file, c.g.Export(img.ID))
		}
	}
	var files []string
	for range 100 {
		files = files[:0]
		filepath.WalkDir(filepath.Join(c.g.Dir, "images"), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, path)
			}
			return nil
		})
		if len(files) == active {
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	if len(files) != active {
		c.t.Errorf("%d active images and %d files in the store:\n%s", active, len(files), strings.Join(files, "\n"))
	}
	c.g.Stop(c.t)
	if leaks, corruptions := checkOverlay(c.t, c.g, c.overlay); leaks+corruptions > 0 {
		c.t.Errorf("after a clean stop qemu-img check finds %d leaks and %d corruptions", leaks, corruptions)
	}
	c.g.Run(c.t)
}

// call makes an API call that must answer with status, and returns its body.
func call(t testing.TB, g *gateway.Gateway, method, path, body string, status int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d: %v\n%s", method, path, resp.Status, status, err, text)
	}
	return text
}

// field returns one text field of a JSON object.
func field(t testing.TB, object []byte, key string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatalf("%v\n%s", err, object)
	}
	s, _ := m[key].(string)
	return s
}
