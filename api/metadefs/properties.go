package metadefs

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func noPart(what, name, namespace string) error {
	return wire.Errorf(http.StatusNotFound, "There is no %s %.80s in namespace %s.", what, name, namespace)
}

func taken(what, name string) error {
	return wire.Errorf(http.StatusConflict, "A %s of the name %.80s exists already in this namespace.", what, name)
}

func property(n *catalog.Namespace, name string) int {
	return slices.IndexFunc(n.Properties, func(p catalog.MetaProperty) bool { return p.Name == name })
}

func addProperty(n *catalog.Namespace, name string, schema map[string]any) error {
	if err := checkName("property", name); err != nil {
		return err
	}
	if len([]rune(name)) > maxName {
		return wire.Errorf(http.StatusBadRequest, "The name of a property may have %d characters.", maxName)
	}
	if property(n, name) >= 0 {
		return taken("property", name)
	}
	text, err := json.Marshal(schema)
	n.Properties = append(n.Properties, catalog.MetaProperty{Name: name, Schema: text})
	return err
}

func (s *Server) listProperties(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_properties")
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, object{"properties": viewProperties(&n, "")})
}

// showProperty shows one, by the name that it has on a type of resource if the
// query names one.
func (s *Server) showProperty(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	n, err := s.lookup(r, "get_metadef_property")
	if err != nil {
		return err
	}
	if t := r.URL.Query().Get("resource_type"); t != "" {
		if err := s.allowIn(r.Context(), "get_metadef_resource_type", &n); err != nil {
			return err
		}
		at := association(&n, t)
		if at < 0 {
			return noPart("resource type", t, n.Name)
		}
		prefix := n.ResourceTypes[at].Prefix
		if prefix == nil || *prefix == "" || !strings.HasPrefix(name, *prefix) {
			return wire.Errorf(http.StatusNotFound, "Property %.80s does not begin with what those of resource type %.80s begin with.", name, t)
		}
		name = strings.TrimPrefix(name, *prefix)
	}
	at := property(&n, name)
	if at < 0 {
		return noPart("property", name, n.Name)
	}
	return wire.WriteJSON(w, http.StatusOK, viewProperty(&n.Properties[at]))
}

func (s *Server) addProperty(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "property", "created_at", "updated_at")
	if err != nil {
		return err
	}
	if _, err := s.lookup(r, "add_metadef_property"); err != nil {
		return err
	}
	name, _ := body["name"].(string)
	_, err = s.change(r, "metadef_property.create", "property", name, func(n *catalog.Namespace) error { return addProperty(n, name, body) })
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, body)
}

func (s *Server) updateProperty(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "property", "created_at", "updated_at")
	if err != nil {
		return err
	}
	if _, err := s.lookup(r, "modify_metadef_property"); err != nil {
		return err
	}
	old := r.PathValue("name")
	name, _ := body["name"].(string)
	_, err = s.change(r, "metadef_property.update", "property", name, func(n *catalog.Namespace) error {
		at := property(n, old)
		if at < 0 {
			return noPart("property", old, n.Name)
		}
		n.Properties = slices.Delete(n.Properties, at, at+1)
		return addProperty(n, name, body)
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, body)
}

func (s *Server) removeProperty(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	return s.removePart(w, r, "metadef_property.delete", "property", name, []string{"remove_metadef_property"}, func(n *catalog.Namespace) error {
		at := property(n, name)
		if at < 0 {
			return noPart("property", name, n.Name)
		}
		n.Properties = slices.Delete(n.Properties, at, at+1)
		return nil
	})
}

func (s *Server) removeProperties(w http.ResponseWriter, r *http.Request) error {
	return s.removePart(w, r, "metadef_namespace.delete_properties", "namespace", r.PathValue("namespace"), []string{"delete_metadef_namespace"}, func(n *catalog.Namespace) error {
		n.Properties = nil
		return nil
	})
}

// removePart takes something out of a namespace that is not protected.
func (s *Server) removePart(w http.ResponseWriter, r *http.Request, action, what, id string, rules []string, f func(*catalog.Namespace) error) error {
	if _, err := s.lookup(r, rules...); err != nil {
		return err
	}
	_, err := s.change(r, action, what, id, func(n *catalog.Namespace) error {
		before := *n
		if err := f(n); err != nil {
			return err
		}
		return protected(&before)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
