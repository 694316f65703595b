package platter

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// defaultLimit is how many records a page has if nobody says; maxLimit is the
// most.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// query checks that a request has only the parameters that are known, each
// once.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wire.Errorf(http.StatusBadRequest, "The query is malformed: %w", err)
	}
	for key, values := range q {
		if !slices.Contains(known, key) {
			if len(known) == 0 {
				return nil, badRequest("There is no parameter %.64q here, nor any other.", key)
			}
			return nil, badRequest("There is no parameter %.64q here; there are %q.", key, known)
		}
		if len(values) != 1 {
			return nil, badRequest("The parameter %s is there %d times.", key, len(values))
		}
	}
	return q, nil
}

// number returns a parameter that is a number in [low, high], or def.
func number(q url.Values, key string, def, low, high int64) (int64, error) {
	text := q.Get(key)
	if text == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, badRequest("%s=%.32q is not a number from %d to %d.", key, text, low, high)
	}
	return n, nil
}

// page cuts one page out of a list that is in its final order, and returns
// the address of the next one, or "".
func page[T any](r *http.Request, q url.Values, list []T, id func(T) string) ([]T, string, error) {
	limit, err := number(q, "limit", defaultLimit, 0, 1<<31)
	if err != nil {
		return nil, "", err
	}
	limit = min(limit, maxLimit)
	if marker := q.Get("marker"); marker != "" {
		i := slices.IndexFunc(list, func(t T) bool { return id(t) == marker })
		if i < 0 {
			return nil, "", badRequest("The marker %.64q is not in the list.", marker)
		}
		list = list[i+1:]
	}
	if int64(len(list)) <= limit || limit == 0 {
		return list[:min(int64(len(list)), limit)], "", nil
	}
	list = list[:limit]
	q.Set("marker", id(list[limit-1]))
	return list, r.URL.Path + "?" + q.Encode(), nil
}

func viewer(who wire.Identity) catalog.Viewer {
	return catalog.Viewer{Project: who.ProjectID, Admin: who.Admin}
}

// owns tells whether somebody may see what owner owns.
func owns(who wire.Identity, owner string) bool {
	return who.Admin || owner != "" && owner == who.ProjectID
}

// ownerFilter returns the owner whose records a listing is limited to, or nil.
func ownerFilter(who wire.Identity) *string {
	if who.Admin {
		return nil
	}
	return &who.ProjectID
}
