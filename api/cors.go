package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// CORS says which web pages of other sites may use the API from a browser
// (the Fetch standard, and before it W3C's Cross-Origin Resource Sharing),
// in the words of OpenStack's services. Its zero value lets none.
type CORS struct {
	Origins       []string // such as https://console.example.org; "*" is every page, where tokens are asked for
	NoCredentials bool     // cookies and the like must not come along
	ExposeHeaders []string // of answers; nil: Glance's
	AllowHeaders  []string // of requests; nil: Glance's
	Methods       []string // nil: GET, PUT, POST, DELETE, PATCH
	MaxAge        int      // seconds for which a browser remembers; 0 is 3600
}

func (c CORS) defaults() CORS {
	if c.ExposeHeaders == nil {
		c.ExposeHeaders = []string{"X-Image-Meta-Checksum", "X-Auth-Token", "X-Subject-Token", "X-Service-Token", "X-OpenStack-Request-ID"}
	}
	if c.AllowHeaders == nil {
		c.AllowHeaders = []string{"Content-MD5", "X-Image-Meta-Checksum", "X-Storage-Token", "Accept-Encoding", "X-Auth-Token",
			"X-Identity-Status", "X-Roles", "X-Service-Catalog", "X-User-Id", "X-Tenant-Id", "X-OpenStack-Request-ID"}
	}
	if c.Methods == nil {
		c.Methods = []string{"GET", "PUT", "POST", "DELETE", "PATCH"}
	}
	if c.MaxAge == 0 {
		c.MaxAge = 3600
	}
	return c
}

// simpleHeaders may always be sent.
func simpleHeaders() []string {
	return []string{"Accept", "Accept-Language", "Content-Type", "Cache-Control", "Content-Language", "Expires", "Last-Modified", "Pragma"}
}

// allows tells whether pages of an origin may use the API.
func (c CORS) allows(origin string) bool {
	return slices.Contains(c.Origins, origin) || slices.Contains(c.Origins, "*")
}

// answer says in the header of an answer what a browser may do with it. It
// returns true for a question of a browser that is answered by that alone.
func (c CORS) answer(h http.Header, r *http.Request) bool {
	if len(c.Origins) == 0 {
		return false
	}
	asks := r.Method == http.MethodOptions
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	h.Add("Vary", "Origin")
	if !c.allows(origin) {
		return asks
	}
	if asks && !c.permits(h, r) {
		return true
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if !c.NoCredentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !asks {
		h.Set("Access-Control-Expose-Headers", strings.Join(c.ExposeHeaders, ","))
	}
	return asks
}

// permits answers what a browser asks before the request itself.
func (c CORS) permits(h http.Header, r *http.Request) bool {
	method := r.Header.Get("Access-Control-Request-Method")
	if !slices.Contains(c.Methods, method) {
		return false
	}
	may := append(simpleHeaders(), c.AllowHeaders...)
	var wanted []string
	for name := range strings.SplitSeq(r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.ContainsFunc(may, func(m string) bool { return strings.EqualFold(m, name) }) {
			return false
		}
		wanted = append(wanted, name)
	}
	h.Set("Access-Control-Max-Age", strconv.Itoa(c.MaxAge))
	h.Set("Access-Control-Allow-Methods", method)
	if len(wanted) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(wanted, ","))
	}
	return true
}
