package api

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// maxSmallJSON bounds bodies of a key or two.
const maxSmallJSON = 64 << 10

type memberView struct {
	Image     string `json:"image_id"`
	Member    string `json:"member_id"`
	Status    string `json:"status"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
	Schema    string `json:"schema"`
}

func viewMember(m catalog.Member) memberView {
	return memberView{m.Image, m.Project, string(m.Status), timeText(m.CreatedAt), timeText(m.UpdatedAt), "/v2/schemas/member"}
}

// sharedImage returns the image of the path, which must be one that can have
// members, and asks the policy: first whether it may be seen.
func (s *Server) sharedImage(r *http.Request, rules ...string) (catalog.Image, error) {
	ctx := r.Context()
	img, err := s.find(r)
	if err != nil {
		return img, err
	}
	if img.Visibility != catalog.VisibilityShared {
		return img, wire.Errorf(http.StatusForbidden, "Only shared images have members; image %s is %s.", img.ID, img.Visibility)
	}
	t := s.target(ctx, &img)
	if s.allow(ctx, "get_image", t) != nil {
		return img, noImage(img.ID)
	}
	for _, rule := range rules {
		if err := s.allow(ctx, rule, t); err != nil {
			return img, err
		}
	}
	return img, nil
}

// sharedMember returns the member of the path, and asks the policy.
func (s *Server) sharedMember(r *http.Request, rules ...string) (catalog.Member, error) {
	img, err := s.sharedImage(r, "get_member")
	if err != nil {
		return catalog.Member{}, err
	}
	project := r.PathValue("project")
	m, err := s.cfg.Catalog.Member(r.Context(), img.ID, project)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ownMember(wire.IdentityFrom(r.Context()), img, m) {
		return m, wire.Errorf(http.StatusNotFound, "%.255s not found in the member list of the image %s.", project, img.ID)
	}
	if err != nil {
		return m, err
	}
	_, err = s.sharedImage(r, rules...)
	return m, err
}

// ownMember tells whether who may know of the member: the owner of the image
// knows all, a member only itself.
func ownMember(who wire.Identity, img catalog.Image, m catalog.Member) bool {
	return who.Admin || who.ProjectID == img.Owner || who.ProjectID == m.Project
}

func (s *Server) listMembers(w http.ResponseWriter, r *http.Request) error {
	img, err := s.sharedImage(r, "get_members")
	if err != nil {
		return err
	}
	members, err := s.cfg.Catalog.Members(r.Context(), img.ID)
	if err != nil {
		return err
	}
	views := []memberView{}
	if s.allow(r.Context(), "get_member", s.target(r.Context(), &img)) != nil {
		members = nil
	}
	for _, m := range members {
		if ownMember(wire.IdentityFrom(r.Context()), img, m) {
			views = append(views, viewMember(m))
		}
	}
	return wire.WriteJSON(w, http.StatusOK, map[string]any{"members": views, "schema": "/v2/schemas/members"})
}

func (s *Server) showMember(w http.ResponseWriter, r *http.Request) error {
	m, err := s.sharedMember(r)
	if err != nil {
		if wire.StatusOf(err) == http.StatusForbidden {
			err = wire.Errorf(http.StatusNotFound, "%w", err) // who may not see it learns nothing of it
		}
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, viewMember(m))
}

// field reads a body that is an object with one word in it that matters.
func field(r *http.Request, key string) (string, error) {
	var body map[string]any
	if err := wire.ReadJSON(r, maxSmallJSON, &body); err != nil {
		return "", err
	}
	value, ok := body[key]
	if !ok {
		return "", wire.Errorf(http.StatusBadRequest, "The body must be an object with %q in it.", key)
	}
	text, ok := value.(string)
	if !ok || strings.TrimSpace(text) == "" {
		return "", wire.Errorf(http.StatusBadRequest, "%q must be a string that is not empty.", key)
	}
	if p := problemText(value, maxName); p != "" {
		return "", wire.Errorf(http.StatusBadRequest, "%q %s.", key, p)
	}
	return text, nil
}

func (s *Server) addMember(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	project, err := field(r, "member")
	if err != nil {
		return err
	}
	img, err := s.sharedImage(r, "add_member")
	if err != nil {
		return err
	}
	s.adding.Lock() // or many at once would pass the quota together
	defer s.adding.Unlock()
	members, err := s.cfg.Catalog.Members(ctx, img.ID)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Project == project {
			return memberExists(project, img.ID)
		}
	}
	if n := len(members) + 1; over(n, s.cfg.Limits.Members) {
		return quota("members", s.cfg.Limits.Members, n)
	}
	m, err := s.cfg.Catalog.CreateMember(ctx, catalog.Member{Image: img.ID, Project: project, Status: catalog.MemberPending})
	if errors.Is(err, fs.ErrExist) {
		return memberExists(project, img.ID)
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.member.create", "member", img.ID+"/"+project)
	return wire.WriteJSON(w, http.StatusOK, viewMember(m))
}

func memberExists(project, image string) error {
	return wire.Errorf(http.StatusConflict, "Member %s is duplicated for image %s.", project, image)
}

func (s *Server) updateMember(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	status, err := field(r, "status")
	if err != nil {
		return err
	}
	m, err := s.sharedMember(r, "modify_member")
	if err != nil {
		return err
	}
	if m.Status = catalog.MemberStatus(status); !m.Status.Valid() {
		return wire.Errorf(http.StatusBadRequest, "The status %.60q is not one of %s.", status, strings.Join(memberStatuses(), ", "))
	}
	if m, err = s.cfg.Catalog.PutMember(ctx, m); err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.member.update", "member", m.Image+"/"+m.Project)
	return wire.WriteJSON(w, http.StatusOK, viewMember(m))
}

func (s *Server) removeMember(w http.ResponseWriter, r *http.Request) error {
	m, err := s.sharedMember(r, "delete_member")
	if err != nil {
		return err
	}
	if err := s.cfg.Catalog.DeleteMember(r.Context(), m.Image, m.Project); err != nil {
		return err
	}
	wire.Audit(r.Context(), s.cfg.Logger, "image.member.delete", "member", m.Image+"/"+m.Project)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
