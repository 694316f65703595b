package importer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
)

// TestGlance: an image of another service comes with what its record says of
// it, and leaves nothing behind if it does not come.
func TestGlance(t *testing.T) {
	r := newRoom(t)
	var record, data string
	remote := &Remote{
		Endpoint: func(_ context.Context, region, iface string) (string, error) {
			if region != "one" || iface != "public" {
				return "", errors.New("there is none")
			}
			return "http://images.example.org/v2/", nil
		},
		Fetch: func(_ context.Context, uri, token string) (io.ReadCloser, int64, error) {
			if token != "secret" {
				return nil, 0, errors.New("401")
			}
			switch uri {
			case "http://images.example.org/v2/images/there":
				return io.NopCloser(strings.NewReader(record)), -1, nil
			case "http://images.example.org/v2/images/there/file":
				return io.NopCloser(strings.NewReader(data)), int64(len(data)), nil
			}
			return nil, 0, errors.New("404")
		},
	}
	g := r.gateway("g", func(c *Config) { c.Remote = remote })
	if _, err := g.cat.CreateImage(t.Context(), catalog.Image{
		ID: imageID, DiskFormat: "iso", ContainerFormat: "ovf", Properties: map[string]string{"os_distro": "mine", "own": "x"},
	}); err != nil {
		t.Fatal(err)
	}
	good := `{"status":"active","size":4,"disk_format":"raw","container_format":"bare","hw_cores":"5","os_distro":"debian","os_glance_x":"y","speed":"z","name":"n"}`
	for _, c := range []struct {
		name, record, data, token, region string
		want                              string // in the message of a failure
	}{
		{"no region", good, "data", "secret", "two", "there is none"},
		{"bad token", good, "data", "other", "one", "401"},
		{"no token", good, "data", "", "one", "keeps no tokens"},
		{"no record", "nonsense", "data", "secret", "one", "cannot be read"},
		{"not active", strings.Replace(good, "active", "queued", 1), "data", "secret", "one", "must be active"},
		{"no size", strings.Replace(good, `"size":4`, `"size":null`, 1), "data", "secret", "one", "its size"},
		{"too short", good, "dat", "secret", "one", "not whole"},
		{"other format", strings.Replace(good, `"raw"`, `"qcow2"`, 1), "data", "secret", "one", "qcow2"},
		{"good", good, "data", "secret", "one", ""},
	} {
		record, data = c.record, c.data
		task, err := g.Start(t.Context(), Request{
			Image: imageID, Method: Glance, Stores: []string{"a"}, AllMustSucceed: true,
			From: Source{Image: "there", Region: c.region, Interface: "public", Token: c.token},
			Body: map[string]any{"method": map[string]any{"name": Glance, "glance_image_id": "there", "glance_region": c.region}},
		})
		if err != nil {
			t.Fatal(err)
		}
		task = g.wait(task.ID)
		img := g.record()
		if c.want != "" {
			if task.Status != catalog.TaskFailure || !strings.Contains(task.Message, c.want) {
				t.Errorf("%s: the task is %+v", c.name, task)
			}
			if img.Status != catalog.StatusQueued || img.DiskFormat != "iso" || img.ContainerFormat != "ovf" || img.Properties["os_distro"] != "mine" || img.Properties["hw_cores"] != "" {
				t.Errorf("%s: the image is %+v", c.name, img)
			}
			continue
		}
		if task.Status != catalog.TaskSuccess || img.Status != catalog.StatusActive || img.DiskFormat != "raw" || img.ContainerFormat != "bare" {
			t.Errorf("%s: %+v, %+v", c.name, task, img)
		}
		p := img.Properties
		if p["os_distro"] != "debian" || p["hw_cores"] != "5" || p["own"] != "x" || p["speed"] != "" || p["os_glance_x"] != "" {
			t.Errorf("%s: properties %v", c.name, p)
		}
	}
	if got := g.Methods(); strings.Join(got, " ") != "glance-direct web-download copy-image glance-download" {
		t.Errorf("methods %v", got)
	}
	tasks, err := g.cat.Tasks(t.Context(), catalog.TaskQuery{Viewer: admin()})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if strings.Contains(strings.ToLower(task.Message), "secret") || strings.Contains(strings.ToLower(toText(task.Input)), "secret") {
			t.Errorf("a token is written down: %+v", task)
		}
	}
}

func toText(m map[string]any) string {
	var b strings.Builder
	for key, value := range m {
		if inner, ok := value.(map[string]any); ok {
			b.WriteString(toText(inner))
			continue
		}
		if text, ok := value.(string); ok {
			b.WriteString(key + "=" + text + " ")
		}
	}
	return b.String()
}
