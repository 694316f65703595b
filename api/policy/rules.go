package policy

import "strings"

// A Rule is one that an operation asks, or that other rules name.
type Rule struct {
	Name     string
	Check    string   // the default, in the language
	About    string   // what it lets one do
	Calls    []string // the operations that ask it
	Formerly string   // the name that it had; a file may still use it
	AnyScope bool     // tokens for a domain or the system may use it
	Unused   bool     // no operation asks it any more
}

// The parts that defaults are made of.
const (
	admin  = "role:admin"
	member = "role:member and project_id:%(project_id)s"
	reader = "role:reader and project_id:%(project_id)s"

	visible = "project_id:%(project_id)s or project_id:%(member_id)s or " +
		"'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s"

	ownMember = admin + " or (" + member + ")"
	ownReader = admin + " or (" + reader + ")"
	sees      = admin + " or (role:reader and (" + visible + "))"
	reads     = admin + " or (role:member and (" + visible + "))"
	knows     = admin + " or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
	namespace = admin + " or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"
	service   = "role:service or service_roles:service"
)

// Rules returns all rules with their defaults: Glance's and ours.
func Rules() []Rule {
	return append(append(glanceRules(), metadefRules()...), ownRules()...)
}

// image is one operation on an image.
func image(call string) []string {
	method, rest, _ := strings.Cut(call, " ")
	return []string{method + " /v2/images/{id}" + rest}
}

func glanceRules() []Rule {
	const v2 = "/v2/images"
	return []Rule{
		{Name: "default", Check: "", About: "a rule to be named by others", AnyScope: true},
		{Name: "context_is_admin", Check: admin, About: "who is an administrator: sees all images, and is_admin is True", AnyScope: true},

		{Name: "get_images", Check: ownReader, About: "list images", Calls: []string{"GET " + v2}},
		{Name: "add_image", Check: admin + " or (" + member + " and project_id:%(owner)s)", About: "make an image", Calls: []string{"POST " + v2}},
		{Name: "get_image", Check: sees, About: "see an image", Calls: append(image("GET"), image("GET /tasks")...)},
		{Name: "modify_image", Check: ownMember, About: "change an image", Calls: append(append(image("PATCH"), image("PUT /tags/{tag}")...), image("DELETE /tags/{tag}")...)},
		{Name: "delete_image", Check: ownMember, About: "delete an image", Calls: image("DELETE")},
		{Name: "publicize_image", Check: admin, About: "make an image public", Calls: append([]string{"POST " + v2}, image("PATCH")...)},
		{Name: "communitize_image", Check: ownMember, About: "make an image a community image", Calls: append([]string{"POST " + v2}, image("PATCH")...)},
		{Name: "download_image", Check: reads, About: "read the bytes of an image, in every form", Calls: image("GET /file")},
		{Name: "download_from_store", Check: reads, About: "say which store a download comes from", Calls: image("GET /file")},
		{Name: "upload_image", Check: ownMember, About: "give an image its bytes", Calls: image("PUT /file")},
		{Name: "deactivate", Check: ownMember, About: "keep an image from being read", Calls: image("POST /actions/deactivate")},
		{Name: "reactivate", Check: ownMember, About: "let it be read again", Calls: image("POST /actions/reactivate")},
		{Name: "copy_image", Check: admin, About: "copy an image to more stores", Calls: image("POST /import")},

		{Name: "get_image_location", Check: ownReader, About: "see where the bytes of an image are", Calls: image("GET")},
		{Name: "set_image_location", Check: ownMember, About: "say where the bytes of an image are", Calls: image("PATCH")},
		{Name: "delete_image_location", Check: admin, About: "delete one copy of an image", Calls: []string{"DELETE /v2/stores/{store}/{id}"}},
		{Name: "service_api", Check: service, About: "a service that acts for its users", AnyScope: true},
		{Name: "add_image_location", Check: admin + " or rule:service_api or (" + member + " and project_id:%(owner)s)", About: "give an image its bytes by naming a place", Calls: image("POST /locations")},
		{Name: "fetch_image_location", Check: admin + " or rule:service_api", About: "list the places of an image's bytes", Calls: image("GET /locations")},

		{Name: "get_members", Check: knows, About: "list with whom an image is shared", Calls: image("GET /members")},
		{Name: "get_member", Check: knows, About: "see one of them", Calls: image("GET /members/{project}")},
		{Name: "add_member", Check: ownMember, About: "share an image with a project", Calls: image("POST /members")},
		{Name: "modify_member", Check: admin + " or (role:member and project_id:%(member_id)s)", About: "accept or reject what is shared", Calls: image("PUT /members/{project}")},
		{Name: "delete_member", Check: ownMember, About: "share it no longer", Calls: image("DELETE /members/{project}")},

		{Name: "tasks_api_access", Check: admin, About: "use the tasks API", Calls: []string{"GET /v2/tasks", "POST /v2/tasks", "GET /v2/tasks/{id}"}},
		{Name: "get_task", Check: "rule:default", Unused: true},
		{Name: "get_tasks", Check: "rule:default", Unused: true},
		{Name: "add_task", Check: "rule:default", Unused: true},
		{Name: "modify_task", Check: "rule:default", Unused: true},

		{Name: "manage_image_cache", Check: admin, About: "tidy up the cache", Calls: []string{"POST /v2/cache/clean", "POST /v2/cache/prune"}},
		{Name: "cache_image", Check: admin, About: "queue an image for the cache", Calls: []string{"PUT /v2/cache/{id}"}},
		{Name: "cache_list", Check: admin, About: "see what is cached", Calls: []string{"GET /v2/cache"}},
		{Name: "cache_delete", Check: admin, About: "take images out of the cache", Calls: []string{"DELETE /v2/cache", "DELETE /v2/cache/{id}"}},
		{Name: "list_cached_nodes", Check: admin, About: "see which gateways have an image cached", Calls: []string{"GET /v2/cache/nodes/{id}"}},

		{Name: "stores_info_detail", Check: admin + " or rule:service_api", About: "see how the stores are set up", Calls: []string{"GET /v2/info/stores/detail"}},
	}
}

