package metadefs

import (
	"net/http"
	"slices"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func association(n *catalog.Namespace, name string) int {
	return slices.IndexFunc(n.ResourceTypes, func(a catalog.Association) bool { return a.Name == name })
}

func addAssociation(n *catalog.Namespace, body map[string]any, now time.Time) error {
	a := catalog.Association{Prefix: optional(body, "prefix"), PropertiesTarget: optional(body, "properties_target"), CreatedAt: now, UpdatedAt: now}
	a.Name, _ = body["name"].(string)
	if err := checkName("resource type", a.Name); err != nil {
		return err
	}
	if association(n, a.Name) >= 0 {
		return taken("resource type", a.Name)
	}
	n.ResourceTypes = append(n.ResourceTypes, a)
	return nil
}

func (s *Server) listTypes(w http.ResponseWriter, r *http.Request) error {
	if err := s.allowAny(r.Context(), "list_metadef_resource_types"); err != nil {
		return err
	}
	types, err := s.cfg.Catalog.ResourceTypes(r.Context())
	if err != nil {
		return err
	}
	views := make([]object, len(types))
	for i, t := range types {
		views[i] = object{"name": t.Name, "created_at": timeText(t.CreatedAt), "updated_at": timeText(t.CreatedAt)}
	}
	return wire.WriteJSON(w, http.StatusOK, object{"resource_types": views})
}

func (s *Server) listAssociations(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "list_metadef_resource_types")
	if err != nil {
		return err
	}
	if s.allow(r.Context(), "get_metadef_resource_type", target(&n)) != nil {
		n.ResourceTypes = nil
	}
	return wire.WriteJSON(w, http.StatusOK, object{"resource_type_associations": viewAssociations(&n)})
}

func (s *Server) associate(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "resource_type", "created_at", "updated_at")
	if err == nil {
		_, err = s.lookup(r, "add_metadef_resource_type_association")
	}
	if err != nil {
		return err
	}
	name, _ := body["name"].(string)
	n, err := s.change(r, "metadef_resource_type.create", "resource_type", name, func(n *catalog.Namespace) error {
		return addAssociation(n, body, time.Now().UTC().Truncate(time.Microsecond))
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, viewAssociation(&n.ResourceTypes[association(&n, name)]))
}

func (s *Server) dissociate(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("type")
	rules := []string{"remove_metadef_resource_type_association"}
	return s.removePart(w, r, "metadef_resource_type.delete", "resource_type", name, rules, func(n *catalog.Namespace) error {
		at := association(n, name)
		if at < 0 {
			return noPart("resource type", name, n.Name)
		}
		n.ResourceTypes = slices.Delete(n.ResourceTypes, at, at+1)
		return nil
	})
}
