package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A level is one minor version of the Image API. Clients look for the exact
// id of a level to learn whether a feature is there, so a level is listed
// when what it brought is built, and not otherwise.
type level struct {
	id      string
	stores  bool // only where there are several stores
	imports bool // only where images can be imported
	cache   bool // only where there is a cache
}

// levels has the newest first. Missing is 2.17 (the locations API).
func levels() []level {
	return []level{
		{id: "2.18", cache: true}, {id: "2.16", cache: true}, {id: "2.15", stores: true}, {id: "2.14", cache: true},
		{id: "2.13"}, {id: "2.12"}, {id: "2.11", stores: true, imports: true}, {id: "2.10", stores: true, imports: true},
		{id: "2.9"}, {id: "2.8", stores: true}, {id: "2.7"}, {id: "2.6", imports: true},
		{id: "2.5"}, {id: "2.4"}, {id: "2.3"}, {id: "2.2"}, {id: "2.1"}, {id: "2.0"},
	}
}

// listed returns the ids of the levels that this server has, newest first.
func (s *Server) listed() []string {
	var ids []string
	for _, l := range levels() {
		if (!l.stores || s.manyStores()) && (!l.imports || s.cfg.Importer != nil) && (!l.cache || s.cfg.Cache != nil) {
			ids = append(ids, l.id)
		}
	}
	return ids
}

func (s *Server) manyStores() bool { return len(s.cfg.Stores) > 1 }

type versionEntry struct {
	ID     string        `json:"id"`
	Status string        `json:"status"`
	Links  []versionLink `json:"links"`
}

type versionLink struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

func (s *Server) writeVersions(w http.ResponseWriter, r *http.Request, status int) error {
	link := []versionLink{{"self", s.baseURL(r) + "/v2/"}}
	var body struct {
		Versions []versionEntry `json:"versions"`
	}
	for i, id := range s.listed() {
		state := "SUPPORTED"
		if i == 0 {
			state = "CURRENT"
		}
		body.Versions = append(body.Versions, versionEntry{"v" + id, state, link})
	}
	return wire.WriteJSON(w, status, body)
}

// baseURL is what links to this server begin with.
func (s *Server) baseURL(r *http.Request) string {
	if s.cfg.PublicEndpoint != "" {
		return strings.TrimRight(s.cfg.PublicEndpoint, "/")
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if proto := r.Header.Get("X-Forwarded-Proto"); s.cfg.ProxyHeaders && (proto == "http" || proto == "https") {
		scheme = proto
	}
	return scheme + "://" + r.Host
}

// vendorType begins an Accept header that names the version.
const vendorType = "application/vnd.openstack.images-"

// versioned takes the version off the path, which may be v2 or a level, and
// tells whether there was one that this server knows. The rest keeps its
// leading slash.
func (s *Server) versioned(r *http.Request) (rest string, ok bool) {
	path := r.URL.EscapedPath()
	if v, isVendor := strings.CutPrefix(r.Header.Get("Accept"), vendorType); isVendor {
		return path, s.knows(v)
	}
	first, tail, more := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if more {
		tail = "/" + tail
	}
	return tail, s.knows(first)
}

func (s *Server) knows(version string) bool {
	id, ok := strings.CutPrefix(version, "v")
	return ok && (id == "2" || slices.Contains(s.listed(), id))
}
