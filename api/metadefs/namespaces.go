package metadefs

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// A page says which part of a list is wanted.
type page struct {
	limit  int
	marker string
	sort   string
	desc   bool
}

// readPage reads the parameters of a list. none is the limit where none is
// given.
func readPage(q url.Values, none, most int) (page, error) {
	p := page{limit: none, marker: q.Get("marker"), sort: cmp.Or(q.Get("sort_key"), "created_at"), desc: true}
	bad := func(format string, args ...any) (page, error) {
		return p, wire.Errorf(http.StatusBadRequest, format, args...)
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return bad("limit must be a whole number from 0, not %.40q.", text)
		}
		p.limit = n
	}
	p.limit = min(p.limit, most)
	switch q.Get("sort_dir") {
	case "", "desc":
	case "asc":
		p.desc = false
	default:
		return bad("Invalid sort direction: %.40s. It must be asc or desc.", q.Get("sort_dir"))
	}
	if !slices.Contains([]string{"created_at", "updated_at", "namespace", "name", "display_name", "visibility", "owner", "protected"}, p.sort) {
		return bad("Cannot sort by %.40q.", p.sort)
	}
	return p, nil
}

// cut sorts a list and takes the page of it. A marker that names none is
// fs.ErrNotExist.
func cut[T any](p page, list []T, name func(T) string, key func(T, string) string) ([]T, error) {
	slices.SortStableFunc(list, func(a, b T) int {
		n := cmp.Or(strings.Compare(key(a, p.sort), key(b, p.sort)), strings.Compare(name(a), name(b)))
		if p.desc {
			n = -n
		}
		return n
	})
	if p.marker != "" {
		at := slices.IndexFunc(list, func(v T) bool { return name(v) == p.marker })
		if at < 0 {
			return nil, fs.ErrNotExist
		}
		list = list[at+1:]
	}
	return list[:min(p.limit, len(list))], nil
}

// instant is a time as text that sorts like it.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000") }

func namespaceKey(n catalog.Namespace, key string) string {
	switch key {
	case "updated_at":
		return instant(n.UpdatedAt)
	case "namespace", "name":
		return n.Name
	case "display_name":
		if n.DisplayName != nil {
			return *n.DisplayName
		}
		return ""
	case "visibility":
		return string(n.Visibility)
	case "owner":
		return n.Owner
	case "protected":
		return strconv.FormatBool(n.Protected)
	}
	return instant(n.CreatedAt)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	for _, rule := range []string{"get_metadef_namespaces", "list_metadef_resource_types"} {
		if err := s.allowAny(ctx, rule); err != nil {
			return err
		}
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return wire.Errorf(http.StatusBadRequest, "The query string is malformed: %v.", err)
	}
	p, err := readPage(q, s.cfg.Default, s.cfg.Max)
	if err != nil {
		return err
	}
	visibility := q.Get("visibility")
	if visibility != "" && visibility != "public" && visibility != "private" {
		return wire.Errorf(http.StatusBadRequest, "Invalid visibility value: %.40s. It must be public or private.", visibility)
	}
	all, err := s.cfg.Catalog.Namespaces(ctx)
	if err != nil {
		return err
	}
	var types []string
	if text := q.Get("resource_types"); text != "" {
		types = strings.Split(text, ",")
	}
	who := wire.IdentityFrom(ctx)
	all = slices.DeleteFunc(all, func(n catalog.Namespace) bool {
		return !sees(who, &n) || visibility != "" && string(n.Visibility) != visibility ||
			types != nil && !slices.ContainsFunc(n.ResourceTypes, func(a catalog.Association) bool { return slices.Contains(types, a.Name) })
	})
	some, err := cut(p, all, func(n catalog.Namespace) string { return n.Name }, namespaceKey)
	if err != nil {
		return noNamespace(p.marker)
	}
	views := []object{}
	for i := range some {
		if s.allow(ctx, "get_metadef_namespace", target(&some[i])) != nil {
			continue
		}
		v := viewNamespace(&some[i])
		if len(some[i].ResourceTypes) > 0 {
			v["resource_type_associations"] = viewAssociations(&some[i])
		}
		views = append(views, v)
	}
	q.Del("marker")
	body := object{"namespaces": views, "first": link(q), "schema": "/v2/schemas/metadefs/namespaces"}
	if len(some) > 0 && len(some) == p.limit {
		q.Set("marker", some[len(some)-1].Name)
		body["next"] = link(q)
	}
	return wire.WriteJSON(w, http.StatusOK, body)
}

func link(q url.Values) string {
	if len(q) == 0 {
		return root
	}
	return root + "?" + q.Encode()
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_namespace", "list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties", "get_metadef_tags")
	if err != nil {
		return err
	}
	prefix := ""
	if t := r.URL.Query().Get("resource_type"); t != "" {
		for _, a := range n.ResourceTypes {
			if a.Name == t && a.Prefix != nil {
				prefix = *a.Prefix
			}
		}
	}
	return wire.WriteJSON(w, http.StatusOK, viewWhole(&n, prefix))
}

