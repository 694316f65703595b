package swift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// The metadata of what we write. They save listings, and tell what is ours
// when an answer was lost; other clients need none of them.
const (
	uploadHeader  = "X-Object-Meta-Platter-Upload"       // id of the upload that made the object, manifest or segment
	numberHeader  = "X-Object-Meta-Platter-Number"       // of a segment, from 1
	sizeHeader    = "X-Object-Meta-Platter-Size"         // in a manifest: bytes in all
	segmentHeader = "X-Object-Meta-Platter-Segment-Size" // in a manifest: bytes of every segment but the last
)

const (
	manifestHeader = "X-Object-Manifest"     // CONTAINER/PREFIX of a dynamic large object's segments
	staticHeader   = "X-Static-Large-Object" // True for a static one
	copyHeader     = "X-Copy-From"           // CONTAINER/NAME of what a PUT makes a copy of
)

// segmentName returns the name of a segment, from 1, as Glance calls them.
func segmentName(name string, number int) string { return fmt.Sprintf("%s-%05d", name, number) }

// A state is what HEAD tells of an object.
type state struct {
	size    int64
	etag    string
	upload  string // "" if it is not ours
	segment int64  // bytes of every segment but the last, 0 if it is no manifest of ours
	dynamic string // CONTAINER/PREFIX if it is a dynamic manifest
	static  bool
}

func stateOf(h http.Header) state {
	st := state{size: number(h, "Content-Length"), etag: etag(h), upload: h.Get(uploadHeader), static: strings.EqualFold(h.Get(staticHeader), "true")}
	if text := h.Get(manifestHeader); text != "" {
		st.dynamic = text
		if plain, err := url.PathUnescape(text); err == nil {
			st.dynamic = plain
		}
	}
	// The length of a dynamic manifest is what its listing shows at the
	// moment; ours say it for good.
	size, segment := number(h, sizeHeader), number(h, segmentHeader)
	if (st.static || st.dynamic != "") && st.upload != "" && segment > 0 && size > 0 && (size-1)/segment < maxSegments {
		st.size, st.segment = size, segment
	}
	return st
}

// count returns how many segments a manifest of ours has.
func (st state) count() int {
	if st.segment == 0 {
		return 0
	}
	return int((st.size-1)/st.segment) + 1
}

// head looks an object up. If there is none the error is fs.ErrNotExist.
func (s *Store) head(ctx context.Context, p patience, container, name string) (state, error) {
	h, err := s.ask(ctx, p, request{method: http.MethodHead, container: container, name: name})
	if statusOf(err) == http.StatusNotFound {
		return state{}, fmt.Errorf("there is no object %s: %w", name, fs.ErrNotExist)
	}
	return stateOf(h), err
}

// A segment is a run of an object's bytes inside a Swift object.
type segment struct {
	container, name string
	off, len        int64  // in the object
	from            int64  // where it begins in the Swift object
	total           int64  // bytes of the Swift object, -1 if unknown
	etag            string // of the Swift object, "" if unknown
	upload          string // that made it, "" if it is not ours
}

// find returns the segment that holds the byte at off.
func (o *object) find(off int64) segment {
	if o.segments != nil {
		i := sort.Search(len(o.segments), func(i int) bool { return o.segments[i].off > off })
		return o.segments[i-1]
	}
	i := off / o.state.segment
	at := i * o.state.segment
	n := min(o.state.segment, o.state.size-at)
	return segment{container: o.store.cfg.Container, name: segmentName(o.name, int(i)+1), off: at, len: n, total: n, upload: o.state.upload}
}

// survey finds out where the bytes of an object are.
func (s *Store) survey(ctx context.Context, o *object) error {
	whole := []segment{{container: s.cfg.Container, name: o.name, len: o.state.size, total: o.state.size, etag: o.state.etag}}
	var found []segment
	var err error
	switch st := o.state; {
	case st.size == 0:
		return nil
	case st.segment > 0:
		return nil // ours
	case st.dynamic != "":
		found, err = s.dynamicSegments(ctx, st.dynamic)
	case st.static && s.can.manifests:
		found, err = s.staticSegments(ctx, o.name)
	}
	if err != nil {
		return err
	}
	o.segments = found
	if sum := line(found); sum != o.state.size {
		// No manifest, one that cannot be asked for, or one of an unusual
		// kind: then the server puts the bytes together.
		o.segments = whole
	}
	return nil
}

