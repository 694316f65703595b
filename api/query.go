package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// queryValues reads a query string, in which semicolons part as "&" does.
func queryValues(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(strings.ReplaceAll(r.URL.RawQuery, ";", "&"))
	if err != nil {
		return nil, badQuery("The query string is malformed: %v.", err)
	}
	return values, nil
}

// parseQuery reads the query string of a list of images. Of a parameter that
// is given twice the last counts, except tag, sort_key and sort_dir.
func parseQuery(values url.Values, page Paging) (catalog.Query, error) {
	var q catalog.Query
	limit, err := parseLimit(values, page)
	if err != nil {
		return q, err
	}
	q.Limit, q.Marker = limit, last(values, "marker")
	if values.Has("marker") && q.Marker == "" {
		return q, noMarker("")
	}
	if q.Sort, q.OneDir, err = parseSort(values); err != nil {
		return q, err
	}
	for _, tag := range values["tag"] {
		q.Tags = append(q.Tags, strings.TrimSpace(tag))
	}
	for key, vs := range values {
		if !utf8.ValidString(key) || slices.ContainsFunc(vs, func(v string) bool { return !utf8.ValidString(v) }) {
			return q, badQuery("The query string is not UTF-8.")
		}
		if err := addFilter(&q, key, vs[len(vs)-1]); err != nil {
			return q, err
		}
	}
	return q, nil
}

func badQuery(format string, args ...any) error {
	return wire.Errorf(http.StatusBadRequest, format, args...)
}

func noMarker(id string) error {
	return badQuery("No image found with ID %.255s, which the list should begin after. Begin again without a marker.", id)
}

func last(values url.Values, key string) string {
	if vs := values[key]; len(vs) > 0 {
		return vs[len(vs)-1]
	}
	return ""
}

// parseLimit reads limit, cut to what a page may have.
func parseLimit(values url.Values, page Paging) (int, error) {
	if !values.Has("limit") {
		return page.Default, nil
	}
	text := strings.TrimSpace(last(values, "limit"))
	n, err := strconv.Atoi(text)
	if err != nil && strings.Trim(text, "0123456789") == "" && text != "" {
		n, err = page.Max, nil // more digits than an int has
	}
	if err != nil {
		return 0, badQuery("limit param must be an integer, not %.40q.", text)
	}
	if n < 0 {
		return 0, badQuery("limit param must be positive.")
	}
	return min(n, page.Max), nil
}

// parseSort reads both forms of sorting.
func parseSort(values url.Values) (keys []catalog.SortKey, oneDir bool, err error) {
	names, dirs := values["sort_key"], values["sort_dir"]
	if values.Has("sort") {
		if len(names)+len(dirs) > 0 {
			return nil, false, badQuery("Old and new sorting syntax cannot be combined.")
		}
		names, dirs = splitSort(last(values, "sort"))
	} else if len(dirs) > 1 && len(dirs) != len(names) {
		return nil, false, badQuery("Number of sort dirs does not match the number of sort keys.")
	}
	if len(dirs) == 0 {
		dirs = []string{"desc"}
	}
	oneDir = len(dirs) == 1
	if len(names) == 0 {
		names = []string{"created_at"}
	}
	for i, name := range names {
		dir := strings.TrimSpace(dirs[min(i, len(dirs)-1)])
		if name = strings.TrimSpace(name); !slices.Contains(sortKeys(), name) {
			return nil, false, badQuery("Invalid sort key: %.60s. It must be one of the following: %s.", name, strings.Join(sortKeys(), ", "))
		}
		if dir != "asc" && dir != "desc" {
			return nil, false, badQuery("Invalid sort direction: %.60s. It must be asc or desc.", dir)
		}
		keys = append(keys, catalog.SortKey{Column: catalog.Column(name), Desc: dir == "desc"})
	}
	return keys, oneDir, nil
}

// splitSort splits "name:asc,size".
func splitSort(s string) (names, dirs []string) {
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		name, dir, _ := strings.Cut(part, ":")
		if dir == "" {
			dir = "desc"
		}
		names, dirs = append(names, name), append(dirs, dir)
	}
	return names, dirs
}

// addFilter adds what one parameter asks for.
func addFilter(q *catalog.Query, key, v string) (err error) {
	switch key {
	case "limit", "marker", "sort", "sort_key", "sort_dir", "tag":
	case "deleted": // older clients say that they want no deleted images; nobody gets any
	case "visibility":
		q.Visibility = catalog.Visibility(v)
		if v != "" && v != "all" && !q.Visibility.Valid() {
			return badQuery("Invalid visibility value: %.60s.", v)
		}
	case "member_status":
		q.MemberStatus = catalog.MemberStatus(v)
		if v != "all" && !q.MemberStatus.Valid() {
			return badQuery("Invalid status: %.60s. It must be one of pending, accepted, rejected, all.", v)
		}
	case "changes-since":
		if v != "" {
			return badQuery(`The "changes-since" filter is no longer available on v2.`)
		}
	case "os_hidden":
		var hidden bool
		if hidden, err = parseBool(key, strings.ToLower(v)); hidden {
			q.Hidden = catalog.HiddenOnly
		}
	case "protected":
		var b bool
		b, err = parseBool(key, v)
		q.Protected = &b
	case "id", "name", "container_format", "disk_format", "status":
		err = addWords(q, key, v)
	case "created_at", "updated_at":
		err = addTime(q, key, v)
	case "owner":
		q.Owner = &v
	case "checksum":
		q.Checksum = &v
	case "os_hash_algo":
		q.HashAlgo = &v
	case "os_hash_value":
		q.HashValue = &v
	default:
		err = addNumberOrProperty(q, key, v)
	}
	return err
}

