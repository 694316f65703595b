package platter

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

type attachBody struct {
	ImageID   string `json:"image_id"`
	OverlayID string `json:"overlay_id"`
	Mode      string `json:"mode"`
	Transport string `json:"transport"`
	TLSDir    string `json:"tls_dir"`

	AcceptLoss bool `json:"accept_loss"`
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	var body attachBody
	if err := s.readJSON(r, &body); err != nil {
		return err
	}
	who := wire.IdentityFrom(r.Context())
	req := AttachRequest{Mode: catalog.AttachMode(body.Mode), Transport: body.Transport, Owner: who.ProjectID, TLSDir: body.TLSDir, AcceptLoss: body.AcceptLoss}
	if err := s.attachTarget(r.Context(), body, &req); err != nil {
		return err
	}
	if err := checkMode(&req); err != nil {
		return err
	}
	target := wire.Target{Kind: "attachment", Owner: req.Owner}
	if err := s.allow(r.Context(), "platter:add_attachment", target); err != nil {
		return err
	}
	got, err := s.cfg.Attachments.Attach(r.Context(), req)
	if err != nil {
		return err
	}
	a := got.Attachment
	wire.Audit(r.Context(), s.log, "create", "attachment", a.ID)
	view := s.viewAttachment(r.Context(), a)
	view.URI, view.QEMU, view.LibvirtXML, view.NBDClient = got.URI, got.QEMU, got.LibvirtXML, got.NBDClient
	h := w.Header()
	h.Set("Location", prefix+"/attachments/"+a.ID)
	h.Set("Cache-Control", "no-store") // the answer holds a secret
	return wire.WriteJSON(w, http.StatusCreated, view)
}

// attachTarget finds what is to be attached, as far as who asks may see it.
func (s *Server) attachTarget(ctx context.Context, body attachBody, req *AttachRequest) error {
	switch {
	case (body.ImageID == "") == (body.OverlayID == ""):
		return badRequest("Either image_id or overlay_id must be given.")
	case body.ImageID != "":
		img, err := s.image(ctx, body.ImageID)
		if err != nil {
			return err
		}
		req.Image = &img
		return s.mayRead(ctx, img)
	}
	ov, err := s.overlay(ctx, body.OverlayID)
	req.Overlay = &ov
	return err
}

// checkMode fills in the defaults and refuses what cannot be.
func checkMode(req *AttachRequest) error {
	req.Transport = cmp.Or(req.Transport, "unix")
	if req.Image != nil {
		req.Mode = cmp.Or(req.Mode, catalog.AttachRO)
	}
	req.Mode = cmp.Or(req.Mode, catalog.AttachRW)
	if req.AcceptLoss && (req.Overlay == nil || req.Mode != catalog.AttachRW) {
		return badRequest("accept_loss belongs to an overlay that is attached rw: nothing else can lose anything.")
	}
	switch req.Mode {
	case catalog.AttachRO:
	case catalog.AttachRW:
		if req.Image != nil {
			return badRequest("The bytes of an image never change, so it cannot be attached rw: use ephemeral, or make an overlay and attach that.")
		}
	case catalog.AttachEphemeral:
		if req.Overlay != nil {
			return badRequest("An overlay is attached ro or rw; ephemeral is for images.")
		}
	default:
		return badRequest("The mode %.32q is not known; there are ro, rw and ephemeral.", req.Mode)
	}
	switch req.Transport {
	case "unix", "tcp", "tls":
	default:
		return badRequest("The transport %.32q is not known; there are unix, tcp and tls.", req.Transport)
	}
	return checkTLSDir(*req)
}

// maxPath is longer than any path that a system takes.
const maxPath = 4096

// checkTLSDir refuses a folder that would not be one word of a command line.
func checkTLSDir(req AttachRequest) error {
	switch {
	case req.TLSDir == "":
		return nil
	case req.Transport != "tls":
		return badRequest("tls_dir belongs to transport tls; over %s there are no certificates.", req.Transport)
	case !path.IsAbs(req.TLSDir) || len(req.TLSDir) > maxPath || strings.ContainsFunc(req.TLSDir, unicode.IsControl):
		return badRequest("tls_dir %.64q is not the absolute path of a folder.", req.TLSDir)
	}
	return nil
}

func (s *Server) listAttachments(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "image_id", "overlay_id", "limit", "marker")
	if err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:get_attachments", s.own(r, "attachment")); err != nil {
		return err
	}
	list, err := s.cfg.Catalog.Attachments(r.Context(), catalog.AttachmentQuery{
		Owner: ownerFilter(wire.IdentityFrom(r.Context())), ImageID: q.Get("image_id"), OverlayID: q.Get("overlay_id"),
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b catalog.Attachment) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	list, next, err := page(r, q, list, func(a catalog.Attachment) string { return a.ID })
	if err != nil {
		return err
	}
	out := struct {
		Attachments []attachmentView `json:"attachments"`
		First       string           `json:"first"`
		Next        string           `json:"next,omitempty"`
	}{make([]attachmentView, 0, len(list)), prefix + "/attachments", next}
	for _, a := range list {
		out.Attachments = append(out.Attachments, s.viewAttachment(r.Context(), a))
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (s *Server) getAttachment(w http.ResponseWriter, r *http.Request) error {
	a, err := s.attachment(r, "platter:get_attachment")
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, s.viewAttachment(r.Context(), a))
}

func (s *Server) detach(w http.ResponseWriter, r *http.Request) error {
	a, err := s.attachment(r, "platter:delete_attachment")
	if err != nil {
		return err
	}
	if err := s.cfg.Attachments.Detach(r.Context(), a.ID); err != nil {
		return err
	}
	wire.Audit(r.Context(), s.log, "delete", "attachment", a.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// attachment finds the attachment that a request names, if who asks may see
// it, and asks rule about it.
func (s *Server) attachment(r *http.Request, rule string) (catalog.Attachment, error) {
	id := r.PathValue("attachment_id")
	a, err := s.cfg.Catalog.Attachment(r.Context(), id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !owns(wire.IdentityFrom(r.Context()), a.Owner) {
		return a, notFound("attachment", id)
	}
	if err != nil {
		return a, err
	}
	return a, s.allowHidden(r.Context(), rule, "platter:get_attachment", wire.Target{Kind: "attachment", ID: a.ID, Owner: a.Owner})
}
