package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// DefaultPolicy is the policy without a policy file: Glance's defaults with
// secure RBAC. An admin may do everything.
type DefaultPolicy struct{}

// Allow tells whether who may do what the rule names to the target.
func (DefaultPolicy) Allow(_ context.Context, who wire.Identity, rule string, target wire.Target) error {
	if who.Admin || allows(who, rule, target) {
		return nil
	}
	return wire.Errorf(http.StatusForbidden, "You may not do this: the policy rule %q does not allow it to you.", rule)
}

func allows(who wire.Identity, rule string, t wire.Target) bool {
	owns := who.ProjectID != "" && who.ProjectID == t.Owner
	writer := who.HasRole("member") && !who.ReadOnly
	reader := who.HasRole("member") || who.HasRole("reader") || who.ReadOnly
	open := t.Visibility == "public" || t.Visibility == "community" || t.Owner == "" && t.Kind == "image"
	sees := owns || open || t.Visibility == "shared" && t.IsMember
	switch rule {
	case "get_images", "get_image_location", "get_metadef_namespaces":
		return reader
	case "get_image":
		return reader && sees
	case "download_image", "download_from_store":
		return (writer || who.ReadOnly) && sees
	case "add_image", "delete_image", "modify_image", "upload_image", "communitize_image", "set_image_location",
		"add_member", "delete_member", "deactivate", "reactivate":
		return writer && owns
	case "get_member", "get_members":
		return reader && (owns || t.IsMember)
	case "modify_member":
		return writer && who.ProjectID != "" && who.ProjectID == t.Member
	case "stores_info_detail":
		return who.HasRole("service")
	}
	// What is not Glance's belongs to its owner; what has none, to admins.
	return strings.HasPrefix(rule, "platter:") && writer && owns
}

// allow asks the policy about something that is no image.
func (s *Server) allow(ctx context.Context, rule string, t wire.Target) error {
	return s.cfg.Policy.Allow(ctx, wire.IdentityFrom(ctx), rule, t)
}

// allowImage asks the policy about an image.
func (s *Server) allowImage(ctx context.Context, rule string, img catalog.Image) error {
	return s.allow(ctx, rule, s.target(ctx, img))
}

// target describes an image to the policy.
func (s *Server) target(ctx context.Context, img catalog.Image) wire.Target {
	t := wire.Target{Kind: "image", ID: img.ID, Owner: img.Owner, Visibility: string(img.Visibility)}
	who := wire.IdentityFrom(ctx)
	if img.Visibility == catalog.VisibilityShared && who.ProjectID != "" && who.ProjectID != img.Owner {
		_, err := s.cfg.Catalog.Member(ctx, img.ID, who.ProjectID)
		t.IsMember = err == nil
	}
	return t
}

// viewer says what an identity may see.
func viewer(who wire.Identity) catalog.Viewer {
	return catalog.Viewer{Project: who.ProjectID, Admin: who.Admin}
}
