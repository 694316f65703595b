package api

import (
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/api/wire"
)

// The two media types of a PATCH: the words of a draft of JSON patch, and
// those of a later draft.
const (
	patchDraft4  = "application/openstack-images-v2.0-json-patch"
	patchDraft10 = "application/openstack-images-v2.1-json-patch"
)

// A change is one operation of a PATCH, checked as far as that is possible
// without the image.
type change struct {
	op     string   // add, remove, replace
	path   []string // one element, or two below locations
	value  any      // nil for remove
	draft4 bool
}

// parsePatch reads a PATCH in the dialect that its media type names.
func (c checker) parsePatch(contentType string, body []byte) ([]change, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != patchDraft4 && media != patchDraft10 {
		return nil, wire.Errorf(http.StatusUnsupportedMediaType,
			"The Content-Type %.100q is not one of the two that PATCH knows: %s, %s.", contentType, patchDraft4, patchDraft10).
			With("Accept-Patch", patchDraft4+", "+patchDraft10)
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil, wire.Errorf(http.StatusBadRequest, "Body expected in request.")
	}
	var any_ any
	if err := wire.ParseJSON(body, &any_); err != nil {
		return nil, err
	}
	list, ok := any_.([]any)
	if !ok {
		return nil, wire.Errorf(http.StatusBadRequest, "Request body must be a JSON array of operation objects.")
	}
	changes := make([]change, 0, len(list))
	for _, item := range list {
		obj, ok := item.(map[string]any)
		if !ok {
			return nil, wire.Errorf(http.StatusBadRequest, "Operations must be JSON objects.")
		}
		ch, err := c.parseChange(obj, media == patchDraft4)
		if err != nil {
			return nil, err
		}
		changes = append(changes, ch)
	}
	return changes, nil
}

func (c checker) parseChange(obj map[string]any, draft4 bool) (change, error) {
	op, pointer, err := operation(obj, draft4)
	if err != nil {
		return change{}, err
	}
	path, err := splitPointer(pointer)
	if err != nil {
		return change{}, err
	}
	want := 1
	if path[0] == "locations" && op != "replace" {
		want = 2
	}
	if len(path) != want {
		return change{}, badPointer(pointer, "does not fit this resource")
	}
	ch := change{op: op, path: path, draft4: draft4}
	if op != "remove" {
		value, ok := obj["value"]
		if !ok {
			return change{}, wire.Errorf(http.StatusBadRequest, "Operation %q requires a member named \"value\".", op)
		}
		ch.value = value
	}
	return ch, c.checkChange(ch)
}

// operation finds the verb and the pointer of an operation.
func operation(obj map[string]any, draft4 bool) (op, pointer string, err error) {
	var target any
	if draft4 {
		for _, verb := range []string{"add", "remove", "replace"} {
			if v, ok := obj[verb]; ok {
				if op != "" {
					return "", "", wire.Errorf(http.StatusBadRequest, `An operation has exactly one of "add", "remove" and "replace".`)
				}
				op, target = verb, v
			}
		}
	} else {
		op, _ = obj["op"].(string)
		target = obj["path"]
	}
	if op != "add" && op != "remove" && op != "replace" {
		return "", "", wire.Errorf(http.StatusBadRequest, "Invalid operation %.40q: it must be one of add, remove, replace.", op)
	}
	pointer, ok := target.(string)
	if !ok {
		return "", "", wire.Errorf(http.StatusBadRequest, "The operation %q does not say where: a path is missing.", op)
	}
	return op, pointer, nil
}

// splitPointer reads the part of JSON pointer that PATCH knows.
func splitPointer(p string) ([]string, error) {
	switch {
	case !strings.HasPrefix(p, "/"):
		return nil, badPointer(p, `does not start with "/"`)
	case strings.TrimSpace(p[1:]) == "":
		return nil, badPointer(p, "names no property")
	case strings.HasSuffix(p, "/"):
		return nil, badPointer(p, `ends with "/"`)
	case badEscape(p):
		return nil, badPointer(p, `contains a "~" that is neither "~0" nor "~1"`)
	}
	parts := strings.Split(p[1:], "/")
	for i, part := range parts {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		if parts[i] = strings.TrimSpace(part); parts[i] == "" {
			return nil, badPointer(p, `contains adjacent "/"`)
		}
	}
	return parts, nil
}

func badEscape(p string) bool {
	for i := range len(p) {
		if p[i] == '~' && (i+1 == len(p) || p[i+1] != '0' && p[i+1] != '1') {
			return true
		}
	}
	return false
}

func badPointer(p, what string) error {
	return wire.Errorf(http.StatusBadRequest, "The pointer %.300q %s.", p, what)
}

// checkChange refuses what no image allows.
func (c checker) checkChange(ch change) error {
	key := ch.path[0]
	if slices.Contains(readOnlyNames(), key) {
		return wire.Errorf(http.StatusForbidden, "Attribute '%s' is read-only.", key)
	}
	if err := checkReserved(key); err != nil {
		return err
	}
	if ch.op == "remove" {
		return nil
	}
	if len(ch.path) == 2 {
		return c.check(key, []any{ch.value})
	}
	return c.check(key, ch.value)
}

// checkReserved refuses the names that the server keeps for itself.
func checkReserved(key string) error {
	if slices.Contains(reservedNames(), key) || strings.HasPrefix(key, reservedPrefix) {
		return wire.Errorf(http.StatusForbidden, "Attribute '%.255s' is reserved.", key)
	}
	return nil
}

// isUUID matches ids.
func isUUID(re *regexp.Regexp, s string) bool { return utf8.ValidString(s) && re.MatchString(s) }