// metadefRules are those of the metadata definitions.
func metadefRules() []Rule {
	const (
		all   = "/v2/metadefs/namespaces"
		one   = all + "/{namespace}"
		admin = "rule:metadef_admin"
	)
	out := []Rule{
		{Name: "metadef_default", Check: "", About: "a rule to be named by others", AnyScope: true},
		{Name: "metadef_admin", Check: "role:admin", About: "who may change metadata definitions", AnyScope: true},
		{Name: "get_metadef_namespaces", Check: ownReader, About: "list namespaces", Calls: []string{"GET " + all}},
		{Name: "get_metadef_namespace", Check: namespace, About: "see a namespace", Calls: []string{"GET " + one}},
		{Name: "add_metadef_namespace", Check: admin, About: "make a namespace", Calls: []string{"POST " + all}},
		{Name: "modify_metadef_namespace", Check: admin, About: "change a namespace", Calls: []string{"PUT " + one}},
		{Name: "delete_metadef_namespace", Check: admin, About: "delete a namespace", Calls: []string{"DELETE " + one}},
		{Name: "list_metadef_resource_types", Check: namespace, About: "list resource types", Calls: []string{"GET /v2/metadefs/resource_types"}},
		{Name: "get_metadef_resource_type", Check: namespace, About: "list the resource types of a namespace", Calls: []string{"GET " + one + "/resource_types"}},
		{Name: "add_metadef_resource_type_association", Check: admin, About: "tie a resource type to a namespace", Calls: []string{"POST " + one + "/resource_types"}},
		{Name: "remove_metadef_resource_type_association", Check: admin, About: "untie it", Calls: []string{"DELETE " + one + "/resource_types/{type}"}},
		{Name: "add_metadef_tags", Check: admin, About: "replace the tags of a namespace", Calls: []string{"POST " + one + "/tags"}},
		{Name: "delete_metadef_tags", Check: admin, About: "delete the tags of a namespace", Calls: []string{"DELETE " + one + "/tags"}},
	}
	for _, k := range []struct{ one, many, remove string }{
		{"object", "objects", "delete"}, {"property", "properties", "remove"}, {"tag", "tags", "delete"},
	} {
		item := one + "/" + k.many + "/{name}"
		add := "POST " + one + "/" + k.many
		if k.one == "tag" {
			add = "POST " + item
		}
		out = append(out,
			Rule{Name: "get_metadef_" + k.many, Check: namespace, About: "list the " + k.many + " of a namespace", Calls: []string{"GET " + one + "/" + k.many}},
			Rule{Name: "get_metadef_" + k.one, Check: namespace, About: "see one of its " + k.many, Calls: []string{"GET " + item}},
			Rule{Name: "add_metadef_" + k.one, Check: admin, About: "add one", Calls: []string{add}},
			Rule{Name: "modify_metadef_" + k.one, Check: admin, About: "change one", Calls: []string{"PUT " + item}},
			Rule{Name: k.remove + "_metadef_" + k.one, Check: admin, About: "delete one", Calls: []string{"DELETE " + item}},
		)
	}
	return out
}

