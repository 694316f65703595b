package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"syscall"
)

// A MissingError says that nothing has the id or name that was given.
type MissingError struct{ Kind, Name string }

// Error returns the text for the user.
func (e *MissingError) Error() string { return fmt.Sprintf("there is no %s %q", e.Kind, e.Name) }

// Is makes it fs.ErrNotExist.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// An AmbiguousError says that several things have the name that was given.
type AmbiguousError struct {
	Kind, Name string
	IDs        []string
}

// Error returns the text for the user.
func (e *AmbiguousError) Error() string {
	some, more := e.IDs, ""
	if len(some) > 10 {
		some, more = some[:10], ", ..."
	}
	return fmt.Sprintf("%d %ss are called %q; say which by its id: %s%s", len(e.IDs), e.Kind, e.Name, strings.Join(some, ", "), more)
}

// Is makes it fs.ErrExist, as other conflicts.
func (e *AmbiguousError) Is(target error) bool { return target == fs.ErrExist }

// An UnreachedError says that no gateway answered.
type UnreachedError struct {
	URL string
	Err error
}

// Error returns the text for the user.
func (e *UnreachedError) Error() string {
	switch e.Err {
	case syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF:
		return fmt.Sprintf("the gateway at %s went away in the middle: %v", e.URL, e.Err)
	}
	return fmt.Sprintf("no gateway answers at %s: %v", e.URL, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachedError) Unwrap() error { return e.Err }

// An Error is what a gateway answered instead of doing what was asked.
type Error struct {
	Status    int
	Message   string // as the gateway said it
	RequestID string
	Request   string // "GET /v2/images"
}

// Error returns the gateway's own words.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the gateway answered %s to %s", statusText(e.Status), e.Request)
	}
	return e.Message
}

// Is lets callers ask in the words of the standard library.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Status == http.StatusNotFound || e.Status == http.StatusGone
	case fs.ErrPermission:
		return e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized
	case fs.ErrExist:
		return e.Status == http.StatusConflict
	case errors.ErrUnsupported:
		return e.Status == http.StatusNotImplemented
	}
	return false
}

func statusText(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// answerError reads an error in whichever form it came: JSON from a gateway,
// HTML or text from what stands before it.
func answerError(q request, resp *http.Response) error {
	e := &Error{
		Status:    resp.StatusCode,
		RequestID: resp.Header.Get("X-Openstack-Request-Id"),
		Request:   q.method + " " + q.path,
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return e // the status says enough
	}
	var body struct {
		Message string `json:"message"`
	}
	switch kind := resp.Header.Get("Content-Type"); {
	case json.Unmarshal(text, &body) == nil:
		e.Message = body.Message
	case strings.HasPrefix(kind, "text/plain"):
		e.Message = plainMessage(string(text))
	case strings.HasPrefix(kind, "text/html"):
		e.Message = regexp.MustCompile(`(?s)<(title|h1)>.*?</(title|h1)>|<[^>]*>`).ReplaceAllString(string(text), " ")
	}
	e.Message = strings.Join(strings.Fields(strings.ReplaceAll(e.Message, "<br />", " ")), " ")
	return e
}

// plainMessage drops the status line and the request id, which are shown
// anyway.
func plainMessage(text string) string {
	var keep []string
	for i, line := range strings.Split(text, "\n") {
		if i == 0 && len(line) > 3 && line[0] >= '0' && line[0] <= '9' || strings.HasPrefix(line, "Request id: ") {
			continue
		}
		keep = append(keep, line)
	}
	return strings.Join(keep, "\n")
}
