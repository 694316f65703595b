package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

func memberKind() kind[Member] {
	return kind[Member]{"member", preMember, decodeMember, func(s *state, id string) (Member, int64, bool) {
		image, project := cutMember(preMember + id)
		m, ok := s.images.members[image][project]
		return m, m.Revision, ok
	}}
}

// Member returns a project's part in an image, or fs.ErrNotExist.
func (c *Catalog) Member(_ context.Context, image, project string) (Member, error) {
	m, err := get(c, memberKind(), image+"/"+project)
	if err != nil {
		return Member{}, fmt.Errorf("catalog: %w", err)
	}
	return m, nil
}

// Members returns all projects that an image is shared with, the oldest first.
func (c *Catalog) Members(_ context.Context, image string) ([]Member, error) {
	var list []Member
	err := fmt.Errorf("catalog: members of image %s: %w", image, fs.ErrNotExist)
	c.store.read(func(s *state) {
		if _, ok := s.images.byID[image]; !ok {
			return
		}
		err = nil
		for _, m := range s.images.members[image] {
			list = append(list, m)
		}
	})
	slices.SortFunc(list, func(a, b Member) int {
		if n := a.CreatedAt.Compare(b.CreatedAt); n != 0 {
			return n
		}
		return strings.Compare(a.Project, b.Project)
	})
	return list, err
}

// CreateMember shares an image with a project, pending unless it has a
// status. A project that is a member already is fs.ErrExist.
func (c *Catalog) CreateMember(ctx context.Context, m Member) (Member, error) {
	return c.writeMember(ctx, m, true)
}

// PutMember adds a member or changes its status.
func (c *Catalog) PutMember(ctx context.Context, m Member) (Member, error) {
	return c.writeMember(ctx, m, false)
}

func (c *Catalog) writeMember(ctx context.Context, m Member, isNew bool) (Member, error) {
	if m.Status == "" {
		m.Status = MemberPending
	}
	err := m.check()
	if err == nil {
		// The image does not change, but it must still be there: a delete
		// takes all members with it, and none may come after.
		m.Revision, err = change(ctx, c, imageKind(), m.Image, func(Image) (Txn, error) {
			return c.memberTxn(ctx, &m, isNew)
		})
	}
	if err != nil {
		return Member{}, fmt.Errorf("catalog: member %s of image %s: %w", m.Project, m.Image, err)
	}
	return m, nil
}

func (c *Catalog) memberTxn(ctx context.Context, m *Member, isNew bool) (Txn, error) {
	key := memberKey(m.Image, m.Project)
	old, seen, err := fresh(ctx, c, memberKind(), m.Image+"/"+m.Project)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		m.CreatedAt = c.now()
		m.UpdatedAt = m.CreatedAt
	case err != nil:
		return Txn{}, err
	case isNew:
		return Txn{}, fmt.Errorf("already a member: %w", fs.ErrExist)
	default:
		m.CreatedAt, m.UpdatedAt = old.CreatedAt, c.after(old.UpdatedAt)
	}
	op, err := put(key, m.record())
	return Txn{If: []Cond{{Key: key, Revision: seen}}, Then: []Op{op}}, err
}

func (m Member) check() error {
	if !m.Status.Valid() {
		return fmt.Errorf("status %q: %w", m.Status, fs.ErrInvalid)
	}
	if m.Project == "" || len(m.Project) > 255 {
		return fmt.Errorf("project of %d bytes: %w (1 to 255 are allowed)", len(m.Project), fs.ErrInvalid)
	}
	return nil
}

// DeleteMember stops sharing an image with a project.
func (c *Catalog) DeleteMember(ctx context.Context, image, project string) error {
	id := image + "/" + project
	_, err := change(ctx, c, memberKind(), id, func(Member) (Txn, error) {
		return Txn{Then: []Op{{Key: preMember + id, Delete: true}}}, nil
	})
	if err != nil {
		return fmt.Errorf("catalog: delete member: %w", err)
	}
	return nil
}
