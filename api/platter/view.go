package platter

import (
	"context"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// What records look like from outside. openapi.json describes each field.

type leaseView struct {
	ExpiresAt *string `json:"expires_at"`
	Gateway   string  `json:"gateway"`
}

type connectionView struct {
	Client    string `json:"client"`
	Transport string `json:"transport"`
	Since     string `json:"since"`
}

type attachmentView struct {
	ID          string           `json:"id"`
	ImageID     *string          `json:"image_id"`
	OverlayID   *string          `json:"overlay_id"`
	Mode        string           `json:"mode"`
	Transport   string           `json:"transport"`
	Owner       *string          `json:"owner"`
	Lease       leaseView        `json:"lease"`
	CreatedAt   string           `json:"created_at"`
	LastUsed    *string          `json:"last_used"`
	Connections []connectionView `json:"connections"`

	// Only in the answer to POST: they hold the secret.
	URI        string `json:"uri,omitempty"`
	QEMU       string `json:"qemu,omitempty"`
	LibvirtXML string `json:"libvirt_xml,omitempty"`
	NBDClient  string `json:"nbd_client,omitempty"`
}

type overlayView struct {
	ID          string           `json:"id"`
	Name        string           `json:"name"`
	ImageID     string           `json:"image_id"`
	Owner       *string          `json:"owner"`
	Size        int64            `json:"size"`
	Used        int64            `json:"used"`
	Status      string           `json:"status"`
	Message     string           `json:"message"`
	Gateway     string           `json:"gateway"`
	Engine      string           `json:"engine"`
	Store       string           `json:"store"`
	Dirty       bool             `json:"dirty"`
	Export      string           `json:"export"`
	Snapshots   []snapshotView   `json:"snapshots"`
	Connections []connectionView `json:"connections"`
	CreatedAt   string           `json:"created_at"`
	UpdatedAt   string           `json:"updated_at"`
}

type snapshotView struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	CreatedAt string `json:"created_at"`
}

type taskView struct {
	ID        string           `json:"id"`
	Type      string           `json:"type"`
	Status    string           `json:"status"`
	Owner     *string          `json:"owner"`
	ImageID   *string          `json:"image_id"`
	RequestID *string          `json:"request_id"`
	UserID    *string          `json:"user_id"`
	Message   string           `json:"message"`
	Input     map[string]any   `json:"input"`
	Result    map[string]any   `json:"result"`
	Progress  catalog.Progress `json:"progress"`
	CreatedAt string           `json:"created_at"`
	UpdatedAt string           `json:"updated_at"`
	ExpiresAt *string          `json:"expires_at"`
	Self      string           `json:"self"`
	Schema    string           `json:"schema"`
}

func (s *Server) viewAttachment(ctx context.Context, a catalog.Attachment) attachmentView {
	return attachmentView{
		ID: a.ID, ImageID: orNull(a.ImageID), OverlayID: orNull(a.OverlayID),
		Mode: string(a.Mode), Transport: a.Transport, Owner: orNull(a.Owner),
		Lease:     leaseView{ExpiresAt: timeOrNull(a.ExpiresAt), Gateway: a.Gateway},
		CreatedAt: stamp(a.CreatedAt), LastUsed: timeOrNull(a.LastUsed),
		Connections: viewClients(s.cfg.Disks.Use(ctx, a.ID).Clients),
	}
}

func (s *Server) viewOverlay(ctx context.Context, o catalog.Overlay) overlayView {
	use := s.cfg.Disks.Use(ctx, o.ID)
	return overlayView{
		ID: o.ID, Name: o.Name, ImageID: o.ImageID, Owner: orNull(o.Owner), Size: o.Size, Used: use.Bytes,
		Status: string(o.Status), Message: o.Message, Gateway: o.Gateway, Engine: o.Engine, Store: o.Store, Dirty: o.Dirty,
		Export: "overlay/" + o.ID, Snapshots: viewSnapshots(o.Snapshots), Connections: viewClients(use.Clients),
		CreatedAt: stamp(o.CreatedAt), UpdatedAt: stamp(o.UpdatedAt),
	}
}

func viewSnapshots(list []catalog.OverlaySnapshot) []snapshotView {
	out := make([]snapshotView, 0, len(list))
	for _, s := range list {
		out = append(out, viewSnapshot(s))
	}
	return out
}

func viewSnapshot(s catalog.OverlaySnapshot) snapshotView {
	return snapshotView{ID: s.ID, Name: s.Name, CreatedAt: stamp(s.CreatedAt)}
}

func viewClients(list []ClientInfo) []connectionView {
	out := make([]connectionView, 0, len(list))
	for _, c := range list {
		out = append(out, connectionView{Client: c.Client, Transport: c.Transport, Since: stamp(c.Since)})
	}
	return out
}

func viewTask(t catalog.Task) taskView {
	return taskView{
		ID: t.ID, Type: t.Type, Status: string(t.Status), Owner: orNull(t.Owner), ImageID: orNull(t.ImageID),
		RequestID: orNull(t.RequestID), UserID: orNull(t.UserID), Message: t.Message,
		Input: t.Input, Result: t.Result, Progress: t.Progress,
		CreatedAt: stamp(t.CreatedAt), UpdatedAt: stamp(t.UpdatedAt), ExpiresAt: timeOrNull(t.ExpiresAt),
		Self: "/v2/tasks/" + t.ID, Schema: "/v2/schemas/task",
	}
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}
