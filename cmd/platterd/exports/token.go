package exports

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// touchEvery is how often the use of an attachment is written down.
const touchEvery = time.Minute

// openToken opens what an attachment gives; without writes, to be read only.
func (e *Exports) openToken(ctx context.Context, c nbd.Client, token string, writes bool) (nbd.Export, error) {
	a, err := e.byToken(ctx, token)
	if err != nil {
		return nbd.Export{}, err
	}
	if err := e.mayUse(a, c); err != nil {
		return nbd.Export{}, err
	}
	s := &session{
		client: c, disk: a.OverlayID, attachment: a.ID, owner: a.ID, holder: "attachment " + a.ID + " (" + clientName(c) + ")",
		writes: writes && a.Mode != catalog.AttachRO, since: e.cfg.Now(),
	}
	x, err := e.openAttached(ctx, s, a)
	if err == nil {
		if err = e.touch(ctx, a); err == nil {
			return x, nil
		}
		err = errors.Join(err, x.Close())
	}
	// It may have been deleted while it was opened, after its file was looked
	// for and before this has made one.
	if _, gone := e.cfg.Catalog.Attachment(ctx, a.ID); a.Mode == catalog.AttachEphemeral && errors.Is(gone, fs.ErrNotExist) {
		e.cut(ctx, a.ID)
	}
	return nbd.Export{}, err
}

// openAttached opens the disk of an attachment.
func (e *Exports) openAttached(ctx context.Context, s *session, a catalog.Attachment) (nbd.Export, error) {
	label := "attachment/" + a.ID
	if a.OverlayID != "" {
		ov, err := e.startOverlay(ctx, s)
		if err != nil {
			return nbd.Export{}, err
		}
		return e.exportOverlay(s, ov, label, true), nil
	}
	img, err := e.cfg.Catalog.Image(ctx, a.ImageID)
	if err != nil {
		return nbd.Export{}, fmt.Errorf("image %s: %w", a.ImageID, err)
	}
	s.disk = a.ID
	if err := e.begin(ctx, s); err != nil {
		return nbd.Export{}, err
	}
	x, err := e.openOnImage(ctx, s, a, img)
	if err != nil {
		e.finish(s)
	}
	return x, err
}

// openOnImage opens the disk of an attachment of an image: the image itself,
// or the delta that the attachment has on it.
func (e *Exports) openOnImage(ctx context.Context, s *session, a catalog.Attachment, img catalog.Image) (nbd.Export, error) {
	label := "attachment/" + a.ID
	if a.Mode == catalog.AttachEphemeral {
		d, err := e.acquireEphemeral(ctx, a, img)
		if err == nil {
			err = e.use(s, d)
		}
		if err != nil {
			return nbd.Export{}, err
		}
		return e.export(s, imageName(img)+" (ephemeral)", label, true), nil
	}
	r, err := e.OpenDisk(ctx, img)
	if err == nil {
		err = s.hold(r.Close)
	}
	if err != nil {
		return nbd.Export{}, err
	}
	return nbd.Export{
		Disk: &gatedReader{r, &s.gate}, Description: imageName(img), Label: label, MultiConn: true,
		Close: func() error { return e.finish(s) },
	}, nil
}

// hashToken is how a token is stored and looked up.
func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// byToken finds an attachment. Only hashes are compared, so that the time it
// takes says nothing about a token.
func (e *Exports) byToken(ctx context.Context, token string) (catalog.Attachment, error) {
	hash := hashToken(token)
	a, err := e.cfg.Catalog.AttachmentByToken(ctx, hash)
	if errors.Is(err, fs.ErrNotExist) ||
		err == nil && subtle.ConstantTimeCompare([]byte(hash), []byte(a.TokenHash)) != 1 {
		return a, fmt.Errorf("there is no such attachment; it may have been detached or have expired: %w", fs.ErrNotExist)
	}
	return a, err
}

// mayUse tells whether a client may open an attachment from where it is.
func (e *Exports) mayUse(a catalog.Attachment, c nbd.Client) error {
	switch {
	case a.Gateway != "" && a.Gateway != e.cfg.GatewayID:
		return fmt.Errorf("attachment %s is served by gateway %s: %w", a.ID, a.Gateway, fs.ErrPermission)
	case e.expired(a):
		return fmt.Errorf("attachment %s was never used and has expired; make a new one: %w", a.ID, fs.ErrNotExist)
	case a.Transport == "tls" && c.Transport == "tcp":
		return e.wantsTLS(fmt.Sprintf("attachment %s is for transport tls", a.ID))
	case c.Transport != a.Transport:
		return fmt.Errorf("attachment %s is for transport %s, not %s; make another one: %w", a.ID, a.Transport, c.Transport, fs.ErrPermission)
	}
	return nil
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// touch writes down that an attachment is used, so that it does not expire.
// It fails if the attachment is no longer there.
func (e *Exports) touch(ctx context.Context, a catalog.Attachment) error {
	now := e.cfg.Now()
	if now.Sub(a.LastUsed) < touchEvery && a.ExpiresAt.IsZero() {
		_, err := e.cfg.Catalog.Attachment(ctx, a.ID)
		return err
	}
	_, err := e.cfg.Catalog.UpdateAttachment(ctx, a.ID, func(a *catalog.Attachment) error {
		a.LastUsed, a.ExpiresAt = now, time.Time{}
		return nil
	})
	if errors.Is(err, catalog.ErrUnavailable) && !a.LastUsed.IsZero() {
		return nil // an attachment in use outlives the catalog's absence
	}
	return err
}
