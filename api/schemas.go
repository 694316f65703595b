package api

import (
	"encoding/json"
	"maps"
	"net/http"

	"github.com/seed-478a8fee/platter/api/wire"
)

// Clients download these schemas and check with them what they send, so
// names, types, limits and flags are those of the Image API.

type object = map[string]any

// uuidPattern is the pattern of an id in every schema.
const uuidPattern = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

// schemas encodes every schema once.
func schemas(cfg Config) (map[string]json.RawMessage, error) {
	image := imageSchema(cfg)
	member := plainSchema("member", memberProperties())
	task := plainSchema("task", taskProperties(true))
	all := map[string]object{
		"image": image, "images": collectionSchema("images", image),
		"member": member, "members": listSchema("members", member),
		"task": task, "tasks": listSchema("tasks", plainSchema("task", taskProperties(false))),
	}
	out := map[string]json.RawMessage{}
	for name, schema := range all {
		b, err := json.Marshal(schema)
		if err != nil {
			return nil, err
		}
		out[name] = b
	}
	return out, nil
}

func (s *Server) showSchema(w http.ResponseWriter, r *http.Request) error {
	b, ok := s.schemas[r.PathValue("schema")]
	if !ok {
		return wire.Errorf(http.StatusNotFound, "There is no schema %.100q.", r.PathValue("schema"))
	}
	return wire.WriteJSON(w, http.StatusOK, b)
}

func plainSchema(name string, properties object) object {
	return object{"name": name, "properties": properties}
}

// listSchema is the schema of a list that Glance's does not say how to page.
func listSchema(name string, item object) object {
	return object{
		"name":       name,
		"properties": object{name: object{"type": "array", "items": item}, "schema": object{"type": "string"}},
		"links":      []object{{"rel": "describedby", "href": "{schema}"}},
	}
}

