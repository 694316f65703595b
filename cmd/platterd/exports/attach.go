package exports

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// tokenBytes is how much chance is in a token.
const tokenBytes = 32

// Attach makes an attachment. The token is in the result and nowhere else.
func (e *Exports) Attach(ctx context.Context, req platter.AttachRequest) (platter.Attached, error) {
	if err := e.reachable(req.Transport); err != nil {
		return platter.Attached{}, err
	}
	token, err := newToken()
	if err != nil {
		return platter.Attached{}, err
	}
	now := e.cfg.Now()
	a := catalog.Attachment{
		ID: uuid.NewString(), Mode: req.Mode, Transport: req.Transport, TokenHash: hashToken(token),
		Owner: req.Owner, Gateway: e.cfg.GatewayID, CreatedAt: now, ExpiresAt: now.Add(e.cfg.UnusedAfter),
	}
	if req.Overlay != nil {
		a, err = e.attachOverlay(ctx, a, *req.Overlay, req.AcceptLoss)
	} else {
		a, err = e.attachImage(ctx, a, *req.Image)
	}
	if err != nil {
		return platter.Attached{}, err
	}
	out := platter.Attached{Attachment: a}
	door := e.door(a, token, req.TLSDir)
	out.URI, out.QEMU, out.LibvirtXML, out.NBDClient = door.uri(), door.qemu(), door.libvirt(), door.nbdClient()
	return out, nil
}

// reachable refuses a transport that is not served where tokens are taken.
func (e *Exports) reachable(transport string) error {
	switch transport {
	case "unix":
		if e.cfg.Socket == "" {
			return wire.Errorf(409, "NBD is not served on a socket here; set [nbd] socket, or use transport tcp.")
		}
		return nil
	case "tcp", "tls":
		return e.reachableTCP(transport == "tls")
	}
	return wire.Errorf(400, "The transport %.32q is not known.", transport)
}

// reachableTCP is reachable for the network.
func (e *Exports) reachableTCP(secure bool) error {
	host, _, err := net.SplitHostPort(e.cfg.TCP)
	ip := net.ParseIP(host)
	switch {
	case e.cfg.TCP == "" || err != nil:
		return wire.Errorf(409, "NBD is not served on TCP here; set [nbd] listen, or use transport unix.")
	case secure && !e.cfg.TLS:
		return wire.Errorf(409, "NBD is not served over TLS here; set [nbd] tls, tls_cert and tls_key, or use transport unix.")
	case secure:
		return nil
	case e.cfg.TLSRequired:
		return wire.Errorf(409, "NBD is served over TCP only with TLS here; use transport tls or unix.")
	case len(e.cfg.Rules) > 0:
		return wire.Errorf(409, "What a client may open depends on its certificate here, and over plain TCP it has none; use transport tls or unix.")
	case host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return wire.Errorf(409, "A token is not taken over plain TCP outside loopback, where others could read it; use transport tls or unix.")
	}
	return nil
}

