package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/catalog"
)

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), 500},
		{Errorf(418, "tea"), 418},
		{fmt.Errorf("around: %w", Errorf(415, "x")), 415},
		{fmt.Errorf("image: %w", fs.ErrNotExist), 404},
		{fmt.Errorf("image: %w", fs.ErrExist), 409},
		{fs.ErrPermission, 403},
		{fs.ErrInvalid, 400},
		{fmt.Errorf("writing: %w", syscall.ENOSPC), 413},
		{syscall.EDQUOT, 413},
		{&http.MaxBytesError{Limit: 5}, 413},
		{errors.ErrUnsupported, 501},
		{context.Canceled, 499},
		{context.DeadlineExceeded, 503},
		{fmt.Errorf("upload: %w", &format.Refusal{Reason: "backing file"}), 415},
		{&catalog.StatusError{}, 409},
		{&catalog.InUseError{}, 409},
		{&catalog.HeldError{}, 409},
		{&catalog.RecordError{Err: fs.ErrNotExist}, 500},
		{catalog.ErrGone, 410},
		{catalog.ErrNoData, 409},
		{catalog.ErrMarker, 400},
		{catalog.ErrConflict, 409},
		{catalog.ErrCompacted, 410},
		{catalog.ErrTooBig, 413},
		{catalog.ErrUnavailable, 503},
		{catalog.ErrFenced, 409},
		{catalog.ErrLeaseGone, 503},
		{fmt.Errorf("take: %w", &catalog.LossError{Overlay: "o", Gateway: "g"}), 409},
		{catalog.ErrClosed, 503},
		{ingest.ErrTooBig, 413},
		{ingest.ErrFormatsUnset, 400},
		{ingest.ErrStore, 400},
		{ingest.ErrBody, 400},
	} {
		if got := StatusOf(c.err); got != c.want {
			t.Errorf("StatusOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestErrorForms(t *testing.T) {
	for _, c := range []struct{ accept, contentType, body string }{
		{"", "text/html", "<h1>404 Not Found</h1>"},
		{"*/*", "text/html", "a &lt;b&gt; is gone<br /><br />"},
		{"application/json", "application/json", `{"message":"a <b> is gone<br /><br />\n\n\n","code":"404 Not Found","title":"Not Found","request_id":"req-1"}`},
		{"application/json, text/html;q=0.5", "application/json", `"code"`},
		{"text/html;q=0, application/json;q=0.1", "application/json", `"code"`},
		{"application/json, */*;q=0.1", "application/json", `"code"`},
		{"text/plain", "text/plain", "404 Not Found\n\na <b> is gone\n\n"},
		{"image/png", "text/plain", "404 Not Found"},
	} {
		r := httptest.NewRequest("GET", "/x", nil)
		r = r.WithContext(WithRequestID(r.Context(), "req-1", ""))
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		w := httptest.NewRecorder()
		WriteError(w, r, Errorf(404, "a <b> is gone"))
		if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, c.contentType) {
			t.Errorf("Accept %q: Content-Type %q, want %q", c.accept, got, c.contentType)
		}
		if !strings.Contains(w.Body.String(), c.body) || w.Code != 404 {
			t.Errorf("Accept %q: %d %q, want %q in it", c.accept, w.Code, w.Body, c.body)
		}
	}
	for _, err := range []error{fmt.Errorf("catalog: update: %w", Errorf(403, "not so")), fmt.Errorf("x: %w", &catalog.StatusError{ID: "i", From: "active", To: "saving"})} {
		w := httptest.NewRecorder()
		if WriteError(w, httptest.NewRequest("GET", "/", nil), err); strings.Contains(w.Body.String(), ": ") {
			t.Errorf("the wrapping is shown: %s", w.Body)
		}
	}
	w := httptest.NewRecorder()
	WriteError(w, httptest.NewRequest("GET", "/", nil), errors.New("secret inside"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("an unknown error shows its inside: %d %q", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	WriteError(w, httptest.NewRequest("GET", "/", nil), context.DeadlineExceeded)
	if w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %d %v", w.Code, w.Header())
	}
}

func TestRouter(t *testing.T) {
	say := func(s string) Handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			fmt.Fprintf(w, "%s id=%s rest=%s", s, r.PathValue("id"), r.PathValue("rest"))
			return nil
		}
	}
	rt, err := NewRouter([]Route{
		{Method: "GET", Pattern: "/a", Handle: say("list")},
		{Method: "POST", Pattern: "/a", Handle: say("make")},
		{Method: "GET", Pattern: "/a/{id}", Handle: say("show")},
		{Method: "GET", Pattern: "/a/detail", Handle: say("detail")},
		{Method: "PUT", Pattern: "/a/{id}/x", Handle: say("x")},
		{Method: "GET", Pattern: "/a/{id}/files/{rest...}", Handle: say("files")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/a", 200, "list id="}, {"POST", "/a", 200, "make"}, {"GET", "/a/", 404, ""}, {"HEAD", "/a", 405, ""},
		{"GET", "/a/1", 200, "show id=1"}, {"GET", "/a/detail", 200, "detail"}, {"PUT", "/a/detail/x", 200, "x id=detail"},
		{"GET", "/a/1%2F2", 200, "show id=1/2"}, {"GET", "/a/1/files/", 200, "rest="}, {"GET", "/a/1/files", 404, ""},
		{"GET", "/a/1/files/etc/os%2Frelease", 200, "rest=etc/os/release"}, {"BREW", "/a", 405, ""}, {"GET", "/", 404, ""}, {"GET", "//a", 404, ""},
	} {
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, w.Code, w.Body, c.status, c.body)
		}
		if c.status == 405 && w.Header().Get("Allow") != "GET, POST" {
			t.Errorf("%s %s: Allow %q", c.method, c.path, w.Header().Get("Allow"))
		}
	}
	if _, err := NewRouter([]Route{{Method: "GET", Pattern: "/a", Handle: say("")}, {Method: "GET", Pattern: "/a", Handle: say("")}}); err == nil {
		t.Error("a route twice is no error")
	}
}

func TestReadJSON(t *testing.T) {
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"a":"b"}`, 0}, {``, 400}, {` `, 400}, {`{"a":`, 400}, {`[1]`, 400}, {`{"a":"b","a":"c"}`, 400}, {`{"c":1}`, 400},
		{`{"a":"b"} x`, 400}, {"{\"a\":\"\xff\"}", 400}, {strings.Repeat("[", 100), 400}, {`{"a":"` + strings.Repeat("x", 200) + `"}`, 413},
		{`{"a":"\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}`, 0}, {`{"a":1}`, 400},
	} {
		var dst struct {
			A string `json:"a"`
		}
		err := ReadJSON(httptest.NewRequest("POST", "/", strings.NewReader(c.body)), 128, &dst)
		if got := StatusOf(err); (err == nil) != (c.want == 0) || err != nil && got != c.want {
			t.Errorf("%.60q: %v, want %d", c.body, err, c.want)
		}
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{}`, `[{"a":[1,2,{"b":null}]}]`, `{"a":1,"a":2}`, `"`, `[[`, `1e999`, `nul`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if CheckJSON(b) == nil && !json.Valid(b) {
			t.Errorf("%q passes and is no JSON", b)
		}
		if err := ParseJSON(b, &v); err != nil && StatusOf(err) != 400 {
			t.Errorf("%q: %v", b, err)
		}
	})
}