// line puts segments one behind the other and returns their length, -1 if
// that is no length.
func line(segments []segment) (sum int64) {
	for i := range segments {
		segments[i].off = sum
		if sum += segments[i].len; sum < segments[i].off {
			return -1
		}
	}
	return sum
}

// An entry is an object in a listing of a container.
type entry struct {
	Name  string `json:"name"`
	Hash  string `json:"hash"`
	Bytes int64  `json:"bytes"`
	Slo   string `json:"slo_etag"` // the ETag, if the object is a static manifest
}

// list returns the objects of a container whose names begin with prefix, up
// to maxSegments. Servers have limits of their own for a page, so there is
// another one until one is empty.
func (s *Store) list(ctx context.Context, p patience, container, prefix string) ([]entry, error) {
	var all []entry
	query := url.Values{"prefix": {prefix}, "format": {"json"}}
	for {
		_, body, err := s.fetch(ctx, p, request{method: http.MethodGet, container: container, query: query})
		if err != nil {
			return nil, err
		}
		var page []entry
		if len(body) > 0 { // a 204 has none
			if err := json.Unmarshal(body, &page); err != nil {
				return nil, fmt.Errorf("the listing of %s/%s: %w", container, prefix, err)
			}
		}
		all = append(all, page...)
		if len(all) > maxSegments {
			return nil, fmt.Errorf("more than %d objects begin with %s/%s", maxSegments, container, prefix)
		}
		if len(page) == 0 || page[len(page)-1].Name <= query.Get("marker") {
			return all, nil
		}
		query.Set("marker", page[len(page)-1].Name)
	}
}

// dynamicSegments returns the segments of a dynamic large object.
func (s *Store) dynamicSegments(ctx context.Context, manifest string) ([]segment, error) {
	container, prefix, _ := strings.Cut(strings.TrimLeft(manifest, "/"), "/")
	entries, err := s.list(ctx, s.reading(), container, prefix)
	if err != nil {
		return nil, fmt.Errorf("list the segments %s: %w", manifest, err)
	}
	var segments []segment
	for _, e := range entries {
		if e.Bytes > 0 {
			etag := e.Hash
			if e.Slo != "" {
				etag = e.Slo
			}
			segments = append(segments, segment{container: container, name: e.Name, len: e.Bytes, total: e.Bytes, etag: strings.Trim(etag, `"`)})
		}
	}
	return segments, nil
}

// A part is a line of a static manifest.
type part struct {
	Name  string `json:"name"` // /CONTAINER/NAME
	Hash  string `json:"hash"`
	Bytes int64  `json:"bytes"` // of the whole Swift object
	Range string `json:"range"` // FIRST-LAST, or "" for all
	Sub   bool   `json:"sub_slo"`
	Data  string `json:"data"` // bytes in place of an object
}

// errUnusual is a static manifest that is left to the server.
var errUnusual = errors.New("unusual manifest")

// staticSegments returns the segments of a static large object, none if they
// are of an unusual kind.
func (s *Store) staticSegments(ctx context.Context, name string) ([]segment, error) {
	_, body, err := s.fetch(ctx, s.reading(), request{method: http.MethodGet, container: s.cfg.Container, name: name,
		query: url.Values{"multipart-manifest": {"get"}}})
	if err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", name, err)
	}
	segments, err := parseManifest(body)
	if errors.Is(err, errUnusual) {
		return nil, nil
	}
	return segments, err
}

func parseManifest(body []byte) ([]segment, error) {
	var parts []part
	if err := json.Unmarshal(body, &parts); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusual, err)
	}
	segments := make([]segment, 0, len(parts))
	for _, p := range parts {
		container, name, ok := strings.Cut(strings.TrimPrefix(p.Name, "/"), "/")
		if !ok || name == "" || p.Data != "" || p.Bytes <= 0 {
			return nil, errUnusual
		}
		seg := segment{container: container, name: name, len: p.Bytes, total: p.Bytes, etag: strings.Trim(p.Hash, `"`)}
		if p.Sub { // the hash is that of the manifest beneath
			seg.total, seg.etag = -1, ""
		}
		if p.Range != "" {
			first, last, _ := strings.Cut(p.Range, "-")
			from, err1 := strconv.ParseInt(first, 10, 64)
			to, err2 := strconv.ParseInt(last, 10, 64)
			if err1 != nil || err2 != nil || from < 0 || from > to || to >= p.Bytes {
				return nil, errUnusual
			}
			seg.from, seg.len = from, to-from+1
		}
		segments = append(segments, seg)
	}
	return segments, nil
}
