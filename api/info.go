package api

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"slices"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

type storeView struct {
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Default     string `json:"default,omitempty"`   // "true", a string
	ReadOnly    string `json:"read-only,omitempty"` // "true", a string

	Type       string         `json:"type,omitempty"`
	Weight     *int           `json:"weight,omitempty"`
	Properties map[string]any `json:"properties,omitempty"`
}

func (s *Server) viewStores(detail bool) ([]storeView, error) {
	if !s.manyStores() {
		return nil, wire.Errorf(http.StatusNotFound, "Multi backend is not supported at this site.")
	}
	yes := map[bool]string{true: "true"}
	var views []storeView
	for _, st := range s.cfg.Stores {
		v := storeView{ID: st.ID, Description: st.Description, Default: yes[st.Default], ReadOnly: yes[st.ReadOnly]}
		if detail {
			v.Type, v.Weight, v.Properties = st.Type, &st.Weight, st.Properties
		}
		views = append(views, v)
	}
	return views, nil
}

func (s *Server) storesInfo(w http.ResponseWriter, _ *http.Request) error {
	views, err := s.viewStores(false)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, object{"stores": views})
}

func (s *Server) storesDetail(w http.ResponseWriter, r *http.Request) error {
	views, err := s.viewStores(true)
	if err != nil {
		return err
	}
	if err := s.allow(r.Context(), "stores_info_detail", wire.Target{}); err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, object{"stores": views})
}

// usageInfo is empty without unified limits.
func (s *Server) usageInfo(w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteJSON(w, http.StatusOK, object{"usage": object{}})
}

// deleteFromStore removes one of several copies.
func (s *Server) deleteFromStore(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	store := r.PathValue("store")
	if !s.manyStores() {
		return wire.Errorf(http.StatusNotFound, "Multi backend is not supported at this site.")
	}
	known := false
	for _, st := range s.cfg.Stores {
		known = known || st.ID == store
	}
	if !known {
		return wire.Errorf(http.StatusConflict, "The selected store %.64s is not available on this node.", store)
	}
	img, err := s.lookup(r, "get_image_location")
	if err != nil {
		return err
	}
	if err := s.allowImage(ctx, "delete_image_location", &img); err != nil {
		return err
	}
	if s.cfg.Deletable != nil {
		one := img.Clone()
		one.Locations = slices.DeleteFunc(one.Locations, func(l catalog.Location) bool { return l.Store != store })
		if err := s.cfg.Deletable(ctx, one); err != nil {
			return err
		}
	}
	if _, err := s.cfg.Catalog.RemoveLocation(ctx, img.ID, store); err != nil {
		return explainRemoval(img.ID, store, err)
	}
	wire.Audit(ctx, s.cfg.Logger, "image.delete_from_store", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// explainRemoval gives the refusal to remove a copy its words.
func explainRemoval(id, store string, err error) error {
	status, ok := errors.AsType[*catalog.StatusError](err)
	switch {
	case ok:
		return wire.Errorf(http.StatusConflict, "Data can only be removed from a store while the image is active; image %s is %s.", id, status.From)
	case errors.Is(err, catalog.ErrLastCopy):
		return wire.Errorf(http.StatusForbidden, "Cannot delete image data from the only store containing it. Consider deleting the image instead.")
	case errors.Is(err, fs.ErrNotExist):
		return wire.Errorf(http.StatusNotFound, "Image %s is not stored on store %.64s.", id, store)
	}
	return err
}

// healthcheck tells a load balancer whether to send requests here.
func (s *Server) healthcheck(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wire.Errorf(http.StatusMethodNotAllowed, "The health check is read with GET or HEAD.").With("Allow", "GET, HEAD")
	}
	status, reason := http.StatusOK, "OK"
	if s.cfg.DisableFile != "" {
		if _, err := os.Stat(s.cfg.DisableFile); err == nil {
			status, reason = http.StatusServiceUnavailable, "DISABLED BY FILE"
		}
	}
	if r.Method == http.MethodHead && status == http.StatusOK {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if wire.PrefersJSON(r) {
		return wire.WriteJSON(w, status, object{"detailed": false, "reasons": []string{reason}})
	}
	return writeText(w, status, reason)
}

// readyz tells whether requests can be answered, and what is wrong besides.
func (s *Server) readyz(w http.ResponseWriter) error {
	status, text := http.StatusOK, "ready\n"
	if err := s.cfg.Ready(); err != nil {
		status, text = http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n"
	}
	if s.cfg.Ailing != nil {
		for _, what := range s.cfg.Ailing() {
			text += "ailing: " + what + "\n"
		}
	}
	return writeText(w, status, text)
}