func TestGlobalID(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set(RequestIDHeader, strings.Repeat("x", 65))
	if _, err := GlobalID(r); StatusOf(err) != 431 {
		t.Errorf("a long id: %v, want 431", err)
	}
	r.Header.Set(RequestIDHeader, "req-7 evil")
	if id, err := GlobalID(r); id != "" || err != nil {
		t.Errorf("an id with a space: %q, %v", id, err)
	}
}

// TestKindIsNotShown checks that the sentinels that errors borrow are for
// programs.
func TestKindIsNotShown(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("transport tls is not built yet: %w", errors.ErrUnsupported),
		fmt.Errorf("image x has no data yet: %w", fs.ErrNotExist),
		fmt.Errorf("outer: %w", Errorf(409, "name taken: %w", fs.ErrExist)),
		&format.Refusal{Reason: "bit 9: unsupported operation"},
	} {
		w := httptest.NewRecorder()
		WriteError(w, httptest.NewRequest("GET", "/", nil), err)
		if s := w.Body.String(); strings.Contains(s, "unsupported operation") || strings.Contains(s, "file ") || strings.Contains(s, "outer") {
			t.Errorf("%v: %s", err, s)
		}
	}
}

func TestMisfit(t *testing.T) {
	var dst struct {
		Name string   `json:"name"`
		Size int      `json:"size"`
		Tags []string `json:"tags"`
	}
	for body, want := range map[string]string{
		`[]`:            "The request body must be an object; it is of type array.",
		`{"name": 5}`:   `"name" in the request body must be a string; it is of type number.`,
		`{"size": 1.5}`: `"size" in the request body must be a whole number that fits; it is of type number 1.5.`,
		`{"tags": {}}`:  `"tags" in the request body must be an array; it is of type object.`,
		`{"other": 1}`:  `The request body does not fit: unknown field "other".`,
	} {
		if err := ParseJSON([]byte(body), &dst); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
}
