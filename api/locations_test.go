package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
)

// urls is a Locator whose keys are the URLs themselves.
type urls struct{}

func (urls) URI(l catalog.Location) string { return l.Key }

func (urls) Find(_ context.Context, uri string) (catalog.Location, error) {
	if !strings.Contains(uri, "images.example.org") {
		return catalog.Location{}, fmt.Errorf("not here: %w", fs.ErrNotExist)
	}
	size := int64(5)
	if strings.Contains(uri, "other") {
		size = 6
	}
	return catalog.Location{Store: "web", Key: uri, Size: size}, nil
}

func TestLocations(t *testing.T) {
	s, data := newServer(t, func(c *Config) {
		c.Auth, c.Locator, c.ShowDirectURL, c.ShowLocations, c.MaxLocations = headerAuth{}, urls{}, true, true, 3
	})
	member := []string{"X-Test-Project: p1", "X-Test-Roles: member,reader", "Content-Type: application/openstack-images-v2.1-json-patch"}
	admin := []string{"X-Test-Project: p0", "X-Test-Roles: admin,member,reader", member[2]}
	other := []string{"X-Test-Project: p2", "X-Test-Roles: member,reader", member[2]}
	const a, b = "http://images.example.org/a", "http://images.example.org/a#b"
	hash := strings.Repeat("ab", 64)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare","visibility":"public"}`, admin...)
	if _, err := data.cat.UpdateImage(t.Context(), id, func(i *catalog.Image) error { i.Owner = "p1"; return nil }); err != nil {
		t.Fatal(err)
	}
	add := func(url, more string) string {
		return `[{"op":"add","path":"/locations/-","value":{"url":"` + url + `","metadata":{"k":"v"}` + more + `}}]`
	}
	for _, c := range []struct {
		who  []string
		body string
		code int
		want string // the URLs afterwards
	}{
		{other, add(a, ""), 403, ""},
		{member, add("file:///etc/passwd", ""), 400, ""},
		{member, add("rbd://f/p/x/snap", ""), 400, ""},
		{member, add("http://10.0.0.1/", ""), 400, ""},
		{member, add("gopher://images.example.org/", ""), 400, ""},
		{member, `[{"op":"add","path":"/locations/-","value":{"url":"` + a + `","metadata":{"k":1}}}]`, 400, ""},
		{member, `[{"op":"add","path":"/locations/-","value":{"url":"` + a + `"}}]`, 400, ""},
		{member, `[{"op":"add","path":"/locations/x","value":{"url":"` + a + `","metadata":{}}}]`, 400, ""},
		{member, add(a, `,"validation_data":{"os_hash_algo":"sha512"}`), 400, ""},
		{member, add(a, `,"validation_data":{"os_hash_algo":"sha512","os_hash_value":"xyz"}`), 409, ""},
		{member, `[{"op":"replace","path":"/locations","value":[]}]`, 403, ""},
		{admin, `[{"op":"remove","path":"/locations/0"}]`, 409, ""},
		{member, add(a, `,"validation_data":{"os_hash_algo":"sha512","os_hash_value":"`+hash+`","checksum":"`+strings.Repeat("1", 32)+`"}`), 200, a},
		{member, add(a, ""), 400, a},
		{member, add("http://images.example.org/other", ""), 409, a},
		{member, add(b, `,"validation_data":{"os_hash_algo":"sha512","os_hash_value":"`+strings.Repeat("cd", 64)+`"}`), 409, a},
		{member, `[{"op":"add","path":"/locations/0","value":{"url":"` + b + `","metadata":{}}}]`, 200, b + " " + a},
		{member, add(a+"3", ""), 200, b + " " + a + " " + a + "3"},
		{member, add(a+"4", ""), 413, b + " " + a + " " + a + "3"},
		{member, `[{"op":"replace","path":"/locations","value":[{"url":"` + b + `","metadata":{}}]}]`, 400, b + " " + a + " " + a + "3"},
		{member, `[{"op":"remove","path":"/locations/0"}]`, 403, b + " " + a + " " + a + "3"},
		{admin, `[{"op":"remove","path":"/locations/0"},{"op":"remove","path":"/locations/-"}]`, 200, a},
		{admin, `[{"op":"remove","path":"/locations/0"}]`, 403, a},
		{member, `[{"op":"replace","path":"/locations","value":[{"url":"` + a + `","metadata":{"n":"w","store":"x"}}]}]`, 200, a},
		{admin, add("s3://images.example.org/k", ""), 200, a + " s3://images.example.org/k"},
	} {
		w := do(s, "PATCH", "/v2/images/"+id, c.body, c.who...)
		if w.Code != c.code {
			t.Errorf("%s: %d, want %d: %s", c.body, w.Code, c.code, w.Body)
		}
		var img struct {
			Status, Checksum string
			Direct           string `json:"direct_url"`
			Locations        []struct {
				URL      string
				Metadata map[string]string
			}
		}
		w = do(s, "GET", "/v2/images/"+id, "", member[:2]...)
		if err := json.Unmarshal(w.Body.Bytes(), &img); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range img.Locations {
			got = append(got, l.URL)
			if l.Metadata["store"] != "web" {
				t.Errorf("%s: metadata %v", c.body, l.Metadata)
			}
		}
		if strings.Join(got, " ") != c.want || len(got) > 0 && (img.Direct != got[0] || img.Status != "active" || img.Checksum == "") {
			t.Errorf("%s: then it is %s", c.body, w.Body)
		}
		w = do(s, "GET", "/v2/images/"+id, "", other[:2]...)
		if strings.Contains(w.Body.String(), "example.org") || !strings.Contains(w.Body.String(), `"locations":[]`) {
			t.Errorf("others see %s", w.Body)
		}
	}
	garbage, err := data.cat.Garbage(t.Context())
	if err != nil || len(garbage) != 2 || garbage[0].Key == a || garbage[1].Key == a {
		t.Errorf("garbage: %v, %v", garbage, err)
	}
	hidden, _ := newServer(t, func(c *Config) { c.Locator = urls{} })
	id = create(t, hidden, `{"disk_format":"raw","container_format":"bare"}`)
	w := do(hidden, "PATCH", "/v2/images/"+id, add(a, ""), member[2])
	if w.Code != 403 {
		t.Errorf("where locations are not shown: %d", w.Code)
	}
	if w := do(hidden, "GET", "/v2/images/"+id, ""); strings.Contains(w.Body.String(), "locations") {
		t.Errorf("they are shown: %s", w.Body)
	}
}