// base sets what a body says of a namespace itself.
func base(n *catalog.Namespace, body map[string]any, project string) {
	n.Name, _ = body["namespace"].(string)
	n.DisplayName, n.Description = optional(body, "display_name"), optional(body, "description")
	n.Visibility = catalog.VisibilityPrivate
	if v, ok := body["visibility"].(string); ok {
		n.Visibility = catalog.Visibility(v)
	}
	n.Protected, _ = body["protected"].(bool)
	n.Owner = project
	if owner, ok := body["owner"].(string); ok {
		n.Owner = owner
	}
}

func optional(body map[string]any, key string) *string {
	if v, ok := body[key].(string); ok {
		return &v
	}
	return nil
}

func readOnlyNames() []string { return []string{"self", "schema", "created_at", "updated_at"} }

func (s *Server) create(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	body, err := s.read(r, "namespace", readOnlyNames()...)
	if err != nil {
		return err
	}
	rules := []string{"add_metadef_namespace"}
	for key, rule := range map[string]string{
		"resource_type_associations": "add_metadef_resource_type_association", "objects": "add_metadef_object",
		"properties": "add_metadef_property", "tags": "add_metadef_tag",
	} {
		if _, ok := body[key]; ok {
			rules = append(rules, rule)
		}
	}
	for _, rule := range rules {
		if err := s.allowAny(ctx, rule); err != nil {
			return err
		}
	}
	var n catalog.Namespace
	base(&n, body, wire.IdentityFrom(ctx).ProjectID)
	if err := checkName("namespace", n.Name); err != nil {
		return err
	}
	if err := s.parts(&n, body); err != nil {
		return err
	}
	n, err = s.cfg.Catalog.CreateNamespace(ctx, n)
	switch {
	case errors.Is(err, fs.ErrExist):
		return wire.Errorf(http.StatusConflict, "A namespace of the name %s exists already; names are unique.", body["namespace"])
	case errors.Is(err, catalog.ErrTooBig):
		return tooBig(body["namespace"].(string))
	case err != nil:
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "metadef_namespace.create", "namespace", n.Name)
	s.cfg.Notify.Definitions(ctx, "metadef_namespace.create", nil, &n)
	w.Header().Set("Location", s.cfg.BaseURL(r)+root+"/"+url.PathEscape(n.Name))
	view := viewNamespace(&n)
	for _, key := range []string{"resource_type_associations", "objects", "properties", "tags"} {
		if v, ok := body[key]; ok {
			view[key] = v
		}
	}
	return wire.WriteJSON(w, http.StatusCreated, view)
}

// checkName refuses a name that no path could have.
func checkName(what, name string) error {
	if strings.TrimSpace(name) == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return wire.Errorf(http.StatusBadRequest, "A %s needs a name, without control characters.", what)
	}
	return nil
}

// parts adds what came along with a namespace.
func (s *Server) parts(n *catalog.Namespace, body map[string]any) error {
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, v := range listOf(body["resource_type_associations"]) {
		if err := s.schemas.check("resource_type", v); err != nil {
			return err
		}
		if err := addAssociation(n, v, now); err != nil {
			return err
		}
	}
	for _, v := range listOf(body["objects"]) {
		if err := s.checkObject(v); err != nil {
			return err
		}
		if err := addObject(n, v, now); err != nil {
			return err
		}
	}
	properties, _ := body["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		v, _ := properties[name].(map[string]any)
		if err := s.schemas.check("nameless", v); err != nil {
			return err
		}
		if err := addProperty(n, name, v); err != nil {
			return err
		}
	}
	for _, v := range listOf(body["tags"]) {
		if err := s.schemas.check("tag", v); err != nil {
			return err
		}
		name, _ := v["name"].(string)
		if err := addTag(n, name, now); err != nil {
			return err
		}
	}
	return nil
}

func listOf(v any) []map[string]any {
	items, _ := v.([]any)
	out := make([]map[string]any, 0, len(items))
	for _, item := range items {
		m, _ := item.(map[string]any)
		out = append(out, m)
	}
	return out
}

func (s *Server) update(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "namespace", readOnlyNames()...)
	if err != nil {
		return err
	}
	if _, err := s.lookup(r, "modify_metadef_namespace"); err != nil {
		return err
	}
	name, _ := body["namespace"].(string)
	if err := checkName("namespace", name); err != nil {
		return err
	}
	n, err := s.change(r, "metadef_namespace.update", "namespace", name, func(n *catalog.Namespace) error {
		base(n, body, wire.IdentityFrom(r.Context()).ProjectID)
		return nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, viewNamespace(&n))
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	n, err := s.lookup(r, "delete_metadef_namespace")
	if err == nil {
		err = protected(&n)
	}
	if err != nil {
		return err
	}
	err = s.cfg.Catalog.DeleteNamespace(ctx, n.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return noNamespace(n.Name)
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "metadef_namespace.delete", "namespace", n.Name)
	s.cfg.Notify.Definitions(ctx, "metadef_namespace.delete", &n, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
