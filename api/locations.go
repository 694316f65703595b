package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// A Locator knows where bytes are, in the URLs of Glance's own drivers.
type Locator interface {
	// URI returns the URL of a location, without any secret, or "".
	URI(l catalog.Location) string

	// Find returns the location that a URL means, with its size. One that no
	// store of this gateway has, or that is not there, is an error that says so.
	Find(ctx context.Context, uri string) (catalog.Location, error)
}

// maxLocations is how many locations one image may have where nobody says.
const maxLocations = 10

// showsLocations tells whether the caller may see where an image's bytes are.
func (s *Server) showsLocations(ctx context.Context, img *catalog.Image) bool {
	return s.cfg.Locator != nil && (s.cfg.ShowDirectURL || s.cfg.ShowLocations) &&
		s.allow(ctx, "get_image_location", s.target(ctx, img)) == nil
}

// appendLocations writes where the bytes of an image are, if that is shown.
func (s *Server) appendLocations(e *encoder, img *catalog.Image, shown bool) {
	if s.cfg.Locator == nil {
		return
	}
	if !shown {
		img.Locations = nil // it is our copy
	}
	if s.cfg.ShowDirectURL && len(img.Locations) > 0 {
		e.text("direct_url", s.cfg.Locator.URI(img.Locations[0]))
	}
	if !s.cfg.ShowLocations {
		return
	}
	e.key("locations")
	e.open('[')
	for _, l := range img.Locations {
		if e.comma {
			e.b = append(e.b, ',')
		}
		e.open('{')
		e.text("url", s.cfg.Locator.URI(l))
		e.key("metadata")
		metadata, _ := json.Marshal(withStore(l)) // texts always encode
		e.b = append(e.b, metadata...)
		e.close('}')
	}
	e.close(']')
}

func withStore(l catalog.Location) map[string]string {
	out := map[string]string{"store": l.Store}
	for key, value := range l.Metadata {
		out[key] = value
	}
	return out
}

// A place is a location as a client writes it.
type place struct {
	url      string
	metadata map[string]string
	facts    map[string]string // validation_data
}

func placeOf(v any) (place, error) {
	m, _ := v.(map[string]any)
	p := place{metadata: map[string]string{}, facts: map[string]string{}}
	p.url, _ = m["url"].(string)
	metadata, _ := m["metadata"].(map[string]any)
	for key, value := range metadata {
		text, ok := value.(string)
		if !ok {
			return p, wire.Errorf(http.StatusBadRequest, "The metadata %.100q of a location must be a string.", key)
		}
		p.metadata[key] = text
	}
	facts, ok := m["validation_data"]
	if !ok {
		return p, nil
	}
	list, ok := facts.(map[string]any)
	if !ok || list["os_hash_algo"] == nil || list["os_hash_value"] == nil {
		return p, wire.Errorf(http.StatusBadRequest, "validation_data must be an object with os_hash_algo and os_hash_value.")
	}
	for key, value := range list {
		text, ok := value.(string)
		if limit := map[string]int{"checksum": 32, "os_hash_algo": 64, "os_hash_value": 128}[key]; !ok || limit == 0 || len(text) > limit || key == "checksum" && len(text) != 32 {
			return p, wire.Errorf(http.StatusBadRequest, "The validation_data %.100q is not as the schema says.", key)
		}
		p.facts[key] = text
	}
	return p, nil
}

