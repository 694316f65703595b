package api

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// TestTasksOfImage: its owner and administrators see all tasks of an image,
// others only theirs.
func TestTasksOfImage(t *testing.T) {
	s, data := newServer(t, func(cfg *Config) { cfg.Auth = headerAuth{} })
	admin := []string{"X-Test-Project: p0", "X-Test-Roles: admin,member,reader"}
	id := create(t, s, `{"name":"x","owner":"p1","visibility":"public"}`, admin...)
	for task, owner := range map[string]string{"11111111-2222-3333-4444-555555555551": "p0", "11111111-2222-3333-4444-555555555552": "p1", "11111111-2222-3333-4444-555555555553": "p2"} {
		_, err := data.cat.CreateTask(t.Context(), catalog.Task{ID: task, Type: "api_image_import", Status: catalog.TaskPending, Owner: owner, ImageID: id, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for project, want := range map[string]int{"p0": 3, "p1": 3, "p2": 1, "p3": 0} {
		header := []string{"X-Test-Project: " + project}
		if project == "p0" {
			header = admin
		}
		w := do(s, "GET", "/v2/images/"+id+"/tasks", "", header...)
		var list struct{ Tasks []any }
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Tasks) != want {
			t.Errorf("%s sees %d tasks, want %d: %d %s", project, len(list.Tasks), want, w.Code, w.Body)
		}
	}
}
