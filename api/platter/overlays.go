package platter

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// maxName is the longest name, in characters, as in the Image API.
const maxName = 255

type overlayBody struct {
	ImageID string `json:"image_id"`
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Store   string `json:"store"`
}

func (s *Server) createOverlay(w http.ResponseWriter, r *http.Request) error {
	var body overlayBody
	if err := s.readJSON(r, &body); err != nil {
		return err
	}
	if err := checkName(body.Name); err != nil {
		return err
	}
	if body.ImageID == "" {
		return badRequest("image_id is missing: an overlay lies on an image.")
	}
	if body.Size < 0 || body.Size%512 != 0 {
		return badRequest("The size %d is not a multiple of 512 bytes.", body.Size)
	}
	img, err := s.image(r.Context(), body.ImageID)
	if err != nil {
		return err
	}
	if err := s.mayRead(r.Context(), img); err != nil {
		return err
	}
	who := wire.IdentityFrom(r.Context())
	if err := s.allow(r.Context(), "platter:add_overlay", wire.Target{Kind: "overlay", Owner: who.ProjectID}); err != nil {
		return err
	}
	ov, err := s.cfg.Overlays.CreateOverlay(r.Context(), OverlayRequest{
		Image: img, Name: body.Name, Owner: who.ProjectID, Size: body.Size, Store: body.Store,
	})
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "create", "overlay", ov.ID)
	w.Header().Set("Location", prefix+"/overlays/"+ov.ID)
	return wire.WriteJSON(w, http.StatusCreated, s.viewOverlay(r.Context(), ov))
}

func (s *Server) listOverlays(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "image_id", "name", "limit", "marker")
	if err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:get_overlays", s.own(r, "overlay")); err != nil {
		return err
	}
	list, err := s.cfg.Catalog.Overlays(r.Context(), catalog.OverlayQuery{
		Owner: ownerFilter(wire.IdentityFrom(r.Context())), ImageID: q.Get("image_id"), Name: q.Get("name"),
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b catalog.Overlay) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	list, next, err := page(r, q, list, func(o catalog.Overlay) string { return o.ID })
	if err != nil {
		return err
	}
	out := struct {
		Overlays []overlayView `json:"overlays"`
		First    string        `json:"first"`
		Next     string        `json:"next,omitempty"`
	}{make([]overlayView, 0, len(list)), prefix + "/overlays", next}
	for _, o := range list {
		out.Overlays = append(out.Overlays, s.viewOverlay(r.Context(), o))
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (s *Server) getOverlay(w http.ResponseWriter, r *http.Request) error {
	ov, err := s.overlayOf(r, "platter:get_overlay")
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, s.viewOverlay(r.Context(), ov))
}

func (s *Server) changeOverlay(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name *string `json:"name"`
		Size *int64  `json:"size"`
	}
	if err := s.readJSON(r, &body); err != nil {
		return err
	}
	if body.Name == nil && body.Size == nil {
		return badRequest("name or size is missing; nothing else of an overlay can change.")
	}
	if body.Name != nil {
		if err := checkName(*body.Name); err != nil {
			return err
		}
	}
	ov, err := s.overlayOf(r, "platter:modify_overlay")
	if err == nil && body.Size != nil {
		ov, err = s.resize(r.Context(), ov, *body.Size)
	}
	if err == nil && body.Name != nil {
		ov, err = s.cfg.Catalog.UpdateOverlay(r.Context(), ov.ID, func(o *catalog.Overlay) error {
			o.Name = *body.Name
			return nil
		})
	}
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "update", "overlay", ov.ID)
	return wire.WriteJSON(w, http.StatusOK, s.viewOverlay(r.Context(), ov))
}

// resize gives an overlay another size.
func (s *Server) resize(ctx context.Context, ov catalog.Overlay, size int64) (catalog.Overlay, error) {
	switch {
	case size <= 0 || size%512 != 0:
		return ov, badRequest("The size %d is not a multiple of 512 bytes.", size)
	case size < ov.Size:
		return ov, badRequest("The size %d is less than the %d bytes that the overlay has; it can only grow.", size, ov.Size)
	case size == ov.Size:
		return ov, nil
	case s.cfg.Reshaper == nil:
		return ov, wire.Errorf(http.StatusNotImplemented, "Overlays of this gateway keep their size.")
	}
	return s.cfg.Reshaper.Resize(ctx, ov.ID, size)
}

