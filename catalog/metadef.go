package catalog

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Namespace is a set of definitions of metadata, with everything in it: it
// is one record, so that a change of any part is one transaction.
type Namespace struct {
	Name        string
	DisplayName *string // nil: none
	Description *string // nil: none
	Visibility  Visibility
	Protected   bool   // cannot be deleted
	Owner       string // project; "": none

	ResourceTypes []Association
	Properties    []MetaProperty
	Objects       []MetaObject
	Tags          []MetaTag

	CreatedAt time.Time // to the microsecond, UTC
	UpdatedAt time.Time // to the microsecond, UTC
	Revision  int64     // of the record; not stored
}

// An Association says that the definitions of a namespace are for a type of
// resource.
type Association struct {
	Name             string    `json:"name"`
	Prefix           *string   `json:"prefix,omitempty"` // of the names of properties, for this type
	PropertiesTarget *string   `json:"properties_target,omitempty"`
	CreatedAt        time.Time `json:"created_at"`
	UpdatedAt        time.Time `json:"updated_at"`
}

// A MetaProperty is the definition of one property: a JSON schema.
type MetaProperty struct {
	Name   string          `json:"name"`
	Schema json.RawMessage `json:"schema"`
}

// A MetaObject is the definition of properties that belong together.
type MetaObject struct {
	Name        string          `json:"name"`
	Description *string         `json:"description,omitempty"`
	Required    []string        `json:"required,omitempty"`
	Properties  json.RawMessage `json:"properties,omitempty"` // schemas by name
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
}

// A MetaTag is a word.
type MetaTag struct {
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// A ResourceType is one that some namespace was or is for.
type ResourceType struct {
	Name      string
	CreatedAt time.Time
}

// Clone returns a copy that shares nothing that can be changed with n.
func (n Namespace) Clone() Namespace {
	n.DisplayName, n.Description = clone(n.DisplayName), clone(n.Description)
	n.ResourceTypes = slices.Clone(n.ResourceTypes)
	n.Properties = slices.Clone(n.Properties)
	n.Objects = slices.Clone(n.Objects)
	n.Tags = slices.Clone(n.Tags)
	return n
}

type namespaceRecord struct {
	V             int            `json:"v"`
	DisplayName   *string        `json:"display_name,omitempty"`
	Description   *string        `json:"description,omitempty"`
	Visibility    Visibility     `json:"visibility"`
	Protected     bool           `json:"protected,omitempty"`
	Owner         string         `json:"owner,omitempty"`
	ResourceTypes []Association  `json:"resource_types,omitempty"`
	Properties    []MetaProperty `json:"properties,omitempty"`
	Objects       []MetaObject   `json:"objects,omitempty"`
	Tags          []MetaTag      `json:"tags,omitempty"`
	CreatedAt     time.Time      `json:"created_at"`
	UpdatedAt     time.Time      `json:"updated_at"`
}

func (n Namespace) record() namespaceRecord {
	return namespaceRecord{recordVersion, n.DisplayName, n.Description, n.Visibility, n.Protected, n.Owner,
		n.ResourceTypes, n.Properties, n.Objects, n.Tags, n.CreatedAt, n.UpdatedAt}
}

func decodeNamespace(p Pair) (Namespace, error) {
	var r namespaceRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Namespace{}, err
	}
	name, err := url.PathUnescape(strings.TrimPrefix(p.Key, preNamespace))
	if err != nil || namespaceKey(name) != p.Key {
		return Namespace{}, &RecordError{p.Key, fmt.Errorf("the key is no name of a namespace")}
	}
	return Namespace{name, r.DisplayName, r.Description, r.Visibility, r.Protected, r.Owner,
		r.ResourceTypes, r.Properties, r.Objects, r.Tags, moment(r.CreatedAt), moment(r.UpdatedAt), p.Revision}, nil
}

func decodeResourceType(p Pair) (ResourceType, error) {
	var r markRecord
	if err := decode(p, &r, &r.V); err != nil {
		return ResourceType{}, err
	}
	name, err := url.PathUnescape(strings.TrimPrefix(p.Key, preResourceType))
	if err != nil || resourceTypeKey(name) != p.Key {
		return ResourceType{}, &RecordError{p.Key, fmt.Errorf("the key is no name of a resource type")}
	}
	return ResourceType{name, moment(r.At)}, nil
}
