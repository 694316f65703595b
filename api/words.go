package api

// The closed sets of words in the Image API.

func imageStatuses() []string {
	return []string{"queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"}
}

func visibilities() []string { return []string{"community", "public", "private", "shared"} }

func memberStatuses() []string { return []string{"pending", "accepted", "rejected"} }

func taskStatuses() []string { return []string{"pending", "processing", "success", "failure"} }

// taskTypes are Glance's, and the one that is ours.
func taskTypes() []string {
	return []string{"import", "api_image_import", "location_import", "capture"}
}

func keyDeletionPolicies() []string { return []string{"on_image_deletion", "do_not_delete"} }

func defaultDiskFormats() []string {
	return []string{"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"}
}

func defaultContainerFormats() []string {
	return []string{"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
}

func sortKeys() []string {
	return []string{"name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"}
}

// withNull is an enum that null is in as well.
func withNull(words []string) []any {
	out := []any{nil}
	for _, w := range words {
		out = append(out, w)
	}
	return out
}

// readOnlyNames are the properties that only the server sets.
func readOnlyNames() []string {
	return []string{"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url",
		"self", "file", "schema", "id", "os_hash_algo", "os_hash_value"}
}

// reservedNames are not used for properties.
func reservedNames() []string { return []string{"location", "deleted", "deleted_at"} }

// reservedPrefix begins the names of properties that the server keeps.
const reservedPrefix = "os_glance"
