package swift

import "testing"

// FuzzManifest: whatever a static manifest says, its segments lie inside their
// objects and one behind the other.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`[{"name":"/c/a","hash":"x","bytes":10},{"name":"/c/b","bytes":5,"range":"1-3"},{"name":"/c/d/e","bytes":7,"sub_slo":true}]`))
	f.Add([]byte(`[{"data":"YQ=="}]`))
	f.Add([]byte(`[{"name":"/c/a","bytes":9223372036854775807},{"name":"/c/a","bytes":9223372036854775807}]`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		segments, err := parseManifest(body)
		if err != nil {
			return
		}
		sum := line(segments)
		var end int64
		for _, s := range segments {
			if s.container == "" && s.name == "" || s.len <= 0 || s.from < 0 || s.total >= 0 && s.from > s.total-s.len {
				t.Fatalf("segment %+v", s)
			}
			if sum >= 0 && s.off != end {
				t.Fatalf("segment %+v does not begin at %d", s, end)
			}
			end += s.len
		}
		if sum >= 0 && sum != end {
			t.Fatalf("sum %d, want %d", sum, end)
		}
	})
}
