package metadefs

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"

	"github.com/seed-478a8fee/platter/api/notify"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

const (
	// maxBody bounds a request: a namespace may come with all its parts.
	maxBody = 1 << 20

	root = "/v2/metadefs/namespaces"
)

type object = map[string]any

// A Config says what a Server works with. All but Logger and limits are
// required.
type Config struct {
	Catalog *catalog.Catalog
	Policy  wire.Policy
	BaseURL func(r *http.Request) string // begins links to this server

	Notify *notify.Notifier // nil: nobody is told of changes

	Default int          // namespaces on a page; 0 is 25
	Max     int          // at most; 0 is 1000
	Logger  *slog.Logger // nil is silence
}

// A Server answers the calls below /v2/metadefs and /v2/schemas/metadefs.
type Server struct {
	cfg     Config
	schemas *schemas
}

// New builds a Server.
func New(cfg Config) (*Server, error) {
	cfg.Default, cfg.Max = cmp.Or(cfg.Default, 25), cmp.Or(cfg.Max, 1000)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg}
	var err error
	s.schemas, err = newSchemas()
	return s, err
}

// Routes returns the rows of the table of the API that are answered here.
func (s *Server) Routes() []wire.Route {
	const one = root + "/{namespace}"
	rows := []wire.Route{
		{Method: "GET", Pattern: root, Handle: bodiless(s.list), Rule: "get_metadef_namespaces"},
		{Method: "POST", Pattern: root, Handle: s.create, Rule: "add_metadef_namespace"},
		{Method: "GET", Pattern: one, Handle: bodiless(s.show), Rule: "get_metadef_namespace"},
		{Method: "PUT", Pattern: one, Handle: s.update, Rule: "modify_metadef_namespace"},
		{Method: "DELETE", Pattern: one, Handle: bodiless(s.remove), Rule: "delete_metadef_namespace"},

		{Method: "GET", Pattern: one + "/properties", Handle: bodiless(s.listProperties), Rule: "get_metadef_properties"},
		{Method: "POST", Pattern: one + "/properties", Handle: s.addProperty, Rule: "add_metadef_property"},
		{Method: "DELETE", Pattern: one + "/properties", Handle: bodiless(s.removeProperties), Rule: "delete_metadef_namespace"},
		{Method: "GET", Pattern: one + "/properties/{name}", Handle: bodiless(s.showProperty), Rule: "get_metadef_property"},
		{Method: "PUT", Pattern: one + "/properties/{name}", Handle: s.updateProperty, Rule: "modify_metadef_property"},
		{Method: "DELETE", Pattern: one + "/properties/{name}", Handle: bodiless(s.removeProperty), Rule: "remove_metadef_property"},

		{Method: "GET", Pattern: one + "/objects", Handle: bodiless(s.listObjects), Rule: "get_metadef_objects"},
		{Method: "POST", Pattern: one + "/objects", Handle: s.addObject, Rule: "add_metadef_object"},
		{Method: "DELETE", Pattern: one + "/objects", Handle: bodiless(s.removeObjects), Rule: "delete_metadef_namespace"},
		{Method: "GET", Pattern: one + "/objects/{name}", Handle: bodiless(s.showObject), Rule: "get_metadef_object"},
		{Method: "PUT", Pattern: one + "/objects/{name}", Handle: s.updateObject, Rule: "modify_metadef_object"},
		{Method: "DELETE", Pattern: one + "/objects/{name}", Handle: bodiless(s.removeObject), Rule: "delete_metadef_object"},

		{Method: "GET", Pattern: one + "/tags", Handle: bodiless(s.listTags), Rule: "get_metadef_tags"},
		{Method: "POST", Pattern: one + "/tags", Handle: s.setTags, Rule: "add_metadef_tags"},
		{Method: "DELETE", Pattern: one + "/tags", Handle: bodiless(s.removeTags), Rule: "delete_metadef_tags"},
		{Method: "GET", Pattern: one + "/tags/{name}", Handle: bodiless(s.showTag), Rule: "get_metadef_tag"},
		{Method: "POST", Pattern: one + "/tags/{name}", Handle: bodiless(s.addTag), Rule: "add_metadef_tag"},
		{Method: "PUT", Pattern: one + "/tags/{name}", Handle: s.updateTag, Rule: "modify_metadef_tag"},
		{Method: "DELETE", Pattern: one + "/tags/{name}", Handle: bodiless(s.removeTag), Rule: "delete_metadef_tag"},

		{Method: "GET", Pattern: "/v2/metadefs/resource_types", Handle: bodiless(s.listTypes), Rule: "list_metadef_resource_types"},
		{Method: "GET", Pattern: one + "/resource_types", Handle: bodiless(s.listAssociations), Rule: "get_metadef_resource_type"},
		{Method: "POST", Pattern: one + "/resource_types", Handle: s.associate, Rule: "add_metadef_resource_type_association"},
		{Method: "DELETE", Pattern: one + "/resource_types/{type}", Handle: bodiless(s.dissociate), Rule: "remove_metadef_resource_type_association"},
	}
	for name := range s.schemas.served {
		rows = append(rows, wire.Route{Method: "GET", Pattern: "/v2/schemas/metadefs/" + name, Handle: bodiless(s.schemas.serve(name))})
	}
	return rows
}

