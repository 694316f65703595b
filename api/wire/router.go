package wire

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Handler answers a request, or returns an error and has written nothing.
type Handler func(w http.ResponseWriter, r *http.Request) error

// A Route is one row of a table: METHOD, a pattern, and who answers.
//
// A pattern is a path whose elements are literal or "{name}", which matches
// one element and is found with r.PathValue(name). The last element may be
// "{name...}", which matches the rest, "" included.
type Route struct {
	Method  string
	Pattern string
	Handle  Handler
	Rule    string // the policy rule the handler asks about; for the reader and for documents
}

// A Router finds the route of a request. A path that no pattern matches is
// 404; one that only other methods know is 405 with Allow. A trailing slash
// is a path of its own, and HEAD is a method of its own.
type Router struct {
	routes []Route
	root   node
}

// A node is one element deep in the tree of patterns.
type node struct {
	literal map[string]*node
	param   *node // "{name}"
	rest    *node // "{name...}"
	methods map[string]int
}

// NewRouter builds a Router. A pattern that is malformed or there twice is an
// error.
func NewRouter(routes []Route) (*Router, error) {
	rt := &Router{routes: routes}
	for i, route := range routes {
		if !strings.HasPrefix(route.Pattern, "/") || route.Handle == nil {
			return nil, fmt.Errorf("route %s %q: a pattern starts with / and has a handler", route.Method, route.Pattern)
		}
		n := rt.root.descend(strings.Split(route.Pattern[1:], "/"))
		if _, taken := n.methods[route.Method]; taken {
			return nil, fmt.Errorf("route %s %s is in the table twice", route.Method, route.Pattern)
		}
		if n.methods == nil {
			n.methods = map[string]int{}
		}
		n.methods[route.Method] = i
	}
	return rt, nil
}

func (n *node) descend(elements []string) *node {
	for _, e := range elements {
		switch {
		case strings.HasPrefix(e, "{") && strings.HasSuffix(e, "...}"):
			n = child(&n.rest)
		case strings.HasPrefix(e, "{"):
			n = child(&n.param)
		default:
			if n.literal == nil {
				n.literal = map[string]*node{}
			}
			next := n.literal[e]
			if next == nil {
				next = &node{}
				n.literal[e] = next
			}
			n = next
		}
	}
	return n
}

func child(n **node) *node {
	if *n == nil {
		*n = &node{}
	}
	return *n
}

// find returns the node that elements lead to. Literals win over parameters.
func (n *node) find(elements []string) *node {
	if len(elements) == 0 {
		if n.methods != nil {
			return n
		}
		return nil
	}
	if next := n.literal[elements[0]]; next != nil {
		if hit := next.find(elements[1:]); hit != nil {
			return hit
		}
	}
	if n.param != nil && elements[0] != "" {
		if hit := n.param.find(elements[1:]); hit != nil {
			return hit
		}
	}
	return n.rest
}

// Routes returns the table.
func (rt *Router) Routes() []Route { return slices.Clone(rt.routes) }

// Allowed returns the methods that path has, sorted; none means no such path.
func (rt *Router) Allowed(path string) []string {
	n := rt.root.find(strings.Split(strings.TrimPrefix(path, "/"), "/"))
	if n == nil {
		return nil
	}
	var methods []string
	for m := range n.methods {
		methods = append(methods, m)
	}
	slices.Sort(methods)
	return methods
}

// Find returns the route of a request and sets its path values. The error is
// of status 404 or 405.
func (rt *Router) Find(r *http.Request) (Route, error) { return rt.FindAt(r, r.URL.EscapedPath()) }

// FindAt is Find as if the request were for path, which is escaped.
func (rt *Router) FindAt(r *http.Request, path string) (Route, error) {
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	n := rt.root.find(elements)
	if n == nil {
		return Route{}, Errorf(http.StatusNotFound, "The resource could not be found.")
	}
	i, ok := n.methods[r.Method]
	if !ok {
		allow := strings.Join(rt.Allowed(path), ", ")
		return Route{}, Errorf(http.StatusMethodNotAllowed,
			"The method %.20s is not allowed for this resource; it knows %s.", r.Method, allow).With("Allow", allow)
	}
	route := rt.routes[i]
	return route, setPathValues(r, route.Pattern, elements)
}

func setPathValues(r *http.Request, pattern string, elements []string) error {
	for i, p := range strings.Split(pattern[1:], "/") {
		if !strings.HasPrefix(p, "{") {
			continue
		}
		name, value := strings.Trim(p, "{}"), elements[i]
		if rest, ok := strings.CutSuffix(name, "..."); ok {
			name, value = rest, strings.Join(elements[i:], "/")
		}
		plain, err := url.PathUnescape(value)
		if err != nil {
			return Errorf(http.StatusBadRequest, "the path has a bad escape: %w", err)
		}
		if !utf8.ValidString(plain) {
			return Errorf(http.StatusBadRequest, "The path is not UTF-8.")
		}
		r.SetPathValue(name, plain)
	}
	return nil
}

// ServeHTTP finds the handler, calls it, and answers its error.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, err := rt.Find(r)
	if err == nil {
		NoteRoute(w, route)
		err = route.Handle(w, r)
	}
	Finish(w, r, err)
}

// Finish answers err, if there is one and the answer has not begun. When it
// has begun, the connection is cut, so that the client notices.
func Finish(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	rec, ok := w.(*Recorder)
	if ok {
		rec.Err = err
		if rec.Status != 0 {
			panic(http.ErrAbortHandler)
		}
	}
	WriteError(w, r, err)
}

// NoteRoute writes down which route answers, for the log and the metrics.
func NoteRoute(w http.ResponseWriter, route Route) {
	if rec, ok := w.(*Recorder); ok {
		rec.Route = route.Method + " " + route.Pattern
	}
}
