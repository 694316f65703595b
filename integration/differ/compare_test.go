//go:build integration

package differ

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// headers are compared, all others are not.
var headers = []string{"Location", "Content-Type", "Content-Range", "Content-Md5", "Allow", "Accept-Patch", "Www-Authenticate",
	"Openstack-Image-Import-Methods", "Openstack-Image-Store-Ids"}

// A picture is what is compared of an answer: names of its parts with their
// values.
type picture map[string]string

// idsKey names the part that has the ids of a list.
const idsKey = "body.images: ids"

// differences says where two answers differ, as "part: glance → gateway".
func differences(a, b picture) []string {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if a["status"] != b["status"] { // the rest follows from it
		keys = []string{"status"}
	}
	other := a[idsKey] != b[idsKey] // other images: what is in them says nothing more
	var list []string
	for _, k := range keys {
		if other && strings.HasPrefix(k, "body.images[") {
			continue
		}
		if a[k] != b[k] {
			list = append(list, fmt.Sprintf("%s: %s → %s", k, short(a[k]), short(b[k])))
		}
	}
	return list
}

func short(s string) string {
	if s == "" {
		return "-"
	}
	if len(s) > 300 {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:300], "?"), len(s))
	}
	return s
}

// picture takes from an answer what is to be compared.
func (s *side) picture(st step, a answer, n names) picture {
	if a.err != nil {
		return picture{"status": "no answer"}
	}
	p := picture{"status": fmt.Sprint(a.status)}
	for _, h := range headers {
		if v := a.header.Get(h); v != "" {
			p["header "+h] = s.normal(headerValue(h, v), n)
		}
	}
	if id := a.header.Get("X-Openstack-Request-Id"); id != "" {
		p["header X-Openstack-Request-Id"] = "present"
	}
	s.pictureBody(st, a, n, p)
	return p
}

func headerValue(h, v string) string {
	if h == "Allow" || h == "Openstack-Image-Store-Ids" || h == "Openstack-Image-Import-Methods" {
		words := strings.Split(strings.ReplaceAll(v, " ", ""), ",")
		sort.Strings(words)
		return strings.Join(words, ",")
	}
	return v
}

func (s *side) pictureBody(st step, a answer, n names, p picture) {
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	switch {
	case st.method == "HEAD":
	case a.status >= 400 && kind == "text/html":
		_, title, _ := strings.Cut(a.body, "<title>")
		p["body"], _, _ = strings.Cut(title, "</title>")
	case a.status >= 400 && kind == "text/plain":
		p["body"], _, _ = strings.Cut(a.body, "\n")
	case kind == "application/json":
		var v any
		dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			p["body"] = "no JSON: " + err.Error()
			return
		}
		isError := a.status >= 400
		if top, ok := v.(map[string]any); ok && isError {
			delete(top, "message") // in words of one's own
			delete(top, "request_id")
		}
		s.pictureJSON("body", v, n, p, strings.Contains(st.path, "/schemas/") || strings.Contains(st.path, "/info/import"))
	default:
		p["body"] = a.body
	}
}

// pictureJSON enters every leaf under its path.
func (s *side) pictureJSON(path string, v any, n names, p picture, described bool) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			p[path] = "{}"
		}
		for k, item := range v {
			if k == "description" && described {
				item = "described"
			}
			s.pictureJSON(path+"."+s.normal(k, n), item, n, p, described)
		}
	case []any:
		if strings.HasSuffix(path, ".tags") || strings.HasSuffix(path, ".required") {
			sort.Slice(v, func(i, j int) bool { return fmt.Sprint(v[i]) < fmt.Sprint(v[j]) })
		}
		if len(v) == 0 {
			p[path] = "[]"
		}
		if path == "body.images" {
			p[idsKey] = s.normal(ids(v), n)
		}
		for i, item := range v {
			s.pictureJSON(fmt.Sprintf("%s[%d]", path, i), item, n, p, described)
		}
	case string:
		p[path] = fmt.Sprintf("%q", s.normal(v, n))
	case nil:
		p[path] = "null"
	default:
		p[path] = fmt.Sprint(v)
	}
}

// ids is the list of the images' ids, or what is in their place.
func ids(list []any) string {
	var text []string
	for _, item := range list {
		image, _ := item.(map[string]any)
		text = append(text, fmt.Sprint(image["id"], "=", image["name"]))
	}
	return strings.Join(text, " ")
}

var (
	timeText = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?`)
	anyUUID  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// normal takes out of a text what cannot be the same on both sides.
func (s *side) normal(text string, n names) string {
	text = n.unfill(strings.ReplaceAll(text, s.url, "URL"))
	text = strings.ReplaceAll(text, strings.TrimPrefix(s.url, "http://"), "HOST")
	text = timeText.ReplaceAllString(text, "TIME")
	if path, query, ok := strings.Cut(text, "?"); ok && strings.HasPrefix(path, "/v2/") {
		if values, err := url.ParseQuery(query); err == nil {
			text = path + "?" + values.Encode()
		}
	}
	return anyUUID.ReplaceAllStringFunc(text, func(id string) string {
		if n.madeHere(id) {
			return id
		}
		return "UUID"
	})
}
