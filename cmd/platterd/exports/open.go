package exports

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// A busyError is a disk that somebody else writes to.
type busyError struct{ disk, holder string }

// Error names the disk, who has it, and the remedy.
func (e *busyError) Error() string {
	return fmt.Sprintf("overlay %s is in use for writing by %s; let that go first, or make an attachment, whose connections share the disk", e.disk, e.holder)
}

// Is says that a client may not have it.
func (e *busyError) Is(target error) bool { return target == fs.ErrPermission }

// Open opens the export called name for a client of the NBD door.
func (e *Exports) Open(ctx context.Context, c nbd.Client, name string) (nbd.Export, error) {
	k, id, err := parseName(name)
	if err != nil {
		return nbd.Export{}, err
	}
	if e.cfg.TokensOnly && k != kindToken {
		return nbd.Export{}, fmt.Errorf("only attach/TOKEN can be opened here; POST /platter/v1/attachments makes one: %w", fs.ErrPermission)
	}
	writes, err := e.admit(c, name, k)
	if err != nil {
		return nbd.Export{}, err
	}
	switch k {
	case kindNative:
		return e.openNative(ctx, id)
	case kindEphemeral:
		return e.openEphemeral(ctx, c, id, writes)
	case kindOverlay:
		return e.openOverlay(ctx, c, id, writes)
	case kindToken:
		return e.openToken(ctx, c, id, writes)
	}
	return e.openImage(ctx, id)
}

// List yields what a client may see and open.
func (e *Exports) List(ctx context.Context, c nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(give func(nbd.Info, error) bool) {
		if e.cfg.TokensOnly {
			return
		}
		yield := func(info nbd.Info, err error) bool {
			return err == nil && e.right(c, info.Name) == mayNothing || give(info, err)
		}
		for img, err := range e.images(ctx, "") {
			if err != nil {
				yield(nbd.Info{}, err)
				return
			}
			if _, err := decoder(img); err == nil && !yield(nbd.Info{Name: img.ID, Description: imageName(img)}, nil) {
				return
			}
		}
		overlays, err := e.overlaysHere(ctx)
		if err != nil {
			yield(nbd.Info{}, err)
			return
		}
		for _, ov := range overlays {
			if !yield(nbd.Info{Name: "overlay/" + ov.ID, Description: ov.Name}, nil) {
				return
			}
		}
	}
}

func (e *Exports) openImage(ctx context.Context, id string) (nbd.Export, error) {
	img, err := e.active(ctx, id)
	if err != nil {
		return nbd.Export{}, err
	}
	r, err := e.OpenDisk(ctx, img)
	if err != nil {
		return nbd.Export{}, err
	}
	return nbd.Export{
		Disk: r, Description: imageName(img), Label: "image/" + id, MultiConn: true, Close: r.Close,
	}, nil
}

func (e *Exports) openNative(ctx context.Context, id string) (nbd.Export, error) {
	img, err := e.active(ctx, id)
	if err != nil {
		return nbd.Export{}, err
	}
	r, err := e.cfg.Ingest.Open(ctx, img)
	if err != nil {
		return nbd.Export{}, err
	}
	return nbd.Export{
		Disk: r, Description: imageName(img) + " (native)", Label: "native/" + id, MultiConn: true, Close: r.Close,
	}, nil
}

// openEphemeral lays a delta without a name over an image, for one connection.
func (e *Exports) openEphemeral(ctx context.Context, c nbd.Client, id string, writes bool) (nbd.Export, error) {
	if !writes { // then there will be nothing above the image
		return e.openImage(ctx, id)
	}
	img, err := e.active(ctx, id)
	if err != nil {
		return nbd.Export{}, err
	}
	vol, err := e.files.openVolatile(ctx, "connection-"+strconv.FormatUint(c.ID, 10), img)
	if err != nil {
		return nbd.Export{}, err
	}
	return nbd.Export{
		Disk: vol.disk, Description: imageName(img) + " (ephemeral)",
		Label: "ephemeral/" + id, Transient: true, Close: vol.close,
	}, nil
}

// openOverlay opens an overlay for a client without an attachment.
func (e *Exports) openOverlay(ctx context.Context, c nbd.Client, id string, writes bool) (nbd.Export, error) {
	owner, shares := ownerOf(c)
	s := &session{
		client: c, disk: id, owner: owner, holder: clientName(c), writes: writes, since: e.cfg.Now(),
	}
	ov, err := e.startOverlay(ctx, s)
	if err != nil {
		return nbd.Export{}, err
	}
	// The attachment that may write is looked for only now: one that is made
	// from here on sees this session.
	if writes {
		err = e.unattached(ctx, id)
	}
	if err != nil {
		e.finish(s)
		return nbd.Export{}, err
	}
	return e.exportOverlay(s, ov, "overlay/"+id, shares), nil
}

// unattached tells whether no attachment may write to an overlay.
func (e *Exports) unattached(ctx context.Context, id string) error {
	list, err := e.cfg.Catalog.Attachments(ctx, catalog.AttachmentQuery{OverlayID: id})
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.Mode == catalog.AttachRW {
			return &busyError{disk: id, holder: e.holderOf(a.ID)}
		}
	}
	return nil
}

// holderOf names an attachment and who uses it.
func (e *Exports) holderOf(attachment string) string {
	var names []string
	for _, s := range e.matching(func(s *session) bool { return s.attachment == attachment }) {
		names = append(names, clientName(s.client))
	}
	text := "attachment " + attachment
	if names = slices.Compact(names); len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text
}

// startOverlay begins a session on an overlay and opens its disk.
func (e *Exports) startOverlay(ctx context.Context, s *session) (catalog.Overlay, error) {
	if err := e.begin(ctx, s); err != nil {
		return catalog.Overlay{}, err
	}
	ov, err := e.usable(ctx, s.disk)
	var d *shared
	if err == nil {
		d, err = e.acquireOverlay(ctx, ov)
	}
	if err == nil {
		err = e.use(s, d)
	}
	if err != nil {
		e.finish(s)
	}
	return ov, err
}

// use gives a session a writable disk.
func (e *Exports) use(s *session, d *shared) error {
	s.shared = d
	return s.hold(func() error { return e.release(d) })
}

// exportOverlay is export for an overlay, with what has changed since each of
// its snapshots.
func (e *Exports) exportOverlay(s *session, ov catalog.Overlay, label string, multi bool) nbd.Export {
	x := e.export(s, ov.Name, label, multi)
	x.Bitmaps = bitmaps(s.shared.vol, &s.gate, ov.Snapshots)
	return x
}

// export is what the NBD door gets of a session whose disk is open.
func (e *Exports) export(s *session, description, label string, multi bool) nbd.Export {
	x := nbd.Export{
		Description: description, Label: label, MultiConn: multi,
		Close: func() error { return e.finish(s) },
	}
	if s.writes {
		x.Disk = gated(s.shared.vol.disk, &s.gate)
	} else {
		x.Disk = &gatedReader{s.shared.vol.disk, &s.gate}
	}
	return x
}
