package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
)

// An Error is an error that knows its HTTP status. Its text is what the user
// reads, so it names the cause, the object and the remedy.
type Error struct {
	Status int
	Header http.Header // sent with the answer; may be nil
	Err    error       // the text, and what errors.Is may ask for
}

// Errorf makes an Error. The format is that of fmt.Errorf, %w included.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Err: fmt.Errorf(format, args...)}
}

// With sets a header of the answer and returns e.
func (e *Error) With(key, value string) *Error {
	if e.Header == nil {
		e.Header = http.Header{}
	}
	e.Header.Set(key, value)
	return e
}

// Error returns the text for the user.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error inside.
func (e *Error) Unwrap() error { return e.Err }

// WriteError answers a request with err: the status that StatusOf finds, and
// a body in the form that the client accepts. Errors of the gateway itself
// (500) do not show their text, which may speak of its insides; the log does.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := AsError(err)
	for k, v := range e.Header {
		w.Header()[k] = v
	}
	text := e.message(r.Context())
	body, contentType := errorBody(acceptedForm(r), e.Status, text, RequestID(r.Context()))
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-MD5")
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		w.Write(body) // the client may be gone; nothing is left to tell it
	}
}

// Message returns the text of err that strangers may read.
func Message(ctx context.Context, err error) string { return AsError(err).message(ctx) }

func (e *Error) message(ctx context.Context) string {
	if e.Status == http.StatusInternalServerError {
		return "The gateway failed to do this; the log has the cause under the request id " + RequestID(ctx) + "."
	}
	return userText(e.Err)
}

// AsError returns err as an Error, with the status of StatusOf.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Status: e.Status, Header: e.Header, Err: err}
	}
	out := &Error{Status: StatusOf(err), Err: err}
	if out.Status == http.StatusServiceUnavailable {
		out.With("Retry-After", "5")
	}
	return out
}

// userText returns the part of an error that is for the user: where an error
// that names cause, object and remedy was wrapped on its way, the wrapping
// only tells how this program is built. The log has all of it.
func userText(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return WithoutKind(e.Error())
	}
	if text := textOfType(err); text != "" {
		return WithoutKind(text)
	}
	return WithoutKind(err.Error())
}

// WithoutKind returns the text of an error without the borrowed sentinel that
// often ends it: "…: unsupported operation" is for programs, and people have
// the status.
func WithoutKind(text string) string {
	for _, kind := range []error{errors.ErrUnsupported, fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid} {
		text = strings.TrimSuffix(text, ": "+kind.Error())
	}
	return text
}

// The three forms of an error body.
type form int

const (
	formHTML form = iota
	formJSON
	formPlain
)

// acceptedForm chooses the form by the Accept header: HTML when the client
// does not care, JSON when it prefers that, plain text when it takes neither.
func acceptedForm(r *http.Request) form {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return formHTML
	}
	htmlQ, jsonQ := quality(accept, "text/html"), quality(accept, "application/json")
	switch {
	case htmlQ > 0 && htmlQ >= jsonQ:
		return formHTML
	case jsonQ > 0:
		return formJSON
	}
	return formPlain
}

// quality returns how much an Accept header wants a media type: 0 is not.
// The most specific range that matches decides.
func quality(accept, media string) float64 {
	kind, _, _ := strings.Cut(media, "/")
	best, specific := 0.0, -1
	for part := range strings.SplitSeq(accept, ",") {
		rng, params, _ := strings.Cut(part, ";")
		level := 0
		switch strings.ToLower(strings.TrimSpace(rng)) {
		case media:
			level = 2
		case kind + "/*":
			level = 1
		case "*/*":
		default:
			continue
		}
		if level > specific {
			best, specific = qualityOf(params), level
		}
	}
	return best
}

func qualityOf(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(k), "q") {
			if q, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				return q
			}
		}
	}
	return 1
}

// errorBody writes an error in one of the three forms. The line breaks in the
// message are part of what clients of the Image API expect. Where the form
// has a place that such clients do not show, it holds the request id.
func errorBody(kind form, status int, text, request string) (body []byte, contentType string) {
	title := http.StatusText(status)
	code := strconv.Itoa(status) + " " + title
	switch kind {
	case formJSON:
		fields := struct {
			Message   string `json:"message"`
			Code      string `json:"code"`
			Title     string `json:"title"`
			RequestID string `json:"request_id,omitempty"`
		}{text + "<br /><br />\n\n\n", code, title, request}
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.Encode(fields) // strings always encode
		return []byte(strings.TrimSuffix(b.String(), "\n")), "application/json"
	case formPlain:
		s := code + "\n\n" + text + "\n\n"
		if request != "" {
			s += "Request id: " + request + "\n"
		}
		return []byte(s), "text/plain; charset=UTF-8"
	}
	s := "<html>\n <head>\n  <title>" + code + "</title>\n </head>\n <body>\n  <h1>" + code + "</h1>\n  " +
		escapeText(text) + "<br /><br />\n"
	if request != "" {
		s += "  <!-- " + request + " -->\n"
	}
	return []byte(s + " </body>\n</html>\n"), "text/html; charset=UTF-8"
}

// PrefersJSON tells whether the client asks for JSON by name, and for nothing
// before it.
func PrefersJSON(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	jsonQ := quality(accept, "application/json")
	return strings.Contains(accept, "json") && jsonQ > 0 && jsonQ >= quality(accept, "text/plain") && jsonQ >= quality(accept, "text/html")
}

// escapeText makes text fit to stand between tags. Quotes stay as they are:
// command lines take the tags off and show the rest as it is.
func escapeText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
