package catalogtest

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
)

func testNamespaces(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	c := Start(t, kv, catalog.Config{GatewayID: "a"})
	n := must(c.CreateNamespace(ctx, catalog.Namespace{
		Name: "OS::A/b c", Owner: "p", Protected: true, Tags: []catalog.MetaTag{{Name: "t"}},
		ResourceTypes: []catalog.Association{{Name: "T"}},
	}))(t)
	if n.Visibility != catalog.VisibilityPrivate || n.CreatedAt.IsZero() || n.Revision == 0 {
		t.Errorf("created: %+v", n)
	}
	if _, err := c.CreateNamespace(ctx, catalog.Namespace{Name: n.Name}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	for _, bad := range []catalog.Namespace{{}, {Name: "x", Visibility: catalog.VisibilityShared}} {
		if _, err := c.CreateNamespace(ctx, bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := c.DeleteNamespace(ctx, n.Name); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("delete a protected one: %v", err)
	}
	must(c.CreateNamespace(ctx, catalog.Namespace{Name: "taken"}))(t)
	rename := func(to string) error {
		_, err := c.UpdateNamespace(ctx, n.Name, func(n *catalog.Namespace) error {
			n.Name, n.Protected = to, false
			n.ResourceTypes = append(n.ResourceTypes, catalog.Association{Name: "U"})
			return nil
		})
		return err
	}
	if err := rename("taken"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename to a name that is taken: %v", err)
	}
	if err := rename("moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Namespace(ctx, n.Name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	other := Start(t, kv, catalog.Config{GatewayID: "b"})
	for _, c := range []*catalog.Catalog{c, other} {
		got := must(c.Namespace(ctx, "moved"))(t)
		if !got.CreatedAt.Equal(n.CreatedAt) || len(got.Tags) != 1 || len(got.ResourceTypes) != 2 {
			t.Errorf("moved: %+v", got)
		}
		list, types := must(c.Namespaces(ctx))(t), must(c.ResourceTypes(ctx))(t)
		if len(list) != 2 || list[0].Name != "moved" || len(types) != 2 || types[0].Name != "T" || types[1].Name != "U" {
			t.Errorf("namespaces %v, types %v", list, types)
		}
	}
	if err := c.DeleteNamespace(ctx, "moved"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteNamespace(ctx, "moved"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete it again: %v", err)
	}
	if types := must(c.ResourceTypes(ctx))(t); len(types) != 2 {
		t.Errorf("types %v are left of 2", types)
	}
}
