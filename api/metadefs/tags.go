package metadefs

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// tagOf finds a tag; names are the same if they differ in case only.
func tagOf(n *catalog.Namespace, name string) int {
	return slices.IndexFunc(n.Tags, func(t catalog.MetaTag) bool { return strings.EqualFold(t.Name, name) })
}

func addTag(n *catalog.Namespace, name string, now time.Time) error {
	if err := checkName("tag", name); err != nil {
		return err
	}
	if tagOf(n, name) >= 0 {
		return taken("tag", name)
	}
	n.Tags = append(n.Tags, catalog.MetaTag{Name: name, CreatedAt: now, UpdatedAt: now})
	return nil
}

func (s *Server) listTags(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_tags")
	if err != nil {
		return err
	}
	p, err := partPage(r.URL.Query(), len(n.Tags))
	if err != nil {
		return err
	}
	some, err := cut(p, n.Tags, func(t catalog.MetaTag) string { return t.Name }, func(t catalog.MetaTag, key string) string {
		return partKey(key, t.Name, t.CreatedAt, t.UpdatedAt)
	})
	if err != nil {
		return noPart("tag", p.marker, n.Name)
	}
	return wire.WriteJSON(w, http.StatusOK, object{"tags": tagNames(some)})
}

func (s *Server) showTag(w http.ResponseWriter, r *http.Request) error {
	n, err := s.lookup(r, "get_metadef_tag")
	if err != nil {
		return err
	}
	at := tagOf(&n, r.PathValue("name"))
	if at < 0 {
		return noPart("tag", r.PathValue("name"), n.Name)
	}
	return wire.WriteJSON(w, http.StatusOK, viewTag(&n.Tags[at]))
}

func (s *Server) addTag(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	_, err := s.lookup(r)
	if err == nil {
		err = s.schemas.check("tag", map[string]any{"name": name})
	}
	if err == nil {
		_, err = s.lookup(r, "add_metadef_tag")
	}
	if err != nil {
		return err
	}
	n, err := s.change(r, "metadef_tag.create", "tag", name, func(n *catalog.Namespace) error {
		return addTag(n, name, time.Now().UTC().Truncate(time.Microsecond))
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, viewTag(&n.Tags[tagOf(&n, name)]))
}

// setTags replaces the tags of a namespace, or adds to them.
func (s *Server) setTags(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "tags", "created_at", "updated_at")
	if err == nil {
		_, err = s.lookup(r, "add_metadef_tags")
	}
	if err != nil {
		return err
	}
	more := isTrue(r.Header.Get("X-Openstack-Append"))
	var added []catalog.MetaTag
	_, err = s.change(r, "metadef_tag.create", "namespace", r.PathValue("namespace"), func(n *catalog.Namespace) error {
		now := time.Now().UTC().Truncate(time.Microsecond)
		if !more {
			n.Tags = nil
		}
		from := len(n.Tags)
		for _, v := range listOf(body["tags"]) {
			name, _ := v["name"].(string)
			if err := addTag(n, name, now); err != nil {
				return err
			}
		}
		added = slices.Clone(n.Tags[from:])
		return nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, object{"tags": tagNames(added)})
}

// isTrue reads a header as OpenStack's services do.
func isTrue(text string) bool {
	text = strings.ToLower(strings.TrimSpace(text))
	ok, err := strconv.ParseBool(text)
	return err == nil && ok || text == "on" || text == "yes" || text == "y"
}

func (s *Server) updateTag(w http.ResponseWriter, r *http.Request) error {
	body, err := s.read(r, "tag", "created_at", "updated_at")
	if err == nil {
		_, err = s.lookup(r, "modify_metadef_tag")
	}
	if err != nil {
		return err
	}
	old := r.PathValue("name")
	name, _ := body["name"].(string)
	n, err := s.change(r, "metadef_tag.update", "tag", name, func(n *catalog.Namespace) error {
		at := tagOf(n, old)
		if at < 0 {
			return noPart("tag", old, n.Name)
		}
		if other := tagOf(n, name); other >= 0 && other != at {
			return taken("tag", name)
		}
		if err := checkName("tag", name); err != nil {
			return err
		}
		n.Tags[at].Name, n.Tags[at].UpdatedAt = name, time.Now().UTC().Truncate(time.Microsecond)
		return nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, viewTag(&n.Tags[tagOf(&n, name)]))
}

func (s *Server) removeTag(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	return s.removePart(w, r, "metadef_tag.delete", "tag", name, []string{"delete_metadef_tag"}, func(n *catalog.Namespace) error {
		at := tagOf(n, name)
		if at < 0 {
			return noPart("tag", name, n.Name)
		}
		n.Tags = slices.Delete(n.Tags, at, at+1)
		return nil
	})
}

func (s *Server) removeTags(w http.ResponseWriter, r *http.Request) error {
	rules := []string{"delete_metadef_namespace", "delete_metadef_tags"}
	return s.removePart(w, r, "metadef_namespace.delete_tags", "namespace", r.PathValue("namespace"), rules, func(n *catalog.Namespace) error {
		n.Tags = nil
		return nil
	})
}
