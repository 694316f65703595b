package api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A span is the part of an image's bytes that a download is about.
type span struct {
	off, n  int64
	partial bool // 206
}

// requestedSpan reads Range, or the Content-Range that old clients send in
// its place, for an image of size bytes.
func requestedSpan(h http.Header, size int64) (span, error) {
	if v := h.Values("Range"); len(v) > 0 {
		return parseRange(strings.Join(v, ","), size)
	}
	if v := h.Get("Content-Range"); v != "" {
		return parseContentRange(v, size)
	}
	return span{n: size}, nil
}

// parseRange reads "bytes=a-b", "bytes=a-" and "bytes=-n".
func parseRange(v string, size int64) (span, error) {
	if strings.Contains(v, ",") {
		return span{}, wire.Errorf(http.StatusBadRequest, "A request has several ranges; ask for one at a time.")
	}
	first, last, ok := cutRange(v, "bytes=")
	if !ok {
		return span{}, unsatisfiable("The Range header is not of the form bytes=first-last.", size)
	}
	if first == "" {
		n, ok := digits(last)
		if !ok || n == 0 || size == 0 {
			return span{}, unsatisfiable("The Range header asks for no bytes.", size)
		}
		n = min(n, size)
		return span{off: size - n, n: n, partial: true}, nil
	}
	a, okA := digits(first)
	b, okB := size-1, true
	if last != "" {
		b, okB = digits(last)
	}
	if !okA || !okB || last != "" && a > b {
		return span{}, unsatisfiable("The Range header is not of the form bytes=first-last.", size)
	}
	if a >= size {
		return span{}, unsatisfiable("The Range header begins behind the end of the image.", size)
	}
	return span{off: a, n: min(b, size-1) - a + 1, partial: true}, nil
}

// parseContentRange reads "bytes a-b/size" and "bytes a-b/*".
func parseContentRange(v string, size int64) (span, error) {
	spec, total, ok := strings.Cut(v, "/")
	first, last, okRange := cutRange(spec, "bytes ")
	a, okA := digits(first)
	b, okB := digits(last)
	t, okT := digits(total)
	if total == "*" {
		t, okT = size, true
	}
	if !ok || !okRange || !okA || !okB || !okT || a > b || b >= t || b >= size {
		return span{}, unsatisfiable("The Content-Range header does not fit the image.", size)
	}
	return span{off: a, n: b - a + 1, partial: true}, nil
}

func cutRange(v, unit string) (first, last string, ok bool) {
	v = strings.TrimSpace(v)
	if len(v) < len(unit) || !strings.EqualFold(v[:len(unit)], unit) {
		return "", "", false
	}
	return strings.Cut(strings.TrimSpace(v[len(unit):]), "-")
}

// digits reads a number without sign or space. One that is too big for an
// int64 is as good as the biggest.
func digits(s string) (int64, bool) {
	if s == "" || len(s) > 40 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = 1<<63 - 1
	}
	return n, true
}

func unsatisfiable(text string, size int64) error {
	return wire.Errorf(http.StatusRequestedRangeNotSatisfiable, "%s The image has %d bytes.", text, size).
		With("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
}