func collectionSchema(name string, item object) object {
	text := object{"type": "string"}
	return object{
		"name": name,
		"properties": object{
			name:    object{"type": "array", "items": item},
			"first": text, "next": text, "schema": text,
		},
		"links": []object{
			{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"},
		},
	}
}

func imageSchema(cfg Config) object {
	properties := baseProperties(cfg)
	if cfg.Auth == nil {
		// A glance command without Keystone makes an option of every
		// property, and two of its own are called --stores.
		delete(properties, "stores")
	}
	for name, p := range operatorProperties() {
		p["is_base"] = false
		properties[name] = p
	}
	return object{
		"name": "image", "properties": properties, "additionalProperties": object{"type": "string"},
		"links": []object{
			{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"},
		},
	}
}

func nullable(kind string) []string { return []string{"null", kind} }

// readOnly adds what a property has that only the server sets.
func readOnly(p object) object {
	p["readOnly"] = true
	return p
}

func described(text string, p object) object {
	p["description"] = text
	return p
}

func baseProperties(cfg Config) object {
	return object{
		"id":            described("The image's id", object{"type": "string", "pattern": uuidPattern}),
		"name":          described("The image's name, for people", object{"type": nullable("string"), "maxLength": 255}),
		"status":        readOnly(described("Where the image is in its life", object{"type": "string", "enum": imageStatuses()})),
		"visibility":    described("Who may see the image", object{"type": "string", "enum": visibilities()}),
		"protected":     described("Whether deleting the image is refused", object{"type": "boolean"}),
		"os_hidden":     described("Whether lists leave the image out unless asked for hidden ones", object{"type": "boolean"}),
		"checksum":      readOnly(described("MD5 of the image's bytes", object{"type": nullable("string"), "maxLength": 32})),
		"os_hash_algo":  readOnly(described("The hash that os_hash_value is", object{"type": nullable("string"), "maxLength": 64})),
		"os_hash_value": readOnly(described("Hash of the image's bytes, in hexadecimal", object{"type": nullable("string"), "maxLength": 128})),
		"owner":         described("The project that owns the image", object{"type": nullable("string"), "maxLength": 255}),
		"size":          readOnly(described("Size of the image's file in bytes", object{"type": nullable("integer")})),
		"virtual_size":  readOnly(described("Size of the disk in the image in bytes", object{"type": nullable("integer")})),
		"container_format": described("The format of what is around the disk",
			object{"type": nullable("string"), "enum": withNull(cfg.ContainerFormats)}),
		"disk_format": described("The format of the disk", object{"type": nullable("string"), "enum": withNull(cfg.DiskFormats)}),
		"created_at":  readOnly(described("When the image was made", object{"type": "string"})),
		"updated_at":  readOnly(described("When the image last changed", object{"type": "string"})),
		"tags":        described("Words attached to the image", object{"type": "array", "items": object{"type": "string", "maxLength": 255}}),
		"direct_url":  readOnly(described("Where the bytes are in their store", object{"type": "string"})),
		"min_ram":     described("Memory needed to boot, in MB", object{"type": "integer"}),
		"min_disk":    described("Disk needed to boot, in GB", object{"type": "integer"}),
		"self":        readOnly(described("The URL of the image", object{"type": "string"})),
		"file":        readOnly(described("The URL of the image's bytes", object{"type": "string"})),
		"stores":      readOnly(described("The stores that have the bytes, with commas between", object{"type": "string"})),
		"schema":      readOnly(described("The URL of this schema", object{"type": "string"})),
		"locations":   locationsSchema(),
	}
}

func locationsSchema() object {
	return described("Where the bytes are in their stores", object{
		"type": "array",
		"items": object{
			"type":     "object",
			"required": []string{"url", "metadata"},
			"properties": object{
				"url":      object{"type": "string", "maxLength": 255},
				"metadata": object{"type": "object"},
				"validation_data": described("Hashes that the bytes must have; of a queued image they become its hashes", object{
					"type": "object", "writeOnly": true, "additionalProperties": false,
					"required": []string{"os_hash_algo", "os_hash_value"},
					"properties": object{
						"checksum":      object{"type": "string", "minLength": 32, "maxLength": 32},
						"os_hash_algo":  object{"type": "string", "maxLength": 64},
						"os_hash_value": object{"type": "string", "maxLength": 128},
					},
				}),
			},
		},
	})
}

// operatorProperties are the properties that Glance's default
// schema-image.json adds.
func operatorProperties() map[string]object {
	image := func(what string) object {
		return described(what, object{"type": nullable("string"), "pattern": uuidPattern})
	}
	text := func(what string) object { return described(what, object{"type": "string"}) }
	return map[string]object{
		"kernel_id":                image("The image that holds the kernel to boot with"),
		"ramdisk_id":               image("The image that holds the initial RAM disk to boot with"),
		"instance_uuid":            text("The instance that the image was made from"),
		"architecture":             text("The processor architecture of the system in the image"),
		"os_distro":                text("The short name of the distribution in the image"),
		"os_version":               text("The version of the system in the image, as its distributor writes it"),
		"description":              text("What the image is, for people"),
		"cinder_encryption_key_id": text("The key of a volume that is made from the image"),
		"cinder_encryption_key_deletion_policy": described("What happens to that key when the image is deleted",
			object{"type": "string", "enum": keyDeletionPolicies()}),
	}
}

func memberProperties() object {
	return object{
		"member_id":  described("The project that the image is shared with", object{"type": "string"}),
		"image_id":   described("The image that is shared", object{"type": "string", "pattern": uuidPattern}),
		"created_at": described("When the image was shared", object{"type": "string"}),
		"updated_at": described("When the status last changed", object{"type": "string"}),
		"status":     described("What the project says to it", object{"type": "string", "enum": memberStatuses()}),
		"schema":     object{"readOnly": true, "type": "string"},
	}
}

// taskProperties are those of a task, or of a task in a list, which has no
// input, result, message and progress.
func taskProperties(whole bool) object {
	p := object{
		"id":         described("The task's id", object{"type": "string", "pattern": uuidPattern}),
		"type":       described("What the task does", object{"type": "string", "enum": taskTypes()}),
		"status":     described("How far it is", object{"type": "string", "enum": taskStatuses()}),
		"owner":      described("The project that it works for, if any", object{"type": nullable("string")}),
		"image_id":   described("The image that it works on", object{"type": "string"}),
		"request_id": described("The request that started it", object{"type": "string"}),
		"user_id":    described("The user who started it", object{"type": "string"}),
		"expires_at": described("When the record of it may go away", object{"type": nullable("string")}),
		"created_at": described("When it was made", object{"type": "string"}),
		"updated_at": described("When it last changed", object{"type": "string"}),
		"self":       object{"readOnly": true, "type": "string"},
		"schema":     object{"readOnly": true, "type": "string"},
	}
	if whole {
		maps.Copy(p, object{
			"input":   described("What it was given", object{"type": nullable("object")}),
			"result":  described("What came of it", object{"type": nullable("object")}),
			"message": described("What went wrong, or how far it is, for people", object{"type": "string"}),
			"progress": described("How many of its bytes are done", object{
				"type": "object", "properties": object{"done": object{"type": "integer"}, "total": object{"type": "integer"}},
			}),
		})
	}
	return p
}