// places returns the locations that a change names.
func (ch change) places() ([]place, error) {
	values := []any{ch.value}
	if ch.op == "replace" {
		values, _ = ch.value.([]any)
	}
	list := make([]place, 0, len(values))
	for _, v := range values {
		p, err := placeOf(v)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// A finding is what looking for the URLs of a PATCH gave. Stores are asked
// before the transaction, which may run several times.
type finding map[string]found

type found struct {
	loc catalog.Location
	err error
}

// seek looks for the URLs that a PATCH adds to an image, if it may.
func (s *Server) seek(ctx context.Context, img *catalog.Image, changes []change) finding {
	out := finding{}
	if s.cfg.Locator == nil || !s.cfg.ShowLocations || s.allowImage(ctx, "set_image_location", img) != nil {
		return out
	}
	known := map[string]bool{}
	for _, l := range img.Locations {
		known[s.cfg.Locator.URI(l)] = true
	}
	for _, ch := range changes {
		if ch.path[0] != "locations" || ch.op == "remove" {
			continue
		}
		list, err := ch.places()
		if err != nil {
			continue // told when it is applied
		}
		for _, p := range list[:min(len(list), s.cfg.MaxLocations+1)] {
			if _, seen := out[p.url]; seen || known[p.url] {
				continue
			}
			out[p.url] = s.seekOne(ctx, p.url)
		}
	}
	return out
}

func (s *Server) seekOne(ctx context.Context, uri string) found {
	scheme, _, _ := strings.Cut(uri, "://")
	who := wire.IdentityFrom(ctx)
	trusted := who.Admin || slices.Contains(who.Service.Roles, "service") || who.HasRole("service")
	if scheme != "http" && scheme != "https" && !trusted {
		// Whoever names an object of a store could name anybody's.
		return found{err: wire.Errorf(http.StatusBadRequest, "Invalid location: only http and https URLs can be named by you.")}
	}
	loc, err := s.cfg.Locator.Find(ctx, uri)
	if err != nil {
		return found{err: wire.Errorf(http.StatusBadRequest, "Invalid location: %s", wire.WithoutKind(err.Error()))}
	}
	return found{loc: loc}
}

// changeLocations carries out one operation of a PATCH on the locations.
func (s *Server) changeLocations(ctx context.Context, img *catalog.Image, ch change, known finding) error {
	if s.cfg.Locator == nil || !s.cfg.ShowLocations {
		return wire.Errorf(http.StatusForbidden, "It's not allowed to %s locations if locations are invisible.", ch.op)
	}
	rule := "set_image_location"
	if ch.op == "remove" {
		rule = "delete_image_location"
	}
	if err := s.allowImage(ctx, rule, img); err != nil {
		return err
	}
	if img.Status != catalog.StatusActive && (img.Status != catalog.StatusQueued || ch.op == "remove") {
		return wire.Errorf(http.StatusConflict, "It's not allowed to %s locations if image status is %s.", ch.op, img.Status)
	}
	switch ch.op {
	case "remove":
		return removeLocation(img, ch.path[1])
	case "replace":
		return s.replaceLocations(img, ch, known)
	}
	list, err := ch.places()
	if err != nil {
		return err
	}
	at, ok := position(ch.path[1], len(img.Locations))
	if !ok {
		return wire.Errorf(http.StatusBadRequest, "Invalid position for adding a location.")
	}
	return s.addLocation(img, list[0], at, known)
}

// position reads where in a list of n a pointer points: its end, or a number,
// which is cut there.
func position(text string, n int) (int, bool) {
	if text == "-" {
		return n, true
	}
	at, err := strconv.ParseUint(text, 10, 31)
	return min(int(at), n), err == nil
}

func removeLocation(img *catalog.Image, text string) error {
	if len(img.Locations) == 1 {
		return wire.Errorf(http.StatusForbidden, "Cannot remove last location in the image.")
	}
	at, ok := position(text, len(img.Locations)-1)
	if !ok || at < 0 {
		return wire.Errorf(http.StatusBadRequest, "Invalid position for removing a location.")
	}
	img.Locations = slices.Delete(img.Locations, at, at+1)
	return nil
}

// replaceLocations changes the metadata of locations; of an image without any
// it is to add them.
func (s *Server) replaceLocations(img *catalog.Image, ch change, known finding) error {
	list, err := ch.places()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return wire.Errorf(http.StatusForbidden, "The locations of an image cannot all be taken away. Delete the image instead.")
	}
	if img.Status == catalog.StatusQueued {
		for _, p := range list {
			if err := s.addLocation(img, p, len(img.Locations), known); err != nil {
				return err
			}
		}
		return nil
	}
	same := slices.EqualFunc(list, img.Locations, func(p place, l catalog.Location) bool { return p.url == s.cfg.Locator.URI(l) })
	if !same {
		return wire.Errorf(http.StatusBadRequest, "Original locations is not empty: replacing them is allowed with the same URLs in the same order only.")
	}
	for i, p := range list {
		if err := checkFacts(img, p); err != nil {
			return err
		}
		delete(p.metadata, "store")
		img.Locations[i].Metadata = p.metadata
	}
	return nil
}

// addLocation adds a location that was found. The first one makes the image
// active.
func (s *Server) addLocation(img *catalog.Image, p place, at int, known finding) error {
	if err := checkFacts(img, p); err != nil {
		return err
	}
	f, ok := known[p.url]
	switch {
	case slices.ContainsFunc(img.Locations, func(l catalog.Location) bool { return s.cfg.Locator.URI(l) == p.url }):
		return wire.Errorf(http.StatusBadRequest, "The location is in the image already.")
	case !ok:
		return wire.Errorf(http.StatusConflict, "The image changed meanwhile. Try again.")
	case f.err != nil:
		return f.err
	case len(img.Locations) >= s.cfg.MaxLocations:
		return wire.Errorf(http.StatusRequestEntityTooLarge, "An image has at most %d locations here.", s.cfg.MaxLocations)
	case img.DiskFormat == "" || img.ContainerFormat == "":
		return wire.Errorf(http.StatusBadRequest, "Properties disk_format, container_format must be set prior to saving data.")
	case img.Size != nil && *img.Size != f.loc.Size:
		return wire.Errorf(http.StatusConflict, "Image %s has %d bytes, and %d are there: these are other bytes.", img.ID, *img.Size, f.loc.Size)
	}
	l := f.loc
	delete(p.metadata, "store")
	l.Generation, l.Metadata = uuid.NewString(), p.metadata
	img.Locations = slices.Insert(img.Locations, at, l)
	if img.Status == catalog.StatusQueued {
		img.Status, img.Size = catalog.StatusActive, &l.Size
		img.Checksum = p.facts["checksum"]
		img.HashAlgo, img.HashValue = p.facts["os_hash_algo"], p.facts["os_hash_value"]
	}
	return nil
}

// checkFacts refuses what a client says of the bytes that is not so, or comes
// too late.
func checkFacts(img *catalog.Image, p place) error {
	for key, now := range map[string]string{"checksum": img.Checksum, "os_hash_algo": img.HashAlgo, "os_hash_value": img.HashValue} {
		said, ok := p.facts[key]
		switch {
		case !ok || said == now:
		case now != "":
			return wire.Errorf(http.StatusConflict, "%s is already set with a different value.", key)
		case img.Status != catalog.StatusQueued:
			return wire.Errorf(http.StatusConflict, "A new value for %s may only be provided when image status is 'queued'.", key)
		}
	}
	if img.Status != catalog.StatusQueued || len(p.facts) == 0 {
		return nil
	}
	algo, value := p.facts["os_hash_algo"], p.facts["os_hash_value"]
	length := map[string]int{"sha512": 128, "sha384": 96, "sha256": 64, "sha1": 40}[algo]
	if length == 0 || len(value) != length || strings.Trim(strings.ToLower(value+p.facts["checksum"]), "0123456789abcdef") != "" {
		return wire.Errorf(http.StatusConflict, "os_hash_value is no value of os_hash_algo %.20s, or checksum none of MD5, in hexadecimal.", algo)
	}
	return nil
}