// bodiless is for handlers that take no body and refuse one.
func bodiless(h wire.Handler) wire.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := wire.NoBody(r); err != nil {
			return err
		}
		return h(w, r)
	}
}

// target describes a namespace to the policy.
func target(n *catalog.Namespace) wire.Target {
	return wire.Target{Kind: "namespace", ID: n.Name, Owner: n.Owner, Visibility: string(n.Visibility)}
}

func (s *Server) allow(ctx context.Context, rule string, t wire.Target) error {
	return s.cfg.Policy.Allow(ctx, wire.IdentityFrom(ctx), rule, t)
}

// allowAny asks the policy about something that is in no namespace.
func (s *Server) allowAny(ctx context.Context, rule string) error {
	return s.allow(ctx, rule, wire.Target{Kind: "namespaces", Owner: wire.IdentityFrom(ctx).ProjectID})
}

// allowIn asks the policy about a namespace that is there. Who may not even
// see it learns that there is none.
func (s *Server) allowIn(ctx context.Context, rule string, n *catalog.Namespace) error {
	err := s.allow(ctx, rule, target(n))
	if err != nil && (rule == "get_metadef_namespace" || s.allow(ctx, "get_metadef_namespace", target(n)) != nil) {
		return noNamespace(n.Name)
	}
	return err
}

func noNamespace(name string) error {
	return wire.Errorf(http.StatusNotFound, "Namespace %.80s not found.", name)
}

// sees tells whether the caller may know of a namespace.
func sees(who wire.Identity, n *catalog.Namespace) bool {
	return who.Admin || n.Visibility == catalog.VisibilityPublic || n.Owner != "" && n.Owner == who.ProjectID
}

// lookup returns the namespace that the path names, if the policy allows the
// caller what the rules name.
func (s *Server) lookup(r *http.Request, rules ...string) (catalog.Namespace, error) {
	ctx, name := r.Context(), r.PathValue("namespace")
	n, err := s.cfg.Catalog.Namespace(ctx, name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !sees(wire.IdentityFrom(ctx), &n) {
		return n, noNamespace(name)
	}
	for _, rule := range rules {
		if err == nil {
			err = s.allowIn(ctx, rule, &n)
		}
	}
	return n, err
}

// change updates the namespace that the path names. what and id are for the
// audit.
func (s *Server) change(r *http.Request, action, what, id string, f func(*catalog.Namespace) error) (catalog.Namespace, error) {
	ctx, name := r.Context(), r.PathValue("namespace")
	var before catalog.Namespace
	n, err := s.cfg.Catalog.UpdateNamespace(ctx, name, func(n *catalog.Namespace) error {
		before = n.Clone()
		return f(n)
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return n, noNamespace(name) // deleted since
	case errors.Is(err, fs.ErrExist):
		return n, wire.Errorf(http.StatusConflict, "A namespace of that name exists already; names are unique.")
	case errors.Is(err, catalog.ErrTooBig):
		return n, tooBig(name)
	case err != nil:
		return n, err
	}
	wire.Audit(ctx, s.cfg.Logger, action, what, id)
	s.cfg.Notify.Definitions(ctx, action, &before, &n)
	return n, nil
}

func tooBig(name string) error {
	return wire.Errorf(http.StatusRequestEntityTooLarge, "Namespace %.80s would have more in it than one may; divide it.", name)
}

// protected refuses to delete a part of a protected namespace.
func protected(n *catalog.Namespace) error {
	if n.Protected {
		return wire.Errorf(http.StatusForbidden, "Namespace %s is protected, and nothing of it can be deleted. Set protected to false first.", n.Name)
	}
	return nil
}

// read reads a body that must be an object and fit a schema.
func (s *Server) read(r *http.Request, schema string, readOnly ...string) (map[string]any, error) {
	text, err := wire.ReadBody(r, maxBody)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, wire.Errorf(http.StatusBadRequest, "Body expected in request.")
	}
	var body map[string]any
	if err := wire.ParseJSON(text, &body); err != nil {
		return nil, err
	}
	if body == nil {
		return nil, wire.Errorf(http.StatusBadRequest, "The request body must be a JSON object.")
	}
	for _, key := range readOnly {
		if _, ok := body[key]; ok {
			return nil, wire.Errorf(http.StatusForbidden, "Attribute '%s' is read-only.", key)
		}
	}
	return body, s.schemas.check(schema, body)
}
