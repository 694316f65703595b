package notify

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

type object = map[string]any

// ImageChanged tells of an image that was written. An upload is told in
// Glance's order: the image is updated to saving, prepared, uploaded,
// activated, and updated.
func (n *Notifier) ImageChanged(ctx context.Context, before, after *catalog.Image) {
	switch {
	case before == nil:
		n.Emit(ctx, "image.create", imagePayload(*after))
		if after.Status == catalog.StatusActive {
			n.Emit(ctx, "image.activate", imagePayload(*after))
		}
	case after == nil:
		gone := before.Clone()
		gone.Status = catalog.StatusDeleted
		p := imagePayload(gone)
		p["deleted"], p["deleted_at"] = true, timeText(n.now())
		n.Emit(ctx, "image.delete", p)
	case before.Status != after.Status && after.Status == catalog.StatusSaving:
		n.Emit(ctx, "image.update", imagePayload(*after))
		p := withImport(*after)
		if store := catalog.UploadStore(ctx); store != "" {
			p["backend"] = store
		}
		n.Emit(ctx, "image.prepare", p)
	case before.Status != after.Status && after.Status == catalog.StatusActive && !before.Status.HasData():
		n.Emit(ctx, "image.upload", withImport(*after))
		n.Emit(ctx, "image.activate", imagePayload(*after))
		n.Emit(ctx, "image.update", imagePayload(*after))
	default:
		n.Emit(ctx, "image.update", imagePayload(*after))
	}
}

// MemberChanged tells of a member that was written.
func (n *Notifier) MemberChanged(ctx context.Context, before, after *catalog.Member) {
	switch {
	case before == nil:
		n.Emit(ctx, "image.member.create", memberPayload(*after))
	case after == nil:
		p := memberPayload(*before)
		p["deleted"], p["deleted_at"] = true, timeText(n.now())
		n.Emit(ctx, "image.member.delete", p)
	default:
		n.Emit(ctx, "image.member.update", memberPayload(*after))
	}
}

// TaskChanged tells of a task that is new, has moved, or was deleted before
// its time. How far it is, is nobody's news.
func (n *Notifier) TaskChanged(ctx context.Context, before, after *catalog.Task) {
	switch {
	case before == nil:
		n.Emit(ctx, "task.create", taskPayload(*after))
		n.moved(ctx, catalog.TaskPending, *after)
	case after == nil:
		if before.ExpiresAt.IsZero() || before.ExpiresAt.After(n.now()) {
			p := taskPayload(*before)
			p["deleted"], p["deleted_at"] = true, timeText(n.now())
			n.Emit(ctx, "task.delete", p)
		}
	default:
		n.moved(ctx, before.Status, *after)
	}
}

func (n *Notifier) moved(ctx context.Context, from catalog.TaskStatus, t catalog.Task) {
	if from == t.Status {
		return
	}
	switch t.Status {
	case catalog.TaskProcessing:
		n.Emit(ctx, "task.run", taskPayload(t))
		n.Emit(ctx, "task.processing", taskPayload(t))
	case catalog.TaskSuccess, catalog.TaskFailure:
		n.Emit(ctx, "task."+string(t.Status), taskPayload(t))
	}
}

// Sent tells of data that went to a client: sent bytes of the want that it
// had asked for. If fewer went, it is told as an error.
func (n *Notifier) Sent(ctx context.Context, img catalog.Image, sent, want int64) {
	who := wire.IdentityFrom(ctx)
	emit := n.Emit
	if sent != want {
		emit = n.EmitError
	}
	emit(ctx, "image.send", object{
		"bytes_sent": sent, "image_id": img.ID, "owner_id": orNull(img.Owner),
		"receiver_tenant_id": orNull(who.ProjectID), "receiver_user_id": orNull(who.UserID),
	})
}

// UploadFailed tells why data was not taken. text must be fit for strangers.
func (n *Notifier) UploadFailed(ctx context.Context, image, text string) {
	n.EmitError(ctx, "image.upload", "Failed to upload image data for image "+image+": "+text)
}

func (n *Notifier) now() time.Time {
	if n == nil {
		return time.Time{}
	}
	return n.cfg.Now()
}

func imagePayload(img catalog.Image) object {
	properties, tags := object{}, append([]string{}, img.Tags...)
	for key, value := range img.Properties {
		properties[key] = value
	}
	return object{
		"id": img.ID, "name": img.Name, "status": img.Status,
		"created_at": timeText(img.CreatedAt), "updated_at": timeText(img.UpdatedAt),
		"min_disk": img.MinDisk, "min_ram": img.MinRAM, "protected": img.Protected,
		"checksum": orNull(img.Checksum), "owner": orNull(img.Owner),
		"disk_format": orNull(img.DiskFormat), "container_format": orNull(img.ContainerFormat),
		"size": img.Size, "virtual_size": img.VirtualSize,
		"is_public": img.Visibility == catalog.VisibilityPublic, "visibility": img.Visibility,
		"properties": properties, "tags": tags, "deleted": false, "deleted_at": nil,
	}
}

// withImport is the payload of an image whose data is on its way: it names the
// stores that an import still has to fill, and those that did not take it.
func withImport(img catalog.Image) object {
	p := imagePayload(img)
	for _, key := range []string{"os_glance_importing_to_stores", "os_glance_failed_import"} {
		p[key] = []string{}
		if list := img.Properties[key]; list != "" {
			p[key] = strings.Split(list, ",")
		}
	}
	return p
}

func memberPayload(m catalog.Member) object {
	return object{
		"image_id": m.Image, "member_id": m.Project, "status": m.Status,
		"created_at": timeText(m.CreatedAt), "updated_at": timeText(m.UpdatedAt), "deleted": false, "deleted_at": nil,
	}
}

// taskPayload leaves out what a task was given and what it said: both may be
// confidential.
func taskPayload(t catalog.Task) object {
	var expires any
	if !t.ExpiresAt.IsZero() {
		expires = timeText(t.ExpiresAt)
	}
	return object{
		"id": t.ID, "type": t.Type, "status": cmp.Or(t.Status, catalog.TaskPending), "owner": orNull(t.Owner),
		"result": nil, "message": nil, "expires_at": expires,
		"created_at": timeText(t.CreatedAt), "updated_at": timeText(t.UpdatedAt), "deleted": false, "deleted_at": nil,
	}
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
