//go:build integration

package integration

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestWrongRequests sends what is wrong to every endpoint that its own
// document names: each answer is a refusal that tells its cause and has a
// request id, none is a failure of the gateway's, and nothing comes of it.
func TestWrongRequests(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	path, _ := randomFile(t, 1<<20)
	image := upload(t, g, "base", "raw", path)
	overlay := newOverlay(t, g, image, "")
	att, _ := attachment(t, g, "overlay_id", overlay, "rw", "unix")
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(call(t, g, "GET", "/platter/v1/openapi.json", "", 200), &doc); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", 300)
	bodies := []string{
		``, ` `, `{`, `[]`, `"x"`, `null`, `0`, `{}`, `{"unknown":1}`, `{"image_id":1}`, `{"name":["x"]}`, `{"name":null}`,
		`{"image_id":"` + image + `","name":"` + long + `"}`, `{"image_id":"` + image + `","name":"a\u0000b"}`, "{\"name\":\"\xff\"}",
		`{"image_id":"` + image + `","size":-512}`, `{"image_id":"` + image + `","size":9223372036854775296}`, `{"image_id":"` + image + `","size":1e400}`,
		`{"image_id":"` + image + `","size":513}`, `{"image_id":"` + image + `","size":512}`, `{"image_id":"` + image + `","size":"1"}`,
		`{"image_id":"` + image + `","store":"moon"}`, `{"image_id":"` + image + `","overlay_id":"` + overlay + `"}`,
		`{"image_id":"` + image + `","mode":"rw"}`, `{"image_id":"` + image + `","mode":"x"}`, `{"image_id":"` + image + `","transport":"tls"}`,
		`{"overlay_id":"` + overlay + `","mode":"rw"}`, `{"overlay_id":"` + overlay + `","mode":"ephemeral"}`, `{"overlay_id":"../../etc"}`,
		`{"image":{"disk_format":"vmdk"}}`, `{"image":{"id":"x"}}`, `{"image":{"id":"` + image + `"}}`, `{"image":{"status":"active"}}`,
		`{"image":{"tags":["` + long + `"]}}`, `{"image":{"name":"` + long + `"}}`, `{"image":{"x":1}}`, `{"image":[]}`, `{"image":{"min_disk":-1}}`,
		`{"image":{},"store":"moon"}`, `{"image":{"os_glance_x":"y"}}`, `{"image":{"visibility":"everybody"}}`, `{"image":{"` + long + `":"x"}}`,
		strings.Repeat(`{"image":`, 200) + `1` + strings.Repeat(`}`, 200), strings.Repeat("[", 100_000), `{"a":1,"a":2}`,
		`{"name":"` + strings.Repeat("x", 2<<20) + `"}`,
	}
	ids := []string{"x", "00000000-0000-4000-8000-000000000000", "%2e%2e", "%00", "%ff", strings.Repeat("a", 5000), "é", overlay + "x"}
	queries := []string{"?limit=-1", "?limit=x", "?limit=99999999999999999999", "?marker=x", "?nope=1", "?limit=1&limit=2", "?%zz", "?offset=-1", "?format=exe", "?revision=-1"}
	param := regexp.MustCompile(`\{[^}]*\}`)
	n := 0
	for pattern, methods := range doc.Paths {
		pattern = "/platter/v1" + pattern
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"} {
			_, there := methods[strings.ToLower(method)]
			good := param.ReplaceAllStringFunc(pattern, func(p string) string {
				return cmp.Or(map[string]string{"{image_id}": image, "{overlay_id}": overlay, "{attachment_id}": att}[p], "x")
			})
			switch {
			case !there && method != "HEAD":
				n += wrong(t, g, method, good, "", http.StatusMethodNotAllowed)
			case method == "POST" || method == "PATCH":
				for _, body := range bodies {
					n += wrong(t, g, method, good, body, 0)
				}
			}
			if there && good != pattern {
				for _, id := range ids {
					n += wrong(t, g, method, param.ReplaceAllString(pattern, id), `{}`, 0)
				}
			}
			if there && method == "GET" && !strings.HasSuffix(pattern, "openapi.json") && !strings.HasSuffix(pattern, "_id}") && !strings.HasSuffix(pattern, "snapshots") {
				for _, q := range queries {
					n += wrong(t, g, method, good+q, "", 0)
				}
			}
		}
	}
	t.Logf("%d wrong requests", n)
	for path, key := range map[string]string{"/platter/v1/overlays": "overlays", "/platter/v1/attachments": "attachments"} {
		var list map[string]json.RawMessage
		var rows []struct{ ID, Name string }
		json.Unmarshal(call(t, g, "GET", path, "", 200), &list)
		if json.Unmarshal(list[key], &rows); len(rows) != 1 {
			t.Errorf("%s has %+v", path, rows)
		}
	}
	if text := g.Log(); strings.Contains(text, "panic") || strings.Contains(text, "status=500") {
		t.Errorf("the log has\n%s", text)
	}
}

// wrong sends one request that must be refused, and returns 1 if it was sent.
func wrong(t *testing.T, g *gateway.Gateway, method, path, body string, status int) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s %.100s: %v", method, path, err)
		return 1
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	what := fmt.Sprintf("%s %.100s %.60q", method, path, body)
	var e struct {
		Message, Code string
		RequestID     string `json:"request_id"`
	}
	json.Unmarshal(text, &e)
	switch {
	case resp.StatusCode < 400 || resp.StatusCode >= 500 && resp.StatusCode != 501:
		// Refused it must be, but what is right in one place is wrong in
		// another: an empty capture, an overlay's new name.
		if !slices.Contains([]int{200, 201, 202, 204}, resp.StatusCode) || strings.Contains(path, "?") || status != 0 {
			t.Errorf("%s: %s %.200s", what, resp.Status, text)
		}
	case len(e.Message) < 20 || e.RequestID == "" || resp.Header.Get("X-Openstack-Request-Id") != e.RequestID:
		t.Errorf("%s: the answer says too little: %.300s", what, text)
	case status != 0 && (resp.StatusCode != status || resp.Header.Get("Allow") == ""):
		t.Errorf("%s: %s, Allow %q", what, resp.Status, resp.Header.Get("Allow"))
	}
	undo(t, g, resp.StatusCode, text)
	return 1
}