func parseBool(key, v string) (bool, error) {
	if v != "true" && v != "false" {
		return false, badQuery("Invalid value %.60q for '%s' filter. Valid values are 'true' or 'false'.", v, key)
	}
	return v == "true", nil
}

// addWords reads "word", "eq:word" and "in:a,b".
func addWords(q *catalog.Query, key, v string) error {
	words := []string{v}
	if op, rest, ok := strings.Cut(v, ":"); ok {
		var err error
		switch op {
		case "in":
			words, err = splitWords(rest)
		case "eq":
			words = []string{rest}
		default:
			err = badQuery("Unable to filter %s by unknown operator %.60q; it knows in and eq. "+
				`A value with a colon in it is written in:"a:b".`, key, op)
		}
		if err != nil {
			return err
		}
	}
	switch key {
	case "id":
		q.ID = words
	case "name":
		q.Name = words
	case "container_format":
		q.ContainerFormat = words
	case "disk_format":
		q.DiskFormat = words
	case "status":
		for _, w := range words {
			q.Status = append(q.Status, catalog.Status(w))
		}
	}
	return nil
}

// splitWords splits at commas. A word may stand in quotes, with \" for a
// quote in it, and then holds commas.
func splitWords(s string) ([]string, error) {
	var words []string
	for rest := s; ; {
		var word string
		if strings.HasPrefix(rest, `"`) {
			var ok bool
			if word, rest, ok = cutQuoted(rest[1:]); !ok {
				return nil, badQuery("The quotes in %.200q do not match.", s)
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			if word, rest = rest[:end], rest[end:]; strings.Contains(word, `"`) {
				return nil, badQuery("A quote in %.200q stands inside a word; quote the whole word.", s)
			}
		}
		words = append(words, word)
		if rest == "" {
			return words, nil
		}
		if rest[0] != ',' {
			return nil, badQuery("Something in %.200q stands between a quote and the comma.", s)
		}
		rest = rest[1:]
	}
}

func cutQuoted(s string) (word, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		case s[i] == '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// addTime reads "gt:2026-01-02T03:04:05Z" or a bare time.
func addTime(q *catalog.Query, key, v string) error {
	cond := catalog.TimeCond{Column: catalog.Column(key), Op: catalog.OpEQ}
	t, err := parseTime(v)
	if err != nil {
		op, rest, _ := strings.Cut(v, ":")
		cond.Op = catalog.Operator(op)
		switch cond.Op {
		case catalog.OpEQ, catalog.OpNEQ, catalog.OpGT, catalog.OpGTE, catalog.OpLT, catalog.OpLTE:
		default:
			return badQuery("Unable to filter %s by %.60q: it is neither a time in ISO 8601 nor one of gt, gte, lt, lte, eq, neq with a colon and a time.", key, v)
		}
		if t, err = parseTime(rest); err != nil {
			return badQuery("Invalid time value %.60q for %s: it must be in ISO 8601.", rest, key)
		}
	}
	cond.Time = t
	q.Times = append(q.Times, cond)
	return nil
}

// parseTime reads ISO 8601. Without a zone it is UTC.
func parseTime(s string) (t time.Time, err error) {
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00",
		"2006-01-02 15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02", "20060102T150405Z0700", "20060102",
	} {
		if t, err = time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return t, err
}

// addNumberOrProperty adds a comparison with a number, if key is a column of
// numbers, and otherwise one with a custom property.
func addNumberOrProperty(q *catalog.Query, key, v string) error {
	column, bound := key, ""
	if c, ok := strings.CutSuffix(key, "_min"); ok {
		column, bound = c, "min"
	} else if c, ok := strings.CutSuffix(key, "_max"); ok {
		column, bound = c, "max"
	}
	switch catalog.Column(column) {
	case catalog.ColumnSize, catalog.ColumnVirtualSize, catalog.ColumnMinDisk, catalog.ColumnMinRAM:
	default:
		if q.Properties == nil {
			q.Properties = map[string]string{}
		}
		q.Properties[key] = v
		return nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	if err != nil {
		return badQuery("Unable to filter %s by %.60q: it must be a whole number that 64 bits hold.", key, v)
	}
	r := catalog.Range{Column: catalog.Column(column), Min: &n, Max: &n}
	switch bound {
	case "min":
		r.Max = nil
	case "max":
		r.Min = nil
	}
	q.Ranges = append(q.Ranges, r)
	return nil
}
