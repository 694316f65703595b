package api

import (
	"net/http"
	"testing"
)

// TestCORS: which pages may do what.
func TestCORS(t *testing.T) {
	const page, stranger = "Origin: https://console.example.org", "Origin: https://evil.example.org"
	ask := func(method, headers string) []string {
		return []string{page, "Access-Control-Request-Method: " + method, "Access-Control-Request-Headers: " + headers}
	}
	s, _ := newServer(t, func(c *Config) {
		c.Auth, c.CORS = headerAuth{}, CORS{Origins: []string{"https://console.example.org"}}
	})
	for _, c := range []struct {
		method string
		header []string
		code   int
		want   map[string]string
	}{
		{"GET", []string{page, "X-Test-Project: p1"}, 200, map[string]string{"Access-Control-Allow-Origin": "https://console.example.org",
			"Access-Control-Allow-Credentials": "true", "Vary": "Origin"}},
		{"GET", []string{page}, 401, map[string]string{"Access-Control-Allow-Origin": "https://console.example.org"}},
		{"GET", []string{stranger, "X-Test-Project: p1"}, 200, map[string]string{"Access-Control-Allow-Origin": "", "Vary": "Origin"}},
		{"GET", []string{"X-Test-Project: p1"}, 200, map[string]string{"Access-Control-Allow-Origin": "", "Vary": ""}},
		{"OPTIONS", ask("PATCH", "x-auth-token, content-type"), 204, map[string]string{"Access-Control-Allow-Origin": "https://console.example.org",
			"Access-Control-Allow-Methods": "PATCH", "Access-Control-Allow-Headers": "x-auth-token,content-type", "Access-Control-Max-Age": "3600"}},
		{"OPTIONS", ask("TRACE", ""), 204, map[string]string{"Access-Control-Allow-Origin": ""}},
		{"OPTIONS", ask("GET", "x-nonsense"), 204, map[string]string{"Access-Control-Allow-Origin": ""}},
		{"OPTIONS", []string{stranger, "Access-Control-Request-Method: GET"}, 204, map[string]string{"Access-Control-Allow-Origin": ""}},
		{"OPTIONS", []string{"X-Test-Project: p1"}, 405, map[string]string{"Access-Control-Allow-Origin": ""}},
	} {
		w := do(s, c.method, "/v2/images", "", c.header...)
		if w.Code != c.code {
			t.Errorf("%s %v: %d, want %d", c.method, c.header, w.Code, c.code)
		}
		for key, want := range c.want {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s %v: %s is %q, want %q", c.method, c.header, key, got, want)
			}
		}
	}

	// Without tokens, only pages that are named may come.
	for origins, want := range map[string]int{"": http.StatusForbidden, "*": http.StatusForbidden, "https://console.example.org": http.StatusOK} {
		s, _ := newServer(t, func(c *Config) {
			if origins != "" {
				c.CORS.Origins = []string{origins}
			}
		})
		if w := do(s, "GET", "/v2/images", "", page, "Sec-Fetch-Site: cross-site"); w.Code != want {
			t.Errorf("without tokens, origins %q: %d, want %d", origins, w.Code, want)
		}
	}
}
