package api

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func (s *Server) updateImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	body, err := wire.ReadBody(r, maxImageJSON)
	if err != nil {
		return err
	}
	changes, err := s.checker.parsePatch(r.Header.Get("Content-Type"), body)
	if err != nil {
		return err
	}
	img, err := s.find(r)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		err = s.allowImage(ctx, "get_image", &img) // nobody has asked yet
		if err != nil {
			return err
		}
	} else {
		known := s.seek(ctx, &img, changes)
		if img, err = s.change(ctx, img.ID, func(img *catalog.Image) error { return s.apply(ctx, img, changes, known) }); err != nil {
			return err
		}
		wire.Audit(ctx, s.cfg.Logger, "image.update", "image", img.ID)
	}
	return s.writeImage(ctx, w, http.StatusOK, img)
}

// change updates an image that the caller has looked up.
func (s *Server) change(ctx context.Context, id string, f func(*catalog.Image) error) (catalog.Image, error) {
	img, err := s.cfg.Catalog.UpdateImage(ctx, id, f)
	if errors.Is(err, fs.ErrNotExist) {
		err = noImage(id) // deleted since
	}
	return img, err
}

// apply makes all changes, or returns an error.
func (s *Server) apply(ctx context.Context, img *catalog.Image, changes []change, known finding) error {
	before := img.Clone()
	for _, ch := range changes {
		if err := s.applyOne(ctx, img, ch, known); err != nil {
			return err
		}
	}
	return s.checkQuotas(*img, before)
}

func (s *Server) applyOne(ctx context.Context, img *catalog.Image, ch change, known finding) error {
	key := ch.path[0]
	switch {
	case key == "locations":
		if err := s.allowImage(ctx, "modify_image", img); err != nil {
			return err
		}
		return s.changeLocations(ctx, img, ch, known)
	case key == "stores":
		return wire.Errorf(http.StatusConflict, "Property stores does not exist.")
	case key == "owner" && !wire.IdentityFrom(ctx).Admin:
		return wire.Errorf(http.StatusForbidden, "Owner can't be updated by non admin.")
	}
	if key == "visibility" && ch.op != "remove" {
		to, _ := ch.value.(string)
		if err := s.allowVisibility(ctx, catalog.Visibility(to), s.target(ctx, img)); err != nil {
			return err
		}
	}
	if err := s.allowImage(ctx, "modify_image", img); err != nil {
		return err
	}
	if ch.op == "remove" {
		return s.removeProperty(ctx, img, key)
	}
	return s.setProperty(ctx, img, key, ch)
}

func (s *Server) removeProperty(ctx context.Context, img *catalog.Image, key string) error {
	if isBase(key) {
		return wire.Errorf(http.StatusForbidden, "Property %s may not be removed.", key)
	}
	if !s.hasProperty(ctx, img, key) {
		return wire.Errorf(http.StatusConflict, "Property %.255s does not exist.", key)
	}
	if err := s.cfg.Protect.Check(ctx, protect.Delete, key); err != nil {
		return err
	}
	delete(img.Properties, key)
	return nil
}

// isBase tells whether key is a property that every image has.
func isBase(key string) bool {
	return slices.Contains([]string{"name", "visibility", "protected", "os_hidden", "owner", "disk_format",
		"container_format", "min_disk", "min_ram", "tags"}, key)
}

// hasProperty tells whether an image has a property that the caller may read.
func (s *Server) hasProperty(ctx context.Context, img *catalog.Image, key string) bool {
	_, ok := img.Properties[key]
	return ok && s.cfg.Protect.Allow(ctx, wire.IdentityFrom(ctx), protect.Read, key)
}

func (s *Server) setProperty(ctx context.Context, img *catalog.Image, key string, ch change) error {
	custom := s.hasProperty(ctx, img, key)
	exists := custom || isBase(key)
	switch {
	case ch.op == "add" && ch.draft4 && exists:
		return wire.Errorf(http.StatusConflict, "Property %.255s already present.", key)
	case ch.op == "replace" && !exists:
		return wire.Errorf(http.StatusConflict, "Property %.255s does not exist.", key)
	case key == "disk_format" || key == "container_format":
		if img.Status != catalog.StatusQueued && img.Status != catalog.StatusImporting {
			return wire.Errorf(http.StatusForbidden,
				"Attribute %s can only be replaced while the image is queued; image %s is %s.", key, img.ID, img.Status)
		}
	}
	if isBase(key) {
		setBase(img, key, ch.value)
		return nil
	}
	op := protect.Create
	if custom {
		op = protect.Update
	}
	if err := s.cfg.Protect.Check(ctx, op, key); err != nil {
		return err
	}
	if ch.value == nil { // of the properties that may be null
		delete(img.Properties, key)
		return nil
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	img.Properties[key], _ = ch.value.(string)
	return nil
}

func (s *Server) addTag(w http.ResponseWriter, r *http.Request) error {
	tag := r.PathValue("tag")
	if err := s.checker.check("tags", []any{tag}); err != nil {
		return err
	}
	return s.changeTags(w, r, func(img *catalog.Image) error {
		if slices.Contains(img.Tags, tag) {
			return nil
		}
		img.Tags = append(img.Tags, tag)
		slices.Sort(img.Tags)
		if n := len(img.Tags); over(n, s.cfg.Limits.Tags) {
			return quota("tags", s.cfg.Limits.Tags, n)
		}
		return nil
	})
}

func (s *Server) removeTag(w http.ResponseWriter, r *http.Request) error {
	tag := r.PathValue("tag")
	return s.changeTags(w, r, func(img *catalog.Image) error {
		at := slices.Index(img.Tags, tag)
		if at < 0 {
			return wire.Errorf(http.StatusNotFound, "Image %s has no tag %.255q.", img.ID, tag)
		}
		img.Tags = slices.Delete(img.Tags, at, at+1)
		return nil
	})
}

func (s *Server) changeTags(w http.ResponseWriter, r *http.Request, f func(*catalog.Image) error) error {
	ctx := r.Context()
	img, err := s.lookup(r, "modify_image")
	if err != nil {
		return err
	}
	if _, err := s.change(ctx, img.ID, f); err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.update", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) deactivate(w http.ResponseWriter, r *http.Request) error {
	return s.switchStatus(w, r, "deactivate", catalog.StatusActive, catalog.StatusDeactivated)
}

func (s *Server) reactivate(w http.ResponseWriter, r *http.Request) error {
	return s.switchStatus(w, r, "reactivate", catalog.StatusDeactivated, catalog.StatusActive)
}

// switchStatus moves an image from one status to another; one that is there
// already stays.
func (s *Server) switchStatus(w http.ResponseWriter, r *http.Request, rule string, from, to catalog.Status) error {
	ctx := r.Context()
	img, err := s.lookup(r, rule)
	if err != nil {
		return err
	}
	moved := false
	_, err = s.change(ctx, img.ID, func(img *catalog.Image) error {
		if img.Status != from && img.Status != to {
			return wire.Errorf(http.StatusForbidden, "Not allowed to %s image %s, which is %s and not %s.", rule, img.ID, img.Status, from)
		}
		moved, img.Status = img.Status == from, to
		return nil
	})
	if err != nil {
		return err
	}
	if moved {
		wire.Audit(ctx, s.cfg.Logger, "image."+rule, "image", img.ID)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
