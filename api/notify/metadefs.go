package notify

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/catalog"
)

// Definitions tells of a change of a namespace of metadata definitions. action
// is the event of which it is the most: metadef_object.create,
// metadef_namespace.delete_tags. What has come, changed or gone is found out by
// comparing; before is nil of a namespace that is new, after of one that is gone.
func (n *Notifier) Definitions(ctx context.Context, action string, before, after *catalog.Namespace) {
	if n == nil || len(n.queues) == 0 {
		return
	}
	group, verb, _ := strings.Cut(action, ".")
	switch {
	case before == nil:
		n.Emit(ctx, "metadef_namespace.create", namespacePayload(after))
		empty := catalog.Namespace{Name: after.Name}
		for _, part := range []string{"metadef_resource_type", "metadef_object", "metadef_tag", "metadef_property"} {
			n.parts(ctx, part, "create", partsOf(part, &empty), partsOf(part, after))
		}
	case after == nil:
		n.Emit(ctx, "metadef_namespace.delete", n.gone(namespacePayload(before)))
	case group != "metadef_namespace":
		n.parts(ctx, group, verb, partsOf(group, before), partsOf(group, after))
	default:
		p := namespacePayload(after)
		p["namespace_old"] = before.Name
		n.Emit(ctx, action, p)
	}
}

func (n *Notifier) gone(p object) object {
	p["deleted"], p["deleted_at"] = true, timeText(n.now())
	return p
}

// parts tells of the parts of one kind that a change was about.
func (n *Notifier) parts(ctx context.Context, group, verb string, before, after []object) {
	missing := func(p object, from []object) bool {
		return !slices.ContainsFunc(from, func(o object) bool { return o["name"] == p["name"] && o["created_at"] == p["created_at"] })
	}
	event := group + "." + verb
	switch verb {
	case "create":
		for _, p := range after {
			if missing(p, before) {
				n.Emit(ctx, event, p)
			}
		}
	case "delete":
		for _, p := range before {
			if missing(p, after) {
				if list, ok := p["required"].([]string); ok && list == nil {
					p["required"] = []string{} // Glance has it from its database by now
				}
				n.Emit(ctx, event, n.gone(p))
			}
		}
	case "update":
		for i, p := range after {
			if i < len(before) && !reflect.DeepEqual(p, before[i]) {
				p["name_old"] = before[i]["name"]
				n.Emit(ctx, event, p)
			}
		}
	}
}

func namespacePayload(ns *catalog.Namespace) object {
	return object{
		"namespace": ns.Name, "namespace_old": ns.Name, "display_name": ns.DisplayName, "description": ns.Description,
		"protected": ns.Protected, "visibility": ns.Visibility, "owner": orNull(ns.Owner),
		"created_at": timeText(ns.CreatedAt), "updated_at": timeText(ns.UpdatedAt), "deleted": false, "deleted_at": nil,
	}
}

// partsOf returns the payloads of one kind of part.
func partsOf(group string, ns *catalog.Namespace) (out []object) {
	part := func(name string, more object) {
		more["namespace"], more["name"], more["name_old"] = ns.Name, name, name
		more["deleted"], more["deleted_at"] = false, nil
		out = append(out, more)
	}
	switch group {
	case "metadef_resource_type":
		for _, a := range ns.ResourceTypes {
			part(a.Name, object{"prefix": a.Prefix, "properties_target": a.PropertiesTarget,
				"created_at": timeText(a.CreatedAt), "updated_at": timeText(a.UpdatedAt)})
		}
	case "metadef_tag":
		for _, t := range ns.Tags {
			part(t.Name, object{"created_at": timeText(t.CreatedAt), "updated_at": timeText(t.UpdatedAt)})
		}
	case "metadef_property":
		for _, p := range ns.Properties {
			part(p.Name, schemaPayload(p.Schema))
		}
	case "metadef_object":
		for _, o := range ns.Objects {
			part(o.Name, object{"description": o.Description, "required": o.Required, "properties": objectProperties(o.Properties),
				"created_at": timeText(o.CreatedAt), "updated_at": timeText(o.UpdatedAt)})
		}
	}
	return out
}

// schemaPayload is the part of a schema that events have.
func schemaPayload(schema json.RawMessage) object {
	fields, out := object{}, object{}
	if json.Unmarshal(schema, &fields) != nil { // it was an object when it came
		fields = object{}
	}
	for _, key := range []string{"type", "title", "description", "default", "minimum", "maximum", "enum", "pattern", "minLength", "maxLength",
		"confidential", "items", "uniqueItems", "minItems", "maxItems", "additionalItems"} {
		out[key] = fields[key]
	}
	return out
}

func objectProperties(schemas json.RawMessage) []object {
	out := []object{}
	var all map[string]json.RawMessage
	if json.Unmarshal(schemas, &all) != nil {
		return out
	}
	for name, schema := range all {
		p := schemaPayload(schema)
		p["name"] = name
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b object) int { return strings.Compare(a["name"].(string), b["name"].(string)) })
	return out
}
