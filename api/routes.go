package api

import (
	"net/http"

	"github.com/seed-478a8fee/platter/api/wire"
)

// routes is the table of the API: who answers what, and which policy rule is
// asked.
func (s *Server) routes() []wire.Route {
	return []wire.Route{
		{Method: "GET", Pattern: "/v2/images", Handle: s.listImages, Rule: "get_images"},
		{Method: "POST", Pattern: "/v2/images", Handle: s.createImage, Rule: "add_image"},
		{Method: "GET", Pattern: "/v2/images/{id}", Handle: bodiless(s.showImage), Rule: "get_image"},
		{Method: "PATCH", Pattern: "/v2/images/{id}", Handle: s.updateImage, Rule: "modify_image"},
		{Method: "DELETE", Pattern: "/v2/images/{id}", Handle: bodiless(s.deleteImage), Rule: "delete_image"},

		{Method: "GET", Pattern: "/v2/images/{id}/file", Handle: bodiless(s.download), Rule: "download_image"},
		{Method: "PUT", Pattern: "/v2/images/{id}/file", Handle: s.upload, Rule: "upload_image"},
		{Method: "PUT", Pattern: "/v2/images/{id}/stage", Handle: s.stage, Rule: "modify_image"},
		{Method: "POST", Pattern: "/v2/images/{id}/import", Handle: s.importImage, Rule: "modify_image"},
		{Method: "GET", Pattern: "/v2/images/{id}/tasks", Handle: bodiless(s.imageTasks), Rule: "get_image"},
		{Method: "POST", Pattern: "/v2/images/{id}/actions/deactivate", Handle: bodiless(s.deactivate), Rule: "deactivate"},
		{Method: "POST", Pattern: "/v2/images/{id}/actions/reactivate", Handle: bodiless(s.reactivate), Rule: "reactivate"},

		{Method: "PUT", Pattern: "/v2/images/{id}/tags/{tag}", Handle: bodiless(s.addTag), Rule: "modify_image"},
		{Method: "DELETE", Pattern: "/v2/images/{id}/tags/{tag}", Handle: bodiless(s.removeTag), Rule: "modify_image"},

		{Method: "GET", Pattern: "/v2/images/{id}/members", Handle: bodiless(s.listMembers), Rule: "get_members"},
		{Method: "POST", Pattern: "/v2/images/{id}/members", Handle: s.addMember, Rule: "add_member"},
		{Method: "GET", Pattern: "/v2/images/{id}/members/{project}", Handle: bodiless(s.showMember), Rule: "get_member"},
		{Method: "PUT", Pattern: "/v2/images/{id}/members/{project}", Handle: s.updateMember, Rule: "modify_member"},
		{Method: "DELETE", Pattern: "/v2/images/{id}/members/{project}", Handle: bodiless(s.removeMember), Rule: "delete_member"},

		{Method: "GET", Pattern: "/v2/cache", Handle: bodiless(s.showCache), Rule: "cache_list"},
		{Method: "DELETE", Pattern: "/v2/cache", Handle: bodiless(s.clearCache), Rule: "cache_delete"},
		{Method: "PUT", Pattern: "/v2/cache/{id}", Handle: bodiless(s.queueCached), Rule: "cache_image"},
		{Method: "DELETE", Pattern: "/v2/cache/{id}", Handle: bodiless(s.dropCached), Rule: "cache_delete"},
		{Method: "GET", Pattern: "/v2/cache/nodes/{id}", Handle: bodiless(s.cacheNodes), Rule: "list_cached_nodes"},
		{Method: "POST", Pattern: "/v2/cache/clean", Handle: bodiless(s.cleanCache), Rule: "manage_image_cache"},
		{Method: "POST", Pattern: "/v2/cache/prune", Handle: bodiless(s.pruneCache), Rule: "manage_image_cache"},

		{Method: "GET", Pattern: "/v2/tasks", Handle: s.listTasks, Rule: "tasks_api_access"},
		{Method: "POST", Pattern: "/v2/tasks", Handle: s.createTask, Rule: "tasks_api_access"},
		{Method: "GET", Pattern: "/v2/tasks/{id}", Handle: bodiless(s.showTask), Rule: "tasks_api_access"},

		{Method: "GET", Pattern: "/v2/schemas/{schema}", Handle: bodiless(s.showSchema)},
		{Method: "GET", Pattern: "/v2/info/import", Handle: bodiless(s.importInfo)},
		{Method: "GET", Pattern: "/v2/info/stores", Handle: bodiless(s.storesInfo)},
		{Method: "GET", Pattern: "/v2/info/stores/detail", Handle: bodiless(s.storesDetail), Rule: "stores_info_detail"},
		{Method: "GET", Pattern: "/v2/info/usage", Handle: bodiless(s.usageInfo)},
		{Method: "DELETE", Pattern: "/v2/stores/{store}/{id}", Handle: bodiless(s.deleteFromStore), Rule: "delete_image_location"},
	}
}

// bodiless is for handlers that take no body and refuse one.
func bodiless(h wire.Handler) wire.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := wire.NoBody(r); err != nil {
			return err
		}
		return h(w, r)
	}
}