func (s *Server) flattenOverlay(w http.ResponseWriter, r *http.Request) error {
	ov, err := s.overlayOf(r, "platter:modify_overlay")
	if err != nil {
		return err
	}
	if s.cfg.Reshaper == nil {
		return wire.Errorf(http.StatusNotImplemented, "Overlays of this gateway cannot be flattened.")
	}
	who := wire.IdentityFrom(r.Context())
	task, err := s.cfg.Reshaper.Flatten(r.Context(), FlattenRequest{
		Overlay: ov, Owner: who.ProjectID, UserID: who.UserID, RequestID: wire.RequestID(r.Context()),
	})
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "flatten", "overlay", ov.ID)
	w.Header().Set("Location", "/v2/tasks/"+task.ID)
	return wire.WriteJSON(w, http.StatusAccepted, viewTask(task))
}

func (s *Server) deleteOverlay(w http.ResponseWriter, r *http.Request) error {
	ov, err := s.overlayOf(r, "platter:delete_overlay")
	if err != nil {
		return err
	}
	if err := s.cfg.Overlays.DeleteOverlay(r.Context(), ov.ID); err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "delete", "overlay", ov.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) listSnapshots(w http.ResponseWriter, r *http.Request) error {
	ov, err := s.overlayOf(r, "platter:get_overlay")
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, map[string]any{"snapshots": viewSnapshots(ov.Snapshots)})
}

func (s *Server) createSnapshot(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name string `json:"name"`
	}
	if err := s.readJSON(r, &body); err != nil {
		return err
	}
	if err := checkName(body.Name); err != nil {
		return err
	}
	ov, err := s.overlayOf(r, "platter:snapshot_overlay")
	if err != nil {
		return err
	}
	snap, err := s.cfg.Overlays.Snapshot(r.Context(), ov.ID, body.Name)
	if err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "snapshot", "overlay", ov.ID)
	return wire.WriteJSON(w, http.StatusCreated, viewSnapshot(snap))
}

func (s *Server) deleteSnapshot(w http.ResponseWriter, r *http.Request) error {
	ov, err := s.overlayOf(r, "platter:snapshot_overlay")
	if err != nil {
		return err
	}
	id := r.PathValue("snapshot_id")
	if !slices.ContainsFunc(ov.Snapshots, func(s catalog.OverlaySnapshot) bool { return s.ID == id }) {
		return notFound("snapshot", id)
	}
	if err := s.cfg.Overlays.DeleteSnapshot(r.Context(), ov.ID, id); err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "delete snapshot", "overlay", ov.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// overlayOf finds the overlay that a request names, if who asks may see it,
// and asks rule about it.
func (s *Server) overlayOf(r *http.Request, rule string) (catalog.Overlay, error) {
	ov, err := s.overlay(r.Context(), r.PathValue("overlay_id"))
	if err != nil {
		return ov, err
	}
	return ov, s.allowHidden(r.Context(), rule, "platter:get_overlay", wire.Target{Kind: "overlay", ID: ov.ID, Owner: ov.Owner})
}

// overlay finds an overlay that who asks may see.
func (s *Server) overlay(ctx context.Context, id string) (catalog.Overlay, error) {
	ov, err := s.cfg.Catalog.Overlay(ctx, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !owns(wire.IdentityFrom(ctx), ov.Owner) {
		return ov, notFound("overlay", id)
	}
	return ov, err
}

// readJSON reads a JSON body.
func (s *Server) readJSON(r *http.Request, dst any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if kind, _, err := mime.ParseMediaType(ct); err != nil || kind != "application/json" {
			return wire.Errorf(http.StatusUnsupportedMediaType, "The body is %.64q; it must be application/json.", ct)
		}
	}
	return wire.ReadJSON(r, s.cfg.BodyLimit, dst)
}

// checkName refuses a name that a record or a log line could not bear.
func checkName(name string) error {
	if utf8.RuneCountInString(name) > maxName {
		return badRequest("The name has more than %d characters.", maxName)
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f {
			return badRequest("The name holds the control character %U.", c)
		}
	}
	return nil
}
