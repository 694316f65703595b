package api

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func TestParseQuery(t *testing.T) {
	page := Paging{Default: 25, Max: 1000}
	for _, bad := range []string{
		"limit=x", "limit=-1", "limit=", "visibility=secret", "member_status=maybe", "changes-since=2020", "os_hidden=1", "protected=True",
		"sort_key=owner", "sort_dir=up", "sort=name:up", "sort=size&sort_key=name", "sort_key=name&sort_dir=asc&sort_dir=desc", "sort=",
		"name=foo:bar", "name=gt:x", `name=in:"a`, `name=in:a"b"`, `name=in:"a"b`, "created_at=yesterday", "created_at=in:2020-01-01", "created_at=gt:x",
		"size_min=a", "min_ram=x", "updated_at=gt:", "name=%ff", "%ff=1",
	} {
		values, err := url.ParseQuery(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = parseQuery(values, page); wire.StatusOf(err) != 400 || err == nil {
			t.Errorf("%s: %v, want 400", bad, err)
		}
	}
	for query, check := range map[string]func(q catalog.Query) bool{
		"": func(q catalog.Query) bool {
			return q.Limit == 25 && q.OneDir && q.Sort[0] == catalog.SortKey{Column: "created_at", Desc: true}
		},
		"limit=0":                                func(q catalog.Query) bool { return q.Limit == 0 },
		"limit=5000":                             func(q catalog.Query) bool { return q.Limit == 1000 },
		"sort=name:asc,size":                     func(q catalog.Query) bool { return len(q.Sort) == 2 && !q.Sort[0].Desc && q.Sort[1].Desc && !q.OneDir },
		"sort_key=name&sort_key=id&sort_dir=asc": func(q catalog.Query) bool { return len(q.Sort) == 2 && !q.Sort[1].Desc && q.OneDir },
		"name=in:a,b":                            func(q catalog.Query) bool { return slices.Equal(q.Name, []string{"a", "b"}) },
		`name=in:"a,b",c,"d\"e"`:                 func(q catalog.Query) bool { return slices.Equal(q.Name, []string{"a,b", "c", `d"e`}) },
		"name=eq:x":                              func(q catalog.Query) bool { return slices.Equal(q.Name, []string{"x"}) },
		"status=in:active,queued":                func(q catalog.Query) bool { return len(q.Status) == 2 },
		"tag=a&tag=b":                            func(q catalog.Query) bool { return slices.Equal(q.Tags, []string{"a", "b"}) },
		"os_hidden=TRUE":                         func(q catalog.Query) bool { return q.Hidden == catalog.HiddenOnly },
		"protected=false":                        func(q catalog.Query) bool { return q.Protected != nil && !*q.Protected },
		"visibility=all":                         func(q catalog.Query) bool { return q.Visibility == "all" },
		"size_min=5&size_max=9":                  func(q catalog.Query) bool { return len(q.Ranges) == 2 },
		"min_disk=3":                             func(q catalog.Query) bool { return *q.Ranges[0].Min == 3 && *q.Ranges[0].Max == 3 },
		"created_at=2026-01-02T03:04:05Z":        func(q catalog.Query) bool { return q.Times[0].Op == "eq" && q.Times[0].Time.Minute() == 4 },
		"updated_at=lte:2026-01-02":              func(q catalog.Query) bool { return q.Times[0].Op == "lte" && q.Times[0].Column == "updated_at" },
		"os_distro=debian&x_max=3": func(q catalog.Query) bool {
			return reflect.DeepEqual(q.Properties, map[string]string{"os_distro": "debian", "x_max": "3"})
		},
		"owner=p&checksum=c": func(q catalog.Query) bool { return *q.Owner == "p" && *q.Checksum == "c" },
	} {
		values, _ := url.ParseQuery(query)
		q, err := parseQuery(values, page)
		if err != nil || !check(q) {
			t.Errorf("%s: %+v, %v", query, q, err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"limit=3&marker=x", `name=in:"a,b",c`, "sort=name:asc", "created_at=gt:2026-01-01T00:00:00Z", "size_min=1", "a=b&tag=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		values, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		q, err := parseQuery(values, Paging{25, 1000})
		if err != nil && wire.StatusOf(err) != 400 {
			t.Errorf("%q: %v", s, err)
		}
		if err == nil && (q.Limit < 0 || q.Limit > 1000 || len(q.Sort) == 0) {
			t.Errorf("%q: %+v", s, q)
		}
	})
}

// FuzzWords quotes words and reads them back.
func FuzzWords(f *testing.F) {
	f.Add("a", "b,c")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.HasSuffix(a, `\`) || strings.HasSuffix(b, `\`) || strings.Contains(a+b, `\"`) {
			return // Glance's quoting cannot say these
		}
		quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }
		got, err := splitWords(quote(a) + "," + quote(b))
		if err != nil || !slices.Equal(got, []string{a, b}) {
			t.Errorf("%q %q came back as %q, %v", a, b, got, err)
		}
	})
}
