package notify

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

func TestDefinitions(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	whole := func() *catalog.Namespace {
		return &catalog.Namespace{
			Name: "N", Visibility: catalog.VisibilityPublic, CreatedAt: at, UpdatedAt: at,
			ResourceTypes: []catalog.Association{{Name: "r", CreatedAt: at}},
			Properties:    []catalog.MetaProperty{{Name: "p", Schema: json.RawMessage(`{"title":"t","type":"string"}`)}},
			Objects:       []catalog.MetaObject{{Name: "o", Properties: json.RawMessage(`{"q":{"title":"t"}}`), CreatedAt: at}},
			Tags:          []catalog.MetaTag{{Name: "t", CreatedAt: at}},
		}
	}
	change := func(f func(*catalog.Namespace)) *catalog.Namespace {
		n := whole()
		f(n)
		return n
	}
	for _, c := range []struct {
		action        string
		before, after *catalog.Namespace
		want          []string
		name, old     any // of the last payload
	}{
		{"metadef_namespace.create", nil, whole(), []string{"metadef_namespace.create", "metadef_resource_type.create", "metadef_object.create", "metadef_tag.create", "metadef_property.create"}, "p", "p"},
		{"metadef_namespace.update", whole(), change(func(n *catalog.Namespace) { n.Name = "M" }), []string{"metadef_namespace.update"}, nil, nil},
		{"metadef_namespace.delete", whole(), nil, []string{"metadef_namespace.delete"}, nil, nil},
		{"metadef_namespace.delete_tags", whole(), change(func(n *catalog.Namespace) { n.Tags = nil }), []string{"metadef_namespace.delete_tags"}, nil, nil},
		{"metadef_tag.update", whole(), change(func(n *catalog.Namespace) { n.Tags[0].Name = "u" }), []string{"metadef_tag.update"}, "u", "t"},
		{"metadef_tag.create", whole(), change(func(n *catalog.Namespace) { n.Tags[0].CreatedAt = at.Add(time.Hour) }), []string{"metadef_tag.create"}, "t", "t"},
		{"metadef_property.delete", whole(), change(func(n *catalog.Namespace) { n.Properties = nil }), []string{"metadef_property.delete"}, "p", "p"},
		{"metadef_object.update", whole(), change(func(n *catalog.Namespace) { n.Objects[0].Name = "x" }), []string{"metadef_object.update"}, "x", "o"},
		{"metadef_resource_type.delete", whole(), change(func(n *catalog.Namespace) { n.ResourceTypes = nil }), []string{"metadef_resource_type.delete"}, "r", "r"},
	} {
		p := &place{}
		n := newNotifier(t, p, Config{})
		n.Definitions(t.Context(), c.action, c.before, c.after)
		list := finish(t, n, p)
		if got := types(list); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.action, got, c.want)
			continue
		}
		payload := body(t, list[len(list)-1])["payload"].(map[string]any)
		if payload["name"] != c.name || payload["name_old"] != c.old {
			t.Errorf("%s: of %v, before %v; want %v and %v", c.action, payload["name"], payload["name_old"], c.name, c.old)
		}
	}
}
