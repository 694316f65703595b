package api

import (
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func testChecker(t testing.TB) checker {
	cfg := Config{Catalog: &catalog.Catalog{}}
	cfg.setDefaults()
	c, err := newChecker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParsePatch(t *testing.T) {
	c := testChecker(t)
	for _, row := range []struct {
		media, body string
		want        int
	}{
		{patchDraft10, `[]`, 0}, {patchDraft4, `[]`, 0}, {"application/json", `[]`, 415}, {"", `[]`, 415}, {patchDraft10 + "; charset=utf-8", `[]`, 0},
		{patchDraft10, ``, 400}, {patchDraft10, `{}`, 400}, {patchDraft10, `[1]`, 400}, {patchDraft10, `[{}]`, 400}, {patchDraft10, `[`, 400},
		{patchDraft10, `[{"op":"test","path":"/a","value":"b"}]`, 400}, {patchDraft10, `[{"op":"move","path":"/a","from":"/b"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/a"}]`, 400}, {patchDraft10, `[{"op":"add","value":"x"}]`, 400}, {patchDraft10, `[{"path":"/a"}]`, 400},
		{patchDraft10, `[{"op":1,"path":"/a"}]`, 400}, {patchDraft10, `[{"op":"remove","path":5}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/a","value":"b"}]`, 0}, {patchDraft10, `[{"op":"remove","path":"/a"}]`, 0},
		{patchDraft4, `[{"add":"/a","value":"b"}]`, 0}, {patchDraft4, `[{"add":"/a","remove":"/b","value":"c"}]`, 400}, {patchDraft4, `[{"op":"add","path":"/a","value":"b"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"a","value":"b"}]`, 400}, {patchDraft10, `[{"op":"add","path":"/","value":"b"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/a/","value":"b"}]`, 400}, {patchDraft10, `[{"op":"add","path":"/a//b","value":"b"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/a/b","value":"b"}]`, 400}, {patchDraft10, `[{"op":"add","path":"/a~2","value":"b"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/a~","value":"b"}]`, 400}, {patchDraft10, `[{"op":"add","path":"/a~1b","value":"b"}]`, 0},
		{patchDraft10, `[{"op":"add","path":"/tags/-","value":"b"}]`, 400}, {patchDraft10, `[{"op":"replace","path":"/tags","value":["b"]}]`, 0},
		{patchDraft10, `[{"op":"replace","path":"/tags","value":"b"}]`, 400}, {patchDraft10, `[{"op":"replace","path":"/name","value":5}]`, 400},
		{patchDraft10, `[{"op":"replace","path":"/name","value":null}]`, 0}, {patchDraft10, `[{"op":"add","path":"/k","value":null}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/k","value":7}]`, 400}, {patchDraft10, `[{"op":"add","path":"/kernel_id","value":"x"}]`, 400},
		{patchDraft10, `[{"op":"add","path":"/kernel_id","value":null}]`, 0}, {patchDraft10, `[{"op":"replace","path":"/visibility","value":"secret"}]`, 400},
		{patchDraft10, `[{"op":"replace","path":"/min_disk","value":-1}]`, 400}, {patchDraft10, `[{"op":"replace","path":"/min_disk","value":1.0}]`, 0},
		{patchDraft10, `[{"op":"replace","path":"/status","value":"active"}]`, 403}, {patchDraft10, `[{"op":"remove","path":"/id"}]`, 403},
		{patchDraft10, `[{"op":"replace","path":"/os_hash_value","value":"x"}]`, 403}, {patchDraft10, `[{"op":"add","path":"/os_glance_x","value":"x"}]`, 403},
		{patchDraft10, `[{"op":"add","path":"/deleted","value":"x"}]`, 403}, {patchDraft10, `[{"op":"add","path":"/stores","value":"x"}]`, 0},
		{patchDraft10, `[{"op":"add","path":"/locations/-","value":{"url":"http://x","metadata":{}}}]`, 0},
		{patchDraft10, `[{"op":"add","path":"/locations/-","value":{"url":"http://x"}}]`, 400}, {patchDraft10, `[{"op":"replace","path":"/locations","value":[]}]`, 0},
		{patchDraft10, `[{"op":"add","path":"/locations","value":[]}]`, 400}, {patchDraft10, `[{"op":"replace","path":"/disk_format","value":"floppy"}]`, 400},
	} {
		_, err := c.parsePatch(row.media, []byte(row.body))
		got := 0
		if err != nil {
			got = wire.StatusOf(err)
		}
		if got != row.want {
			t.Errorf("%s %s: %v, want %d", row.media, row.body, err, row.want)
		}
		if got == 415 && !strings.Contains(wire.AsError(err).Header.Get("Accept-Patch"), patchDraft4) {
			t.Errorf("415 without Accept-Patch")
		}
	}
}

func TestUpdate(t *testing.T) {
	s, _ := newServer(t, nil)
	for _, c := range []struct {
		draft4 bool
		patch  string
		want   int
		in     string // in the image afterwards
	}{
		{false, `[{"op":"add","path":"/name","value":"b"}]`, 200, `"name":"b"`},
		{false, `[{"op":"add","path":"/x","value":"2"}]`, 200, `"x":"2"`},
		{true, `[{"add":"/x","value":"2"}]`, 409, `"x":"1"`},
		{true, `[{"add":"/name","value":"2"}]`, 409, `"name":"a"`},
		{true, `[{"add":"/y","value":"2"}]`, 200, `"y":"2"`},
		{true, `[{"replace":"/x","value":"3"}]`, 200, `"x":"3"`},
		{false, `[{"op":"replace","path":"/nope","value":"3"}]`, 409, `"x":"1"`},
		{false, `[{"op":"remove","path":"/nope"}]`, 409, `"x":"1"`},
		{false, `[{"op":"remove","path":"/name"}]`, 403, `"name":"a"`},
		{false, `[{"op":"remove","path":"/tags"}]`, 403, `"name":"a"`},
		{false, `[{"op":"replace","path":"/name","value":"b"},{"op":"remove","path":"/nope"}]`, 409, `"name":"a"`},
		{false, `[{"op":"add","path":"/stores","value":"x"}]`, 409, `"name":"a"`},
		{false, `[{"op":"add","path":"/locations/-","value":{"url":"http://x","metadata":{}}}]`, 403, `"name":"a"`},
		{false, `[{"op":"replace","path":"/locations","value":[]}]`, 403, `"name":"a"`},
		{false, `[{"op":"replace","path":"/tags","value":["b","a","b"]}]`, 200, `"tags":["a","b"]`},
		{false, `[{"op":"replace","path":"/disk_format","value":"raw"}]`, 200, `"disk_format":"raw"`},
		{false, `[{"op":"replace","path":"/visibility","value":"public"}]`, 200, `"visibility":"public"`},
		{false, `[{"op":"replace","path":"/owner","value":"p"}]`, 200, `"owner":"p"`},
		{false, `[{"op":"replace","path":"/name","value":null}]`, 200, `"name":null`},
		{false, `[{"op":"add","path":"/a~1b~0c","value":"v"}]`, 200, `"a/b~c":"v"`},
		{false, `[]`, 200, `"name":"a"`},
	} {
		id := create(t, s, `{"name":"a","x":"1"}`)
		media := patchDraft10
		if c.draft4 {
			media = patchDraft4
		}
		w := do(s, "PATCH", "/v2/images/"+id, c.patch, "Content-Type: "+media)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.patch, w.Code, c.want, w.Body)
		}
		if w = do(s, "GET", "/v2/images/"+id, ""); !strings.Contains(w.Body.String(), c.in) {
			t.Errorf("%s: no %s in %s", c.patch, c.in, w.Body)
		}
	}
}

func FuzzPatch(f *testing.F) {
	for _, s := range []string{`[{"op":"add","path":"/a","value":"b"}]`, `[{"add":"/a","value":"b"}]`, `[{"op":"remove","path":"/~0~1"}]`,
		`[{"op":"replace","path":"/locations","value":[]}]`, `[{"op":"replace","path":"/min_disk","value":1e3}]`, `[`, `[[[[`} {
		f.Add([]byte(s))
	}
	c := testChecker(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, media := range []string{patchDraft4, patchDraft10} {
			changes, err := c.parsePatch(media, body)
			if err != nil {
				if code := wire.StatusOf(err); code != 400 && code != 403 {
					t.Errorf("%q: %v", body, err)
				}
				continue
			}
			img := catalog.Image{Properties: map[string]string{}}
			for _, ch := range changes {
				if len(ch.path) == 0 || ch.path[0] == "" || strings.HasPrefix(ch.path[0], reservedPrefix) {
					t.Errorf("%q: change %+v", body, ch)
				}
				if ch.op != "remove" {
					setBase(&img, ch.path[0], ch.value)
				}
			}
			if img.MinDisk < 0 || img.MinRAM < 0 {
				t.Errorf("%q: %+v", body, img)
			}
		}
	})
}
