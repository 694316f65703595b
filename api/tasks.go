package api

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// taskView writes a task as clients see it, or as they see it in a list.
func taskView(t catalog.Task, whole bool) object {
	v := object{
		"id": t.ID, "type": t.Type, "status": t.Status, "owner": orNull(t.Owner),
		"created_at": timeText(t.CreatedAt), "updated_at": timeText(t.UpdatedAt),
		"self": "/v2/tasks/" + t.ID, "schema": "/v2/schemas/task",
	}
	if !t.ExpiresAt.IsZero() {
		v["expires_at"] = timeText(t.ExpiresAt)
	}
	if !whole {
		return v
	}
	v["input"], v["result"], v["message"] = t.Input, t.Result, t.Message
	if t.Progress.Total > 0 { // ours: Glance's tasks do not know how far they are
		v["progress"] = object{"done": t.Progress.Done, "total": t.Progress.Total}
	}
	for key, value := range map[string]string{"image_id": t.ImageID, "request_id": t.RequestID, "user_id": t.UserID} {
		if value != "" {
			v[key] = value
		}
	}
	return v
}

// orNull is null for "".
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (s *Server) listTasks(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := s.allow(ctx, "tasks_api_access", wire.Target{Kind: "task"}); err != nil {
		return err
	}
	values, err := queryValues(r)
	if err != nil {
		return err
	}
	q, err := s.parseTaskQuery(values)
	if err != nil {
		return err
	}
	q.Viewer = viewer(wire.IdentityFrom(ctx))
	limit := q.Limit
	q.Limit = max(limit, 1)
	list, err := s.cfg.Catalog.Tasks(ctx, q)
	if errors.Is(err, catalog.ErrMarker) {
		err = badQuery("The marker %.60q is no task.", q.Marker)
	}
	if err != nil {
		return err
	}
	list = list[:min(limit, len(list))]
	views := make([]object, 0, len(list))
	for _, t := range list {
		views = append(views, taskView(t, false))
	}
	values.Del("marker")
	body := object{"tasks": views, "first": link("/v2/tasks", values), "schema": "/v2/schemas/tasks"}
	if len(list) > 0 && len(list) == limit {
		values.Set("marker", list[len(list)-1].ID)
		body["next"] = link("/v2/tasks", values)
	}
	return wire.WriteJSON(w, http.StatusOK, body)
}

func (s *Server) parseTaskQuery(values url.Values) (catalog.TaskQuery, error) {
	q := catalog.TaskQuery{
		Type: last(values, "type"), Status: catalog.TaskStatus(last(values, "status")),
		Owner: last(values, "owner"), SortKey: last(values, "sort_key"), Marker: last(values, "marker"),
	}
	var err error
	if q.Limit, err = parseLimit(values, s.cfg.Paging); err != nil {
		return q, err
	}
	if q.SortKey == "" {
		q.SortKey = "created_at"
	}
	keys := []string{"created_at", "updated_at", "expires_at", "id", "type", "status"}
	dir := last(values, "sort_dir")
	switch {
	case !slices.Contains(keys, q.SortKey):
		err = badQuery("Invalid sort key: %.60s. It must be one of the following: %s.", q.SortKey, strings.Join(keys, ", "))
	case dir != "" && dir != "asc" && dir != "desc":
		err = badQuery("Invalid sort direction: %.60s. It must be asc or desc.", dir)
	case q.Status != "" && !slices.Contains(taskStatuses(), string(q.Status)):
		err = badQuery("Invalid status value: %.60s. It must be one of %s.", q.Status, strings.Join(taskStatuses(), ", "))
	case q.Type != "" && !slices.Contains(taskTypes(), q.Type):
		err = badQuery("Invalid type value: %.60s. It must be one of %s.", q.Type, strings.Join(taskTypes(), ", "))
	case q.Marker != "" && !isUUID(s.checker.uuid, q.Marker):
		err = badQuery("Invalid marker format: %.60q is no UUID.", q.Marker)
	}
	q.Asc = dir == "asc"
	return q, err
}

func (s *Server) showTask(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	if err := s.allow(ctx, "tasks_api_access", wire.Target{Kind: "task", ID: id}); err != nil {
		return err
	}
	t, err := s.cfg.Catalog.Task(ctx, id)
	who := wire.IdentityFrom(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !who.Admin && who.ProjectID != t.Owner {
		return wire.Errorf(http.StatusNotFound, "No task found with ID %.255s", id)
	}
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, taskView(t, true))
}

// createTask begins a task of the one type that clients begin so: import.
func (s *Server) createTask(w http.ResponseWriter, r *http.Request) error {
	if err := s.allow(r.Context(), "tasks_api_access", wire.Target{Kind: "task"}); err != nil {
		return err
	}
	var body map[string]any
	if err := wire.ReadJSON(r, maxImageJSON, &body); err != nil {
		return err
	}
	for _, key := range []string{"type", "input"} {
		if _, ok := body[key]; !ok {
			return wire.Errorf(http.StatusBadRequest, "Task '%s' is required.", key)
		}
	}
	if p := problemEnum(body["type"], taskTypes()); p != "" {
		return wire.Errorf(http.StatusBadRequest, "The type of a task %s.", p)
	}
	if _, ok := body["input"].(map[string]any); !ok && body["input"] != nil {
		return wire.Errorf(http.StatusBadRequest, "The input of a task must be an object.")
	}
	input, _ := body["input"].(map[string]any)
	if body["type"] != "import" {
		return wire.Errorf(http.StatusForbidden, "Tasks of this type are begun by other calls; here clients begin those of type import.")
	}
	return s.importTask(w, r, input)
}

// imageTasks lists an image's tasks in the form that this one call has: all
// of the record, and times with fractions.
func (s *Server) imageTasks(w http.ResponseWriter, r *http.Request) error {
	img, err := s.lookup(r, "get_image")
	if err != nil {
		return err
	}
	// What an administrator does to an image is shown to its owner, too. To
	// others it is not: where an image was downloaded from may be a secret.
	who := wire.IdentityFrom(r.Context())
	see := viewer(who)
	see.Admin = see.Admin || who.ProjectID != "" && who.ProjectID == img.Owner
	list, err := s.cfg.Catalog.Tasks(r.Context(), catalog.TaskQuery{Viewer: see, ImageID: img.ID})
	if err != nil {
		return err
	}
	views := make([]object, 0, len(list))
	for _, t := range list {
		v := object{
			"id": t.ID, "type": t.Type, "status": t.Status, "owner": orNull(t.Owner), "input": t.Input, "result": t.Result,
			"message": t.Message, "image_id": t.ImageID, "request_id": orNull(t.RequestID), "user_id": orNull(t.UserID),
			"created_at": fractional(t.CreatedAt), "updated_at": fractional(t.UpdatedAt), "expires_at": fractional(t.ExpiresAt),
			"deleted": false, "deleted_at": nil,
		}
		views = append(views, v)
	}
	return wire.WriteJSON(w, http.StatusOK, object{"tasks": views})
}

func fractional(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000")
}
