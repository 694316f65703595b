package api

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/seed-478a8fee/platter/catalog"
)

// TestSchemas checks what the server says against the schemas that it serves,
// as a client does.
func TestSchemas(t *testing.T) {
	for _, auth := range []bool{false, true} {
		s, data := newServer(t, func(c *Config) {
			c.Stores = []Store{{ID: "mem"}, {ID: "other"}}
			if auth {
				c.Auth = headerAuth{}
			}
		})
		who := []string{"X-Test-Project: p1", "X-Test-Roles: admin,member"}
		id := create(t, s, `{"name":"a","tags":["x"],"kernel_id":null,"x":"y","disk_format":"raw","container_format":"bare"}`, who...)
		do(s, "PUT", "/v2/images/"+id+"/file", "data", append(who, octets)...)
		do(s, "POST", "/v2/images/"+id+"/members", `{"member":"p2"}`, who...)
		task, err := data.cat.CreateTask(t.Context(), catalog.Task{ID: id, Type: "capture", Status: catalog.TaskProcessing, ImageID: id,
			Progress: catalog.Progress{Done: 3, Total: 4}})
		if err != nil {
			t.Fatal(err)
		}
		for path, schema := range map[string]string{
			"/v2/images/" + id: "image", "/v2/images": "images", "/v2/images/" + id + "/members": "members",
			"/v2/images/" + id + "/members/p2": "member", "/v2/tasks": "tasks", "/v2/tasks/" + task.ID: "task",
		} {
			checker := compile(t, do(s, "GET", "/v2/schemas/"+schema, "", who...).Body.Bytes())
			answer := do(s, "GET", path, "", who...)
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer.Body.Bytes()))
			if err != nil || answer.Code != 200 {
				t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
			}
			if err := checker.Validate(v); err != nil {
				t.Errorf("%s does not fit its schema %s: %v\n%s", path, schema, err, answer.Body)
			}
		}
		var shown struct{ Progress catalog.Progress }
		if err := json.Unmarshal(do(s, "GET", "/v2/tasks/"+task.ID, "", who...).Body.Bytes(), &shown); err != nil || shown.Progress != task.Progress {
			t.Errorf("the task shows the progress %+v, %v", shown.Progress, err)
		}
		var img struct{ Properties map[string]any }
		if err := json.Unmarshal(s.schemas["image"], &img); err != nil {
			t.Fatal(err)
		}
		if _, ok := img.Properties["stores"]; ok != auth {
			t.Errorf("with tokens %v: stores in the schema is %v", auth, ok)
		}
	}
}

func compile(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
