package metadefs

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func objectOf(n *catalog.Namespace, name string) int {
	return slices.IndexFunc(n.Objects, func(o catalog.MetaObject) bool { return o.Name == name })
}

// checkObject checks an object and the properties in it.
func (s *Server) checkObject(body map[string]any) error {
	if err := s.schemas.check("object", body); err != nil {
		return err
	}
	properties, _ := body["properties"].(map[string]any)
	for _, schema := range properties {
		if err := s.schemas.check("nameless", schema); err != nil {
			return err
		}
	}
	return nil
}

// newObject makes an object of a body that was checked.
func newObject(body map[string]any) (catalog.MetaObject, error) {
	var o catalog.MetaObject
	o.Name, _ = body["name"].(string)
	if err := checkName("object", o.Name); err != nil {
		return o, err
	}
	o.Description = optional(body, "description")
	required, _ := body["required"].([]any)
	for _, v := range required {
		name, _ := v.(string)
		o.Required = append(o.Required, name)
	}
	properties, _ := body["properties"].(map[string]any)
	if properties == nil {
		properties = map[string]any{}
	}
	var err error
	o.Properties, err = json.Marshal(properties)
	return o, err
}

func addObject(n *catalog.Namespace, body map[string]any, now time.Time) error {
	o, err := newObject(body)
	if err != nil {
		return err
	}
	if objectOf(n, o.Name) >= 0 {
		return taken("object", o.Name)
	}
	o.CreatedAt, o.UpdatedAt = now, now
	n.Objects = append(n.Objects, o)
	return nil
}

func (s *Server) listObjects(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_objects")
	if err != nil {
		return err
	}
	p, err := partPage(r.URL.Query(), len(n.Objects))
	if err != nil {
		return err
	}
	if p.limit == 0 && r.URL.Query().Get("limit") != "" {
		return wire.Errorf(http.StatusBadRequest, "limit param must be positive.")
	}
	some, err := cut(p, n.Objects, func(o catalog.MetaObject) string { return o.Name }, func(o catalog.MetaObject, key string) string {
		return partKey(key, o.Name, o.CreatedAt, o.UpdatedAt)
	})
	if err != nil {
		return noPart("object", p.marker, n.Name)
	}
	views := []object{}
	for i := range some {
		if s.allow(r.Context(), "get_metadef_object", target(&n)) == nil {
			views = append(views, viewObject(&n, &some[i], ""))
		}
	}
	return wire.WriteJSON(w, http.StatusOK, object{"objects": views, "schema": "v2/schemas/metadefs/objects"})
}

// partPage reads the parameters of a list of parts of a namespace, all of
// which it has where no limit is given.
func partPage(q url.Values, all int) (page, error) {
	if v := q.Get("visibility"); v != "" && v != "public" && v != "private" && v != "shared" {
		return page{}, wire.Errorf(http.StatusBadRequest, "Invalid visibility value: %.40s.", v)
	}
	return readPage(q, all, max(all, 1))
}

func partKey(key, name string, created, updated time.Time) string {
	switch key {
	case "name":
		return name
	case "updated_at":
		return instant(updated)
	}
	return instant(created)
}

func (s *Server) showObject(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_object")
	if err != nil {
		return err
	}
	at := objectOf(&n, r.PathValue("name"))
	if at < 0 {
		return noPart("object", r.PathValue("name"), n.Name)
	}
	return wire.WriteJSON(w, http.StatusOK, viewObject(&n, &n.Objects[at], ""))
}

func (s *Server) addObject(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "object", readOnlyNames()...)
	if err == nil {
		err = s.checkObject(body)
	}
	if err == nil {
		_, err = s.lookup(r, "add_metadef_object")
	}
	if err != nil {
		return err
	}
	name, _ := body["name"].(string)
	n, err := s.change(r, "metadef_object.create", "object", name, func(n *catalog.Namespace) error {
		return addObject(n, body, time.Now().UTC().Truncate(time.Microsecond))
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, echo(&n, name, body))
}

// echo writes an object to whoever wrote it: what they did not say is left out.
func echo(n *catalog.Namespace, name string, body map[string]any) object {
	view := viewObject(n, &n.Objects[objectOf(n, name)], "")
	for _, key := range []string{"required", "properties"} {
		if _, ok := body[key]; !ok {
			delete(view, key)
		}
	}
	return view
}

func (s *Server) updateObject(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "object", readOnlyNames()...)
	if err == nil {
		err = s.checkObject(body)
	}
	if err == nil {
		_, err = s.lookup(r, "modify_metadef_object")
	}
	if err != nil {
		return err
	}
	old := r.PathValue("name")
	name, _ := body["name"].(string)
	n, err := s.change(r, "metadef_object.update", "object", name, func(n *catalog.Namespace) error {
		at := objectOf(n, old)
		if at < 0 {
			return noPart("object", old, n.Name)
		}
		if name != old && objectOf(n, name) >= 0 {
			return taken("object", name)
		}
		o, err := newObject(body)
		o.CreatedAt, o.UpdatedAt = n.Objects[at].CreatedAt, time.Now().UTC().Truncate(time.Microsecond)
		n.Objects[at] = o
		return err
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, echo(&n, name, body))
}

func (s *Server) removeObject(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	return s.removePart(w, r, "metadef_object.delete", "object", name, []string{"delete_metadef_object"}, func(n *catalog.Namespace) error {
		at := objectOf(n, name)
		if at < 0 {
			return noPart("object", name, n.Name)
		}
		n.Objects = slices.Delete(n.Objects, at, at+1)
		return nil
	})
}

func (s *Server) removeObjects(w http.ResponseWriter, r *http.Request) error {
	return s.removePart(w, r, "metadef_namespace.delete_objects", "namespace", r.PathValue("namespace"), []string{"delete_metadef_namespace"}, func(n *catalog.Namespace) error {
		n.Objects = nil
		return nil
	})
}
