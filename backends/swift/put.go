package swift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An upload is a PUT that makes an object, which may be sent several times.
type upload struct {
	name   string
	id     string            // of the Writer
	header map[string]string // besides
	query  url.Values
	body   *spool // or nil
	digest string // MD5 of the body; "" if the object's ETag is another
}

// put makes an object. One of that name is fs.ErrExist.
func (s *Store) put(ctx context.Context, u upload) error {
	r := request{method: http.MethodPut, container: s.cfg.Container, name: u.name, query: u.query, body: u.body, header: map[string]string{
		"Content-Type": "application/octet-stream", uploadHeader: u.id,
	}}
	maps.Copy(r.header, u.header)
	if s.can.putNone && u.header[copyHeader] == "" { // of a copy, the source is asked as well, and answers 304
		r.header["If-None-Match"] = "*"
	}
	if u.digest != "" {
		r.header["Etag"] = u.digest
	}
	doubt := false // an earlier try may have been carried out
	err := s.again(ctx, s.writing(), r.what(), func(ctx context.Context) error {
		resp, err := s.send(ctx, r)
		switch {
		case err == nil:
			defer resp.Body.Close()
			if got := etag(resp.Header); u.digest != "" && got != "" && got != u.digest {
				return fmt.Errorf("%s: the server has MD5 %s and not %s: %w", r.what(), got, u.digest, errDigest)
			}
			return nil
		case refused(err) && doubt:
			return s.isOurs(ctx, u)
		case refused(err):
			return taken()
		}
		doubt = true
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.explain(err)
}

// isOurs returns nil if the object that is there is the one of an upload whose
// answer was lost, and fs.ErrExist if it is another.
func (s *Store) isOurs(ctx context.Context, u upload) error {
	st, err := s.head(ctx, s.reading(), s.cfg.Container, u.name)
	switch {
	case err != nil:
		return err
	case st.upload != u.id || u.digest != "" && st.etag != u.digest:
		return taken()
	}
	return nil
}

// putManifest makes the object of its segments.
func (w *writer) putManifest(ctx context.Context) error {
	s := w.store
	u := upload{header: map[string]string{
		sizeHeader: strconv.FormatInt(w.off, 10), segmentHeader: strconv.FormatInt(w.segment, 10),
	}}
	if s.cfg.Static && s.can.static && w.number <= staticParts {
		u.query, u.body = url.Values{"multipart-manifest": {"put"}}, spoolOf(w.manifest())
	} else {
		u.header[manifestHeader] = escape(s.cfg.Container + "/" + w.name + "-")
	}
	if err := w.make(ctx, u); err != nil {
		return err
	}
	if u.body == nil {
		w.look(ctx)
	}
	return nil
}

// manifest is the body of a static manifest.
func (w *writer) manifest() []byte {
	type line struct {
		Path string `json:"path"`
		Etag string `json:"etag"`
		Size int64  `json:"size_bytes"`
	}
	lines := make([]line, w.number)
	for i := range lines {
		lines[i] = line{"/" + w.store.cfg.Container + "/" + segmentName(w.name, i+1), w.sent[i+1], min(w.segment, w.off-int64(i)*w.segment)}
	}
	text, _ := json.Marshal(lines) // of strings and numbers: cannot fail
	return text
}

// looks is how often a dynamic manifest is looked at.
const looks = 5

// look waits a while until a dynamic manifest shows all segments to others:
// its content is what the listing of the container shows, which may lag
// behind. We read by the sizes that we know, so this is no error.
func (w *writer) look(ctx context.Context) {
	s := w.store
	var shown int64
	for try := range looks {
		if sleep(ctx, time.Duration(try)*200*time.Millisecond) != nil {
			return
		}
		h, err := s.ask(ctx, patience{tries: 1}, request{method: http.MethodHead, container: s.cfg.Container, name: w.name})
		if err == nil {
			shown = number(h, "Content-Length")
		}
		if shown == w.off {
			return
		}
	}
	s.cfg.Logger.WarnContext(ctx, "swift: the server does not show an object at its full length to others yet",
		"container", s.cfg.Container, "name", w.name, "length", w.off, "shown", shown)
}