func newToken() (string, error) {
	var b [tokenBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

func (e *Exports) attachImage(ctx context.Context, a catalog.Attachment, img catalog.Image) (catalog.Attachment, error) {
	r, err := e.OpenDisk(ctx, img) // one that cannot be read is refused now, not at the boot
	if err != nil {
		return a, err
	}
	if err := r.Close(); err != nil {
		return a, err
	}
	a.ImageID = img.ID
	return e.note(ctx, a)
}

// note writes an attachment down. If the answer is lost, it is taken back:
// nobody has its token.
func (e *Exports) note(ctx context.Context, a catalog.Attachment) (catalog.Attachment, error) {
	out, err := e.cfg.Catalog.CreateAttachment(ctx, a)
	if errors.Is(err, catalog.ErrUnavailable) {
		if again := absent(e.cfg.Catalog.DeleteAttachment(context.WithoutCancel(ctx), a.ID)); again != nil {
			e.log.WarnContext(ctx, "an attachment that nobody can use may be left; it expires", "attachment", a.ID, "err", again)
		}
	}
	return out, err
}

func (e *Exports) attachOverlay(ctx context.Context, a catalog.Attachment, ov catalog.Overlay, accept bool) (catalog.Attachment, error) {
	defer e.keys.lock(ov.ID)()
	ov, err := e.here(ctx, ov.ID)
	if err == nil {
		err = e.reach(ctx, ov, accept) // even who only reads has it opened as its one writer
	}
	if err != nil {
		return a, err
	}
	a.OverlayID = ov.ID
	a, err = e.note(ctx, a)
	var held *catalog.HeldError
	if errors.As(err, &held) && held.Holder != "" {
		return a, wire.Errorf(409, "overlay %s is already attached for writing by %s; detach that first",
			ov.ID, e.holderOf(held.Holder))
	}
	if err != nil || a.Mode != catalog.AttachRW {
		return a, err
	}
	// A client without an attachment may have come in between. One that comes
	// later is turned away by the record.
	err = e.patiently(ctx, func() error {
		for _, s := range e.matching(func(s *session) bool { return s.disk == ov.ID && s.writes && s.attachment == "" }) {
			return &busyError{disk: ov.ID, holder: s.holder}
		}
		return nil
	})
	var busy *busyError
	if errors.As(err, &busy) {
		err = wire.Errorf(409, "overlay %s is in use for writing by %s; let that go first", ov.ID, busy.holder)
	}
	if err != nil {
		return a, errors.Join(err, e.cfg.Catalog.DeleteAttachment(context.WithoutCancel(ctx), a.ID))
	}
	return a, nil
}

// Detach forgets an attachment, so that its token opens nothing more, and
// then ends what it has open. When it returns, no request of it can change a
// byte, and what an ephemeral one wrote is gone.
func (e *Exports) Detach(ctx context.Context, id string) error {
	a, err := e.cfg.Catalog.Attachment(ctx, id)
	if err != nil {
		return err
	}
	if a.Gateway != "" && a.Gateway != e.cfg.GatewayID {
		if runs, err := e.runs(ctx, a.Gateway); err != nil || runs {
			return errors.Join(err, wire.Errorf(409, "Attachment %s is served by gateway %s, which runs; detach it there.", id, a.Gateway))
		}
	}
	err = e.cfg.Catalog.DeleteAttachment(ctx, id)
	if errors.Is(err, catalog.ErrUnavailable) { // it may be deleted, and only the answer was lost
		err = absent(e.cfg.Catalog.DeleteAttachment(ctx, id))
	}
	if err != nil {
		return err
	}
	e.cut(ctx, id)
	return nil
}

// runs tells whether another gateway is there. Without leases nobody can tell.
func (e *Exports) runs(ctx context.Context, gateway string) (bool, error) {
	if e.cfg.Join == nil {
		return false, nil // one that has its records for itself: it had another id
	}
	list, err := e.cfg.Catalog.Gateways(ctx)
	return slices.ContainsFunc(list, func(g catalog.Gateway) bool { return g.ID == gateway }), err
}

// cut ends what an attachment that is gone has open, and removes its file.
func (e *Exports) cut(ctx context.Context, id string) {
	e.endSessions(func(s *session) bool { return s.attachment == id })
	e.drop(ctx, id)
}

// reap cuts the sessions of attachments that are gone without this gateway
// having heard of it.
func (e *Exports) reap(ctx context.Context, known []catalog.Attachment) {
	for _, s := range e.matching(func(s *session) bool { return s.attachment != "" }) {
		if slices.ContainsFunc(known, func(a catalog.Attachment) bool { return a.ID == s.attachment }) {
			continue
		}
		if _, err := e.cfg.Catalog.Attachment(ctx, s.attachment); errors.Is(err, fs.ErrNotExist) {
			e.cut(ctx, s.attachment)
		}
	}
}

// drop removes the file of an ephemeral attachment. What fails is done by the
// next Recover.
func (e *Exports) drop(ctx context.Context, id string) {
	if err := e.remove(e.ephemeralDir(), e.ephemeralPath(id)); err != nil {
		e.log.WarnContext(ctx, "the file of an ephemeral disk could not be removed; the next start tries again",
			"attachment", id, "err", err)
	}
}

// expire removes attachments that were never used, and tasks that are old.
func (e *Exports) expire(ctx context.Context) error {
	list, err := e.cfg.Catalog.Attachments(ctx, catalog.AttachmentQuery{Gateway: e.cfg.GatewayID})
	if err != nil {
		return err
	}
	e.reap(ctx, list)
	var errs []error
	for _, a := range list {
		errs = append(errs, e.expireOne(ctx, a))
	}
	return errors.Join(append(errs, e.expireTasks(ctx))...)
}

// expireOne removes an attachment whose time is over, unless somebody has
// come just in time: their use may not be written down yet.
func (e *Exports) expireOne(ctx context.Context, a catalog.Attachment) error {
	if !e.expired(a) || len(e.matching(func(s *session) bool { return s.attachment == a.ID })) > 0 {
		return nil
	}
	a, err := e.cfg.Catalog.Attachment(ctx, a.ID)
	if err != nil || !e.expired(a) {
		return absent(err)
	}
	if err := e.Detach(ctx, a.ID); err != nil {
		return absent(err)
	}
	e.log.InfoContext(ctx, "an attachment that was never used has expired", "attachment", a.ID)
	return nil
}

func (e *Exports) expired(a catalog.Attachment) bool {
	return !a.ExpiresAt.IsZero() && e.cfg.Now().After(a.ExpiresAt)
}

func (e *Exports) expireTasks(ctx context.Context) error {
	_, err := e.cfg.Catalog.ExpireTasks(ctx)
	return err
}