// undo takes back what was right after all.
func undo(t *testing.T, g *gateway.Gateway, status int, text []byte) {
	t.Helper()
	if status != 201 {
		return
	}
	switch id := field(t, text, "id"); {
	case field(t, text, "transport") != "":
		call(t, g, "DELETE", "/platter/v1/attachments/"+id, "", 204)
	case field(t, text, "engine") != "":
		call(t, g, "DELETE", "/platter/v1/overlays/"+id, "", 204)
	}
}

// TestDamagedOverlay: an overlay whose file is damaged, or gone, is said; the
// gateway starts and serves the rest, and the overlay can be deleted.
func TestDamagedOverlay(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	path, _ := randomFile(t, 1<<20)
	base := upload(t, g, "base", "raw", path)
	noisy, gone, short, good := newOverlay(t, g, base, ""), newOverlay(t, g, base, ""), newOverlay(t, g, base, ""), newOverlay(t, g, base, "")
	c, err := nbdtest.Open("unix", g.Socket, "overlay/"+good)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteAt([]byte("kept"), 0, nbdtest.FUA); err != nil {
		t.Fatal(err)
	}
	c.Close()
	g.Stop(t)
	file := func(id string) string { return filepath.Join(g.Dir, "overlays", id+".qcow2") }
	for _, err := range []error{os.WriteFile(file(noisy), noise(256<<10, 1), 0o600), os.Remove(file(gone)), os.Truncate(file(short), 100)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	g.Run(t)
	for _, id := range []string{noisy, gone, short} {
		if !strings.Contains(g.Log(), id) {
			t.Errorf("the log does not name overlay %s", id)
		}
		if _, err := nbdtest.Open("unix", g.Socket, "overlay/"+id); err == nil {
			t.Errorf("the damaged overlay %s opens", id)
		}
		if status, _ := get(t, g.URL+"/platter/v1/overlays/"+id); status != 200 {
			t.Errorf("the damaged overlay answers %d", status)
		}
		call(t, g, "DELETE", "/platter/v1/overlays/"+id, "", 204)
	}
	if c, err = nbdtest.Open("unix", g.Socket, "overlay/"+good); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Read(0, 4, 0); err != nil || string(got) != "kept" {
		t.Errorf("the good overlay has %q, %v", got, err)
	}
}

// TestStartOnAFullDisk starts where there is no byte left: reads are served.
func TestStartOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, "400m")
	g := gateway.New(t, "--mount", "off", "--data-dir", dir, "PLATTER_LIMITS_RESERVE=1MiB")
	g.Dir, g.Socket = dir, filepath.Join(dir, "nbd.sock")
	g.Run(t)
	path, data := randomFile(t, 1<<20)
	id := upload(t, g, "base", "raw", path)
	g.Kill(t)
	filler := filepath.Join(dir, "filler")
	fillUp(t, filler)
	g.Launch(t)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case <-g.Done(): // or not at all, with the cause and the remedy
			if text := g.Log(); !strings.Contains(text, "make room") {
				t.Errorf("it says\n%s", text[max(0, len(text)-1000):])
			}
			os.Remove(filler)
			g.Run(t)
			sameFileOverHTTP(t, g, id, data)
			return
		default:
		}
		if resp, err := http.Get(g.URL + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
		}
	}
	sameFileOverHTTP(t, g, id, data)
}

// TestManyOverlays has 100 overlays open for writing, each by an attachment
// of its own, and a thousand images listed over NBD.
func TestManyOverlays(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn", "PLATTER_NBD_MAX_PER_CLIENT=1000")
	path, _ := randomFile(t, 1<<20)
	base := upload(t, g, "base", "raw", path)
	before := memory(t, g, "VmRSS")
	var clients []*nbdtest.Client
	var mu sync.Mutex
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			for k := range 25 {
				overlay := newOverlay(t, g, base, `,"size":1099511627776`)
				_, name := attachment(t, g, "overlay_id", overlay, "rw", "unix")
				c, err := nbdtest.Open("unix", g.Socket, name)
				if err != nil {
					t.Error(err)
					return
				}
				for j := range uint64(16) { // all over the disk
					if err := c.WriteAt(noise(64<<10, byte(i*25+k)), j<<36, 0); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				clients = append(clients, c)
				mu.Unlock()
			}
		})
	}
	work.Wait()
	grown := memory(t, g, "VmRSS") - before
	t.Logf("100 overlays of 1 TiB open and written to: %d MiB more than the %d before", grown, before)
	if grown > 300 {
		t.Errorf("%d MiB", grown)
	}
	for _, page := range []string{"/platter/v1/overlays", "/platter/v1/attachments"} {
		start := time.Now()
		call(t, g, "GET", page, "", 200)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %v", page, took)
		}
	}
	for _, c := range clients {
		c.Close()
	}
	for i := range 999 {
		id := newImage(t, g, "raw")
		if i%10 == 0 { // most have no data, and are not exports
			put(t, g, id, 4096)
		}
	}
	c, err := nbdtest.Dial("unix", g.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	list, err := c.List()
	if err != nil || len(list) != 1+100+100 {
		t.Errorf("%d exports are listed, %v", len(list), err)
	}
	t.Logf("listed in %v", time.Since(start))
}