// ownRules are those of what Glance does not have. A reader of a project sees
// what it has, a member changes it, and what concerns all projects or the
// machines is for administrators.
func ownRules() []Rule {
	const v1 = "/platter/v1"
	return []Rule{
		{Name: "platter:get_attachments", Check: ownReader, About: "list attachments", Calls: []string{"GET " + v1 + "/attachments"}},
		{Name: "platter:get_attachment", Check: ownReader, About: "see an attachment, without its secret", Calls: []string{"GET " + v1 + "/attachments/{id}"}},
		{Name: "platter:add_attachment", Check: ownMember, About: "attach an image (with download_image) or an overlay", Calls: []string{"POST " + v1 + "/attachments"}},
		{Name: "platter:delete_attachment", Check: ownMember, About: "detach, and cut the connections", Calls: []string{"DELETE " + v1 + "/attachments/{id}"}},

		{Name: "platter:get_overlays", Check: ownReader, About: "list overlays", Calls: []string{"GET " + v1 + "/overlays"}},
		{Name: "platter:get_overlay", Check: ownReader, About: "see an overlay and its snapshots", Calls: []string{"GET " + v1 + "/overlays/{id}", "GET " + v1 + "/overlays/{id}/snapshots"}},
		{Name: "platter:add_overlay", Check: ownMember, About: "make an overlay (with download_image)", Calls: []string{"POST " + v1 + "/overlays"}},
		{Name: "platter:modify_overlay", Check: ownMember, About: "rename, resize or flatten an overlay", Calls: []string{"PATCH " + v1 + "/overlays/{id}", "POST " + v1 + "/overlays/{id}/flatten"}},
		{Name: "platter:delete_overlay", Check: ownMember, About: "delete an overlay and what was written to it", Calls: []string{"DELETE " + v1 + "/overlays/{id}"}},
		{Name: "platter:snapshot_overlay", Check: ownMember, About: "make and delete snapshots", Calls: []string{"POST " + v1 + "/overlays/{id}/snapshots", "DELETE " + v1 + "/overlays/{id}/snapshots/{snapshot}"}},
		{Name: "platter:capture_overlay", Check: ownMember, About: "make an image of an overlay (with add_image and upload_image)", Calls: []string{"POST " + v1 + "/overlays/{id}/capture"}},

		{Name: "platter:capture_instance", Check: admin, About: "drive a hypervisor to capture an instance", Calls: []string{"POST " + v1 + "/captures"}},
		{Name: "platter:migrate_image", Check: admin, About: "take over an image of another service, with its id and its times", Calls: []string{"POST " + v1 + "/images", "POST " + v1 + "/images/{id}/adopt", "POST " + v1 + "/images/{id}/settle"}},
		{Name: "platter:get_stores", Check: admin, About: "see the stores and how they are", Calls: []string{"GET " + v1 + "/stores"}},
		{Name: "platter:get_cache", Check: admin, About: "see the cache of this gateway", Calls: []string{"GET " + v1 + "/cache"}},
		{Name: "platter:modify_cache", Check: admin, About: "drop what is cached or learned of an image", Calls: []string{"DELETE " + v1 + "/cache/images/{id}", "DELETE " + v1 + "/images/{id}/trace"}},
		{Name: "platter:get_nbd_connections", Check: admin, About: "see the NBD connections of this gateway", Calls: []string{"GET " + v1 + "/nbd/connections"}},
		{Name: "platter:delete_nbd_connection", Check: admin, About: "cut one", Calls: []string{"DELETE " + v1 + "/nbd/connections/{id}"}},
		{Name: "platter:watch_catalog", Check: ownReader, About: "follow the changes of what one sees", Calls: []string{"GET " + v1 + "/watch"}},
	}
}
