package metadefs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/seed-478a8fee/platter/api/wire"
)

// schemas are what bodies are checked with, and what clients download to check
// with: names, types and limits are those of the Image API.
type schemas struct {
	checks map[string]*jsonschema.Schema
	served map[string]json.RawMessage
}

// Limits of the Image API, in characters.
const (
	maxName        = 80
	maxDescription = 500
)

func text(limit int) object {
	o := object{"type": "string"}
	if limit > 0 {
		o["maxLength"] = limit
	}
	return o
}

func described(what string, o object) object {
	o["description"] = what
	return o
}

func moment(what string) object {
	return object{"type": "string", "readOnly": true, "description": what, "format": "date-time"}
}

func ref(name string) object { return object{"$ref": "#/definitions/" + name} }

func arrayOf(item object) object { return object{"type": "array", "items": item} }

// kinds are the types that a property may have.
func kinds() []any {
	return []any{"array", "boolean", "integer", "number", "object", "string", nil}
}

// propertySchema is what the definition of a property may say.
func propertySchema() object {
	return object{
		"name": text(maxName), "title": text(0), "description": text(0), "operators": arrayOf(text(0)),
		"type": object{"type": "string", "enum": kinds()}, "required": ref("stringArray"),
		"minimum": object{"type": "number"}, "maximum": object{"type": "number"},
		"maxLength": ref("positiveInteger"), "minLength": ref("positiveIntegerDefault0"),
		"pattern": object{"type": "string", "format": "regex"}, "enum": object{"type": "array"},
		"readonly": object{"type": "boolean"}, "default": object{},
		"items": object{"type": "object", "properties": object{
			"type": object{"type": "string", "enum": kinds()}, "enum": object{"type": "array"},
		}},
		"maxItems": ref("positiveInteger"), "minItems": ref("positiveIntegerDefault0"),
		"uniqueItems": object{"type": "boolean", "default": false}, "additionalItems": object{"type": "boolean"},
	}
}

// shared are the definitions that the schema of a property refers to.
func shared() object {
	return object{
		"positiveInteger":         object{"type": "integer", "minimum": 0},
		"positiveIntegerDefault0": object{"allOf": []any{ref("positiveInteger"), object{"default": 0}}},
		"stringArray":             object{"type": "array", "items": text(0), "uniqueItems": true, "minItems": 1},
	}
}

func definitions() object {
	return object{
		"positiveInteger":         object{"type": "integer", "minimum": 0},
		"positiveIntegerDefault0": object{"allOf": []any{ref("positiveInteger"), object{"default": 0}}},
		"stringArray":             object{"type": "array", "items": text(0), "uniqueItems": true},
		"property": object{"type": "object", "additionalProperties": object{
			"type": "object", "required": []any{"title", "type"}, "properties": propertySchema(),
		}},
	}
}

func objectSchema() object {
	return object{
		"name": text(maxName), "description": text(0), "required": ref("stringArray"), "properties": ref("property"),
		"schema": object{"type": "string", "readOnly": true}, "self": object{"type": "string", "readOnly": true},
		"created_at": moment("When the object was made"), "updated_at": moment("When the object last changed"),
	}
}

func associationSchema() object {
	return object{
		"name":              described("The type of resource, by the name that Heat has for it if it has one", text(maxName)),
		"prefix":            described("What the names of properties begin with on resources of the type, its separator included", text(maxName)),
		"properties_target": described("Which of several sets of properties of the resource is meant", text(maxName)),
		"created_at":        moment("When the type was associated"), "updated_at": moment("When the association last changed"),
	}
}

func tagSchema() object {
	return object{
		"name":       text(maxName),
		"created_at": moment("When the tag was made"), "updated_at": moment("When the tag last changed"),
	}
}

