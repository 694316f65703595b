package platter

import (
	_ "embed" // for openapi.json
	"net/http"
	"strconv"

	"github.com/seed-478a8fee/platter/api/wire"
)

// prefix is where everything here lives.
const prefix = "/platter/v1"

//go:embed openapi.json
var openAPI []byte

// routes is the whole interface, in the order of openapi.json.
func (s *Server) routes() []wire.Route {
	rows := []wire.Route{
		{Method: "GET", Pattern: "/attachments", Handle: s.listAttachments, Rule: "platter:get_attachments"},
		{Method: "POST", Pattern: "/attachments", Handle: s.attach, Rule: "platter:add_attachment"},
		{Method: "GET", Pattern: "/attachments/{attachment_id}", Handle: s.getAttachment, Rule: "platter:get_attachment"},
		{Method: "DELETE", Pattern: "/attachments/{attachment_id}", Handle: s.detach, Rule: "platter:delete_attachment"},

		{Method: "GET", Pattern: "/overlays", Handle: s.listOverlays, Rule: "platter:get_overlays"},
		{Method: "POST", Pattern: "/overlays", Handle: s.createOverlay, Rule: "platter:add_overlay"},
		{Method: "GET", Pattern: "/overlays/{overlay_id}", Handle: s.getOverlay, Rule: "platter:get_overlay"},
		{Method: "PATCH", Pattern: "/overlays/{overlay_id}", Handle: s.changeOverlay, Rule: "platter:modify_overlay"},
		{Method: "DELETE", Pattern: "/overlays/{overlay_id}", Handle: s.deleteOverlay, Rule: "platter:delete_overlay"},
		{Method: "GET", Pattern: "/overlays/{overlay_id}/snapshots", Handle: s.listSnapshots, Rule: "platter:get_overlay"},
		{Method: "POST", Pattern: "/overlays/{overlay_id}/snapshots", Handle: s.createSnapshot, Rule: "platter:snapshot_overlay"},
		{Method: "DELETE", Pattern: "/overlays/{overlay_id}/snapshots/{snapshot_id}", Handle: s.deleteSnapshot, Rule: "platter:snapshot_overlay"},
		{Method: "POST", Pattern: "/overlays/{overlay_id}/capture", Handle: s.capture, Rule: "platter:capture_overlay"},
		{Method: "POST", Pattern: "/overlays/{overlay_id}/flatten", Handle: s.flattenOverlay, Rule: "platter:modify_overlay"},

		{Method: "POST", Pattern: "/captures", Handle: s.captureInstance, Rule: "platter:capture_instance"},
		{Method: "POST", Pattern: "/images", Handle: s.migrateImage, Rule: "platter:migrate_image"},
		{Method: "POST", Pattern: "/images/{image_id}/adopt", Handle: s.adoptImage, Rule: "platter:migrate_image"},
		{Method: "POST", Pattern: "/images/{image_id}/settle", Handle: s.settleImage, Rule: "platter:migrate_image"},
		{Method: "GET", Pattern: "/images/{image_id}/map", Handle: s.mapImage, Rule: "download_image"},
		{Method: "GET", Pattern: "/images/{image_id}/export", Handle: s.exportImage, Rule: "download_image"},
		{Method: "GET", Pattern: "/images/{image_id}/files/{path...}", Handle: s.readInside, Rule: "download_image"},
		{Method: "GET", Pattern: "/images/{image_id}/trace", Handle: s.showTrace, Rule: "download_image"},
		{Method: "DELETE", Pattern: "/images/{image_id}/trace", Handle: s.forgetTrace, Rule: "platter:modify_cache"},

		{Method: "GET", Pattern: "/stores", Handle: s.listStores, Rule: "platter:get_stores"},
		{Method: "GET", Pattern: "/cache", Handle: s.showCache, Rule: "platter:get_cache"},
		{Method: "DELETE", Pattern: "/cache/images/{image_id}", Handle: s.dropCached, Rule: "platter:modify_cache"},
		{Method: "GET", Pattern: "/nbd/connections", Handle: s.listConns, Rule: "platter:get_nbd_connections"},
		{Method: "DELETE", Pattern: "/nbd/connections/{connection_id}", Handle: s.kick, Rule: "platter:delete_nbd_connection"},
		{Method: "GET", Pattern: "/watch", Handle: s.watch, Rule: "platter:watch_catalog"},
		{Method: "GET", Pattern: "/openapi.json", Handle: s.document},
	}
	for i := range rows {
		rows[i].Pattern = prefix + rows[i].Pattern
	}
	return rows
}

// document serves openapi.json.
func (s *Server) document(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(openAPI)))
	w.Write(openAPI) // a client that is gone is no error of ours
	return nil
}

// captureInstance answers for what is not built yet.
func (s *Server) captureInstance(_ http.ResponseWriter, r *http.Request) error {
	if err := s.allow(r.Context(), "platter:capture_instance", s.own(r, "capture")); err != nil {
		return err
	}
	return wire.Errorf(http.StatusNotImplemented,
		"Capturing the disk of an instance in a hypervisor is not built yet; capture an overlay with POST %s/overlays/ID/capture.", prefix)
}

// readInside answers for what is not built yet.
func (s *Server) readInside(_ http.ResponseWriter, r *http.Request) error {
	if _, err := s.readable(r); err != nil {
		return err
	}
	return wire.Errorf(http.StatusNotImplemented,
		"Looking inside an image is not built yet; GET %s/images/ID/export gives the whole disk.", prefix)
}
