package policy

import (
	"strconv"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// none is how oslo.policy spells what has no value.
const none = "None"

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func boolean(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func number(n *int64) string {
	if n == nil {
		return none
	}
	return strconv.FormatInt(*n, 10)
}

// credentialText returns how to read a credential that is one text, or nil.
func credentialText(name string) func(*wire.Identity) (string, bool) {
	var field func(*wire.Identity) string
	switch name {
	case "user_id":
		field = func(w *wire.Identity) string { return w.UserID }
	case "user_domain_id":
		field = func(w *wire.Identity) string { return w.UserDomainID }
	case "project_id":
		// The credential that nearly every rule asks for.
		return func(w *wire.Identity) (string, bool) { return orNone(w.ProjectID), true }
	case "project_domain_id":
		field = func(w *wire.Identity) string { return w.ProjectDomainID }
	case "domain_id":
		field = func(w *wire.Identity) string { return w.DomainID }
	case "system_scope":
		field = func(w *wire.Identity) string { return w.SystemScope }
	case "system": // the only one that is not there without a value
		return func(w *wire.Identity) (string, bool) { return w.SystemScope, w.SystemScope != "" }
	case "is_admin":
		return func(w *wire.Identity) (string, bool) { return boolean(w.Admin), true }
	case "is_admin_project": // Keystone says otherwise only to say less
		return func(*wire.Identity) (string, bool) { return "True", true }
	case "service_user_id":
		field = func(w *wire.Identity) string { return w.Service.UserID }
	case "service_user_domain_id":
		field = func(w *wire.Identity) string { return w.Service.UserDomainID }
	case "service_project_id":
		field = func(w *wire.Identity) string { return w.Service.ProjectID }
	case "service_project_domain_id":
		field = func(w *wire.Identity) string { return w.Service.ProjectDomainID }
	default:
		return nil
	}
	return func(w *wire.Identity) (string, bool) { return orNone(field(w)), true }
}

// credentialList returns how to read a credential that is a list, or nil.
func credentialList(name string) func(*wire.Identity) []string {
	switch name {
	case "roles":
		return func(w *wire.Identity) []string { return w.Roles }
	case "service_roles":
		return func(w *wire.Identity) []string { return w.Service.Roles }
	}
	return nil
}

// attribute returns how to read an attribute of a target.
func attribute(name string) func(*wire.Target) (string, bool) {
	switch name {
	case "project_id", "owner":
		return ownerOf
	case "id":
		return func(t *wire.Target) (string, bool) { return t.ID, t.ID != "" }
	case "image_id":
		return func(t *wire.Target) (string, bool) { return t.ID, t.Image != nil }
	case "kind":
		return func(t *wire.Target) (string, bool) { return t.Kind, t.Kind != "" }
	case "visibility":
		return func(t *wire.Target) (string, bool) { return t.Visibility, t.Visibility != "" }
	case "member", "member_id":
		return func(t *wire.Target) (string, bool) { return orNone(t.Member), t.Image != nil }
	}
	if field := imageField(name); field != nil {
		return func(t *wire.Target) (string, bool) {
			if t.Image == nil {
				return "", false
			}
			return field(t.Image), true
		}
	}
	return func(t *wire.Target) (string, bool) {
		if t.Image == nil {
			return "", false
		}
		value, ok := t.Image.Properties[name]
		return value, ok
	}
}

// ownerOf is the project of a target. What can belong to a project and does
// not has "None"; what cannot, has no owner at all.
func ownerOf(t *wire.Target) (string, bool) {
	return orNone(t.Owner), t.Owner != "" || t.Kind == "image" || t.Kind == "images"
}

// imageField returns how to read a base field of an image, or nil.
func imageField(name string) func(*catalog.Image) string {
	switch name {
	case "name":
		return func(i *catalog.Image) string {
			if i.Name == nil {
				return none
			}
			return *i.Name
		}
	case "status":
		return func(i *catalog.Image) string { return string(i.Status) }
	case "min_disk":
		return func(i *catalog.Image) string { return strconv.FormatInt(i.MinDisk, 10) }
	case "min_ram":
		return func(i *catalog.Image) string { return strconv.FormatInt(i.MinRAM, 10) }
	case "protected":
		return func(i *catalog.Image) string { return boolean(i.Protected) }
	case "os_hidden":
		return func(i *catalog.Image) string { return boolean(i.Hidden) }
	case "checksum":
		return func(i *catalog.Image) string { return orNone(i.Checksum) }
	case "disk_format":
		return func(i *catalog.Image) string { return orNone(i.DiskFormat) }
	case "container_format":
		return func(i *catalog.Image) string { return orNone(i.ContainerFormat) }
	case "size":
		return func(i *catalog.Image) string { return number(i.Size) }
	case "virtual_size":
		return func(i *catalog.Image) string { return number(i.VirtualSize) }
	case "os_hash_algo":
		return func(i *catalog.Image) string { return orNone(i.HashAlgo) }
	case "os_hash_value":
		return func(i *catalog.Image) string { return orNone(i.HashValue) }
	}
	return nil
}

// TargetOf describes an image to the policy. member is the asking project if
// the image is shared with it, else "".
func TargetOf(img *catalog.Image, member string) wire.Target {
	return wire.Target{Kind: "image", ID: img.ID, Owner: img.Owner, Visibility: string(img.Visibility), Member: member, Image: img}
}
