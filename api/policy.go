package api

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// allow asks the policy about something that is no image.
func (s *Server) allow(ctx context.Context, rule string, t wire.Target) error {
	return s.cfg.Policy.Allow(ctx, wire.IdentityFrom(ctx), rule, t)
}

// isAdmin asks the policy whether who is an administrator.
func (s *Server) isAdmin(ctx context.Context, who wire.Identity) bool {
	return s.cfg.Policy.Allow(ctx, who, "context_is_admin", wire.Target{}) == nil
}

// allowImage asks the policy about an image that is there. Who may not even
// see it learns that there is none.
func (s *Server) allowImage(ctx context.Context, rule string, img *catalog.Image) error {
	t := s.target(ctx, img)
	err := s.allow(ctx, rule, t)
	if err != nil && (rule == "get_image" || s.allow(ctx, "get_image", t) != nil) {
		return noImage(img.ID)
	}
	return err
}

// allowNew asks the policy whether an image like this one may be made. What
// the client has said nothing of is private to the policy.
func (s *Server) allowNew(ctx context.Context, img *catalog.Image, saidVisibility bool) error {
	t := wire.Target{Kind: "image", Owner: img.Owner, Visibility: string(img.Visibility)}
	if !saidVisibility {
		t.Visibility = string(catalog.VisibilityPrivate)
	}
	if err := s.allow(ctx, "add_image", t); err != nil {
		if img.Owner != wire.IdentityFrom(ctx).ProjectID {
			return wire.Errorf(http.StatusForbidden, "You are not permitted to create images owned by '%s'.", img.Owner)
		}
		return err
	}
	return s.allowVisibility(ctx, catalog.Visibility(t.Visibility), t)
}

// allowVisibility asks the policy about the visibilities that need a right of
// their own, for what t is before it gets one.
func (s *Server) allowVisibility(ctx context.Context, v catalog.Visibility, t wire.Target) error {
	switch v {
	case catalog.VisibilityPublic:
		return s.allow(ctx, "publicize_image", t)
	case catalog.VisibilityCommunity:
		return s.allow(ctx, "communitize_image", t)
	}
	return nil
}

// target describes an image to the policy.
func (s *Server) target(ctx context.Context, img *catalog.Image) wire.Target {
	member := ""
	who := wire.IdentityFrom(ctx)
	if img.Visibility == catalog.VisibilityShared && who.ProjectID != "" && who.ProjectID != img.Owner {
		if _, err := s.cfg.Catalog.Member(ctx, img.ID, who.ProjectID); err == nil {
			member = who.ProjectID
		}
	}
	return policy.TargetOf(img, member)
}

// viewer says what an identity may see.
func viewer(who wire.Identity) catalog.Viewer {
	return catalog.Viewer{Project: who.ProjectID, Admin: who.Admin}
}

// find returns the image that the path names, if there is one for the caller.
// The policy is still to be asked.
func (s *Server) find(r *http.Request) (catalog.Image, error) {
	ctx, id := r.Context(), r.PathValue("id")
	img, err := s.cfg.Catalog.Image(ctx, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.cfg.Catalog.CanSee(viewer(wire.IdentityFrom(ctx)), img) {
		return catalog.Image{}, noImage(id)
	}
	return img, err
}

// lookup returns the image that the path names, if the policy allows the
// caller what the rule names.
func (s *Server) lookup(r *http.Request, rule string) (catalog.Image, error) {
	img, err := s.find(r)
	if err == nil {
		err = s.allowImage(r.Context(), rule, &img)
	}
	return img, err
}
