package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxJSON is the usual limit of a JSON body in bytes.
	MaxJSON = 1 << 20
	// MaxDepth is how deep JSON may nest. What we read needs three levels.
	MaxDepth = 32
)

// ReadBody reads a body of at most limit bytes; a longer one is 413.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLong(limit)
	}
	if r.Body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(&hurried{r.Body, time.Now().Add(Patience)}, limit+1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, Errorf(http.StatusRequestTimeout, "The body of %d bytes at most did not come within %v: %w", limit, Patience, err)
	}
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, "The body broke off: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, tooLong(limit)
	}
	return b, nil
}

// hurried is a body that must have come by a certain time: who sends an image
// may take hours, who sends a few words may not.
type hurried struct {
	r  io.Reader
	by time.Time
}

func (h *hurried) Read(p []byte) (int, error) {
	if time.Now().After(h.by) {
		return 0, os.ErrDeadlineExceeded
	}
	return h.r.Read(p)
}

func tooLong(limit int64) error {
	return Errorf(http.StatusRequestEntityTooLarge, "The body is longer than %d bytes, which is the limit for this request.", limit)
}

// ReadJSON reads a JSON body of at most limit bytes into dst. No body,
// malformed JSON, a field that dst does not have, a key that is there twice,
// bytes that are not UTF-8 and nesting deeper than MaxDepth are all 400.
func ReadJSON(r *http.Request, limit int64, dst any) error {
	b, err := ReadBody(r, limit)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return Errorf(http.StatusBadRequest, "Body expected in request.")
	}
	return ParseJSON(b, dst)
}

// ParseJSON is ReadJSON for bytes already read. Numbers in an any are
// json.Number.
func ParseJSON(b []byte, dst any) error {
	if err := CheckJSON(b); err != nil {
		return Errorf(http.StatusBadRequest, "Malformed JSON in request body: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if err := dec.Decode(dst); err != nil {
		return misfit(err)
	}
	return nil
}

// misfit says in the words of JSON what the decoder says in those of Go.
func misfit(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return Errorf(http.StatusBadRequest, "The request body does not fit: %s.", strings.TrimPrefix(err.Error(), "json: "))
	}
	where := "The request body"
	if wrong.Field != "" {
		where = strconv.Quote(wrong.Field) + " in the request body"
	}
	return Errorf(http.StatusBadRequest, "%s must be %s; it is of type %s.", where, jsonName(wrong.Type), wrong.Value)
}

func jsonName(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number that fits"
}

// CheckJSON tells whether b is exactly one JSON value that is UTF-8, has no
// key twice in one object and nests at most MaxDepth deep.
func CheckJSON(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	if err := checkDepth(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := checkValue(dec); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// checkDepth counts brackets outside strings, before anything recursive runs.
func checkDepth(b []byte) error {
	depth, inString, escaped := 0, false, false
	for _, c := range b {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			if depth++; depth > MaxDepth {
				return errors.New("it nests deeper than " + strconv.Itoa(MaxDepth) + " levels")
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

func checkValue(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	keys := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if keys[name] {
				return errors.New("the key " + strconv.Quote(name) + " is there twice")
			}
			keys[name] = true
		}
		if err := checkValue(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// NoBody refuses a body where none belongs.
func NoBody(r *http.Request) error {
	if r.ContentLength > 0 {
		return bodyNotExpected()
	}
	if r.ContentLength < 0 && r.Body != nil {
		if n, _ := io.ReadFull(r.Body, make([]byte, 1)); n > 0 {
			return bodyNotExpected()
		}
	}
	return nil
}

func bodyNotExpected() error {
	return Errorf(http.StatusBadRequest, "A body is not expected with this request.")
}

// WriteJSON answers with v as JSON.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body) // a client that is gone is no error of ours
	return nil
}