func namespaceSchema() object {
	part := func(properties object) object { return object{"type": "object", "properties": properties} }
	return object{
		"namespace":    described("The name of the namespace, which is unique", text(maxName)),
		"display_name": described("The name for people", text(maxName)),
		"description":  described("What the namespace is for", text(maxDescription)),
		"visibility":   described("Who may see the namespace", object{"type": "string", "enum": []any{"public", "private"}}),
		"protected":    described("Whether deleting the namespace is refused", object{"type": "boolean"}),
		"owner":        described("The project that owns the namespace", text(255)),
		"created_at":   moment("When the namespace was made"), "updated_at": moment("When the namespace last changed"),
		"schema": object{"type": "string", "readOnly": true}, "self": object{"type": "string", "readOnly": true},
		"resource_type_associations": arrayOf(part(object{"name": text(0), "prefix": text(0), "properties_target": text(0)})),
		"properties":                 ref("property"),
		"objects": arrayOf(part(object{
			"name": text(0), "description": text(0), "required": ref("stringArray"), "properties": ref("property"),
		})),
		"tags": arrayOf(part(object{"name": text(0)})),
	}
}

func newSchemas() (*schemas, error) {
	one := func(name string, properties object, required ...any) object {
		return object{"name": name, "properties": properties, "required": required, "definitions": definitions(), "additionalProperties": false}
	}
	namespace := one("namespace", namespaceSchema(), "namespace")
	property := one("property", propertySchema(), "type", "title", "name")
	nameless := one("property", propertySchema(), "type", "title")
	obj := one("object", objectSchema(), "name")
	association := one("resource_type_association", associationSchema(), "name")
	tag := one("tag", tagSchema(), "name")
	delete(association, "definitions")
	delete(tag, "definitions")
	property["definitions"], nameless["definitions"] = shared(), shared()
	s := &schemas{checks: map[string]*jsonschema.Schema{}, served: map[string]json.RawMessage{}}
	for name, schema := range map[string]object{
		"namespace": namespace, "namespaces": collection("namespaces", namespace),
		"object": obj, "objects": collection("objects", obj),
		"property": property, "properties": dictionary("properties", nameless),
		"resource_type": association, "resource_types": collection("resource_type_associations", association),
		"tag": tag, "tags": collection("tags", tag),
	} {
		b, err := json.Marshal(schema)
		if err != nil {
			return nil, err
		}
		s.served[name] = b
	}
	checks := map[string]object{
		"namespace": namespace, "object": obj, "property": property, "nameless": nameless, "resource_type": association, "tag": tag,
		"tags": {"properties": object{"tags": arrayOf(object{
			"type": "object", "properties": object{"name": text(maxName)}, "required": []any{"name"}, "additionalProperties": false,
		})}, "additionalProperties": false},
	}
	for name, schema := range checks {
		if err := s.compile(name, schema); err != nil {
			return nil, fmt.Errorf("metadefs: schema %s: %w", name, err)
		}
	}
	return s, nil
}

func (s *schemas) compile(name string, schema object) error {
	text, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4)
	if err := c.AddResource(name, doc); err != nil {
		return err
	}
	s.checks[name], err = c.Compile(name)
	return err
}

// check returns an error of status 400 if a value does not fit a schema.
func (s *schemas) check(name string, value any) error {
	err := s.checks[name].Validate(value)
	if err == nil {
		return nil
	}
	return wire.Errorf(http.StatusBadRequest, "The body does not fit the schema %q: %.500s", name, flat(err))
}

// flat writes what a schema says on one line.
func flat(err error) string {
	_, list, ok := strings.Cut(err.Error(), "\n")
	if !ok {
		list = err.Error()
	}
	return strings.Join(strings.Fields(strings.ReplaceAll(list, "\n", ";")), " ")
}

func (s *schemas) serve(name string) wire.Handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		return wire.WriteJSON(w, http.StatusOK, s.served[name])
	}
}

// collection is the schema of a list.
func collection(name string, item object) object {
	return paged(name, item, object{"type": "array", "items": without(item, "definitions")})
}

// dictionary is the schema of items by name.
func dictionary(name string, item object) object {
	return paged(name, item, object{"type": "object", "additionalProperties": without(item, "definitions")})
}

func paged(name string, item, list object) object {
	out := object{
		"name": name, "properties": object{name: list, "first": text(0), "next": text(0), "schema": text(0)},
		"links": []any{
			object{"rel": "first", "href": "{first}"}, object{"rel": "next", "href": "{next}"}, object{"rel": "describedby", "href": "{schema}"},
		},
	}
	if d, ok := item["definitions"]; ok {
		out["definitions"] = d
	}
	return out
}

func without(o object, key string) object {
	out := object{}
	for k, v := range o {
		if k != key {
			out[k] = v
		}
	}
	return out
}
