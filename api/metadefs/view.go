package metadefs

import (
	"encoding/json"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// What records look like to clients. A field that a record does not have is
// left out.

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func put(o object, key string, value *string) {
	if value != nil {
		o[key] = *value
	}
}

// viewNamespace writes a namespace without its parts.
func viewNamespace(n *catalog.Namespace) object {
	o := object{
		"namespace": n.Name, "visibility": n.Visibility, "protected": n.Protected,
		"created_at": timeText(n.CreatedAt), "updated_at": timeText(n.UpdatedAt),
		"self": root + "/" + n.Name, "schema": "/v2/schemas/metadefs/namespace",
	}
	put(o, "display_name", n.DisplayName)
	put(o, "description", n.Description)
	if n.Owner != "" {
		o["owner"] = n.Owner
	}
	return o
}

// viewWhole writes a namespace with its parts, as one type of resource has
// them if prefix is not empty.
func viewWhole(n *catalog.Namespace, prefix string) object {
	o := viewNamespace(n)
	if len(n.ResourceTypes) > 0 {
		o["resource_type_associations"] = viewAssociations(n)
	}
	if len(n.Properties) > 0 {
		o["properties"] = viewProperties(n, prefix)
	}
	if len(n.Objects) > 0 {
		list := make([]object, len(n.Objects))
		for i := range n.Objects {
			list[i] = viewObject(n, &n.Objects[i], prefix)
		}
		o["objects"] = list
	}
	if len(n.Tags) > 0 {
		o["tags"] = tagNames(n.Tags)
	}
	return o
}

func viewAssociations(n *catalog.Namespace) []object {
	list := make([]object, len(n.ResourceTypes))
	for i := range n.ResourceTypes {
		list[i] = viewAssociation(&n.ResourceTypes[i])
	}
	return list
}

func viewAssociation(a *catalog.Association) object {
	o := object{"name": a.Name, "created_at": timeText(a.CreatedAt), "updated_at": timeText(a.UpdatedAt)}
	put(o, "prefix", a.Prefix)
	put(o, "properties_target", a.PropertiesTarget)
	return o
}

func viewProperties(n *catalog.Namespace, prefix string) object {
	all := object{}
	for _, p := range n.Properties {
		all[prefix+p.Name] = p.Schema
	}
	return all
}

// viewProperty writes one property, its name in it.
func viewProperty(p *catalog.MetaProperty) object {
	o := object{}
	if json.Unmarshal(p.Schema, &o) != nil { // it was an object when it came
		o = object{}
	}
	o["name"] = p.Name
	return o
}

func viewObject(n *catalog.Namespace, obj *catalog.MetaObject, prefix string) object {
	required := make([]string, len(obj.Required))
	for i, name := range obj.Required {
		required[i] = prefix + name
	}
	var properties map[string]json.RawMessage
	if json.Unmarshal(obj.Properties, &properties) != nil {
		properties = nil
	}
	renamed := map[string]json.RawMessage{}
	for name, schema := range properties {
		renamed[prefix+name] = schema
	}
	o := object{
		"name": obj.Name, "required": required, "properties": renamed,
		"created_at": timeText(obj.CreatedAt), "updated_at": timeText(obj.UpdatedAt),
		"self": root + "/" + n.Name + "/objects/" + obj.Name, "schema": "/v2/schemas/metadefs/object",
	}
	put(o, "description", obj.Description)
	return o
}

func viewTag(t *catalog.MetaTag) object {
	return object{"name": t.Name, "created_at": timeText(t.CreatedAt), "updated_at": timeText(t.UpdatedAt)}
}

func tagNames(tags []catalog.MetaTag) []object {
	list := make([]object, len(tags))
	for i, t := range tags {
		list[i] = object{"name": t.Name}
	}
	return list
}
