//go:build integration

package far

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// readyz returns what /readyz says, and its status.
func readyz(t *testing.T, g *gateway.Gateway) (string, int) {
	t.Helper()
	resp, err := http.Get(g.URL + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), resp.StatusCode
}

// within waits until something is so, at most for a time.
func within(t *testing.T, d time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v it is still not so: %s", d, what)
		}
	}
}

// TestStoreAwayAtTheStart starts a gateway whose default store is away: it
// serves what it can, says what is wrong in every place, and recovers by
// itself.
func TestStoreAwayAtTheStart(t *testing.T) {
	v := servers.StartVersity(t, servers.VersityConfig{})
	v.MakeBucket(t, "images")
	v.Process.Kill(t)
	g := gateway.New(t, append(gateway.S3Store(v.S3, "images", "TIMEOUT=3s"), "--mount", "off", "--log-level", "error",
		"PLATTER_STORES_LOCAL_TYPE=file", "PLATTER_STORES_LOCAL_DIR=images", "PLATTER_DEFAULT_STORE=cold")...)
	g.Launch(t)
	within(t, 2*time.Minute, "the API answers", func() bool {
		_, status, err := g.Ask("GET", "/healthz", "")
		return err == nil && status == 200
	})
	text, status := readyz(t, g)
	if status != 503 || !strings.Contains(text, "the default store cold") || !strings.Contains(text, "nothing listens") {
		t.Errorf("readyz: %d %s", status, text)
	}
	out, err := exec.Command(gateway.Binary(t, "platter"), "--url", g.URL, "doctor", "--read-only").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "store cold") || !strings.Contains(string(out), "WRONG") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	// Uploads are refused for now, and not as the client's mistake.
	id := g.NewImage(t, "later", "raw")
	if err := g.Put(id, strings.NewReader("data"), 4); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("an upload to a store that is away: %v", err)
	}
	req, err := http.NewRequest("PUT", g.URL+"/v2/images/"+g.NewImage(t, "here", "raw")+"/file", strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("X-Image-Meta-Store", "local")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 204 {
		t.Errorf("an upload to the store that is there: %s", resp.Status)
	}

	v.Process.Start(t)
	within(t, 2*time.Minute, "the gateway is ready", func() bool { _, status := readyz(t, g); return status == 200 })
	if err := g.Put(id, strings.NewReader("data"), 4); err != nil {
		t.Error(err)
	}
	var list struct {
		Stores []struct {
			Name, State  string
			Capabilities []struct{ OK bool }
		}
	}
	if err := json.Unmarshal(g.Call(t, "GET", "/platter/v1/stores", "", 200), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Stores {
		if s.State != "ok" || s.Name == "cold" && len(s.Capabilities) == 0 {
			t.Errorf("after all is well: %+v", s)
		}
	}
}

// TestStoreThatComesAndGoes stops a store under readers: they wait, and go on.
// One that stays away makes them fail with an error, and the gateway says so.
func TestStoreThatComesAndGoes(t *testing.T) {
	v := servers.StartVersity(t, servers.VersityConfig{})
	v.MakeBucket(t, "images")
	g := gateway.Start(t, append(gateway.S3Store(v.S3, "images", "TIMEOUT=5s"), "--mount", "off", "--log-level", "error")...)
	raw, qcow2 := disk(t, 64<<20)
	id := g.Upload(t, "disk", "qcow2", qcow2)
	g.Call(t, "DELETE", "/platter/v1/cache/images/"+id, "", 204)

	v.Process.Pause(t)
	done := make(chan error, 1)
	go func() {
		done <- exec.Command("qemu-img", "compare", "-f", "raw", "-F", "raw", g.Export(id), raw).Run()
	}()
	time.Sleep(2 * time.Second)
	v.Process.Resume(t)
	if err := <-done; err != nil {
		t.Errorf("a reader while the store was away for two seconds: %v", err)
	}

	g.Call(t, "DELETE", "/platter/v1/cache/images/"+id, "", 204)
	v.Process.Kill(t)
	start := time.Now()
	if err := exec.Command("qemu-img", "compare", "-f", "raw", "-F", "raw", g.Export(id), raw).Run(); err == nil {
		t.Error("a reader of a store that is gone got bytes")
	} else if took := time.Since(start); took > 3*time.Minute {
		t.Errorf("it took %v to fail", took)
	}
	within(t, 2*time.Minute, "readyz names the store", func() bool {
		text, status := readyz(t, g)
		return status == 503 && strings.Contains(text, "cold")
	})
	v.Process.Start(t)
	within(t, 2*time.Minute, "the gateway is ready", func() bool { _, status := readyz(t, g); return status == 200 })
	same(t, g.Export(id), raw, "raw")
}
