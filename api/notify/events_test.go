package notify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

func TestEvents(t *testing.T) {
	image := func(s catalog.Status) *catalog.Image {
		return &catalog.Image{ID: "i", Status: s, Visibility: catalog.VisibilityPublic, Properties: map[string]string{"k": "v", "os_glance_failed_import": "a,b"}}
	}
	member := &catalog.Member{Image: "i", Project: "p", Status: catalog.MemberPending}
	task := func(s catalog.TaskStatus, expires time.Time) *catalog.Task {
		return &catalog.Task{ID: "t", Status: s, ExpiresAt: expires}
	}
	soon := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		tell func(n *Notifier)
		want []string
	}{
		{"create", func(n *Notifier) { n.ImageChanged(t.Context(), nil, image("queued")) }, []string{"image.create"}},
		{"create active", func(n *Notifier) { n.ImageChanged(t.Context(), nil, image("active")) }, []string{"image.create", "image.activate"}},
		{"begin", func(n *Notifier) { n.ImageChanged(t.Context(), image("queued"), image("saving")) }, []string{"image.update", "image.prepare"}},
		{"finish", func(n *Notifier) { n.ImageChanged(t.Context(), image("saving"), image("active")) }, []string{"image.upload", "image.activate", "image.update"}},
		{"import", func(n *Notifier) { n.ImageChanged(t.Context(), image("importing"), image("active")) }, []string{"image.upload", "image.activate", "image.update"}},
		{"reactivate", func(n *Notifier) { n.ImageChanged(t.Context(), image("deactivated"), image("active")) }, []string{"image.update"}},
		{"change", func(n *Notifier) { n.ImageChanged(t.Context(), image("active"), image("active")) }, []string{"image.update"}},
		{"delete", func(n *Notifier) { n.ImageChanged(t.Context(), image("active"), nil) }, []string{"image.delete"}},
		{"share", func(n *Notifier) { n.MemberChanged(t.Context(), nil, member) }, []string{"image.member.create"}},
		{"accept", func(n *Notifier) { n.MemberChanged(t.Context(), member, member) }, []string{"image.member.update"}},
		{"unshare", func(n *Notifier) { n.MemberChanged(t.Context(), member, nil) }, []string{"image.member.delete"}},
		{"task", func(n *Notifier) { n.TaskChanged(t.Context(), nil, task("pending", soon)) }, []string{"task.create"}},
		{"task at once", func(n *Notifier) { n.TaskChanged(t.Context(), nil, task("processing", soon)) }, []string{"task.create", "task.run", "task.processing"}},
		{"progress", func(n *Notifier) { n.TaskChanged(t.Context(), task("processing", soon), task("processing", soon)) }, nil},
		{"success", func(n *Notifier) { n.TaskChanged(t.Context(), task("processing", soon), task("success", soon)) }, []string{"task.success"}},
		{"failure", func(n *Notifier) { n.TaskChanged(t.Context(), task("processing", soon), task("failure", soon)) }, []string{"task.failure"}},
		{"task deleted", func(n *Notifier) { n.TaskChanged(t.Context(), task("success", soon), nil) }, []string{"task.delete"}},
		{"task expired", func(n *Notifier) { n.TaskChanged(t.Context(), task("success", time.Unix(1, 0)), nil) }, nil},
	} {
		p := &place{}
		n := newNotifier(t, p, Config{})
		c.tell(n)
		list := finish(t, n, p)
		if got := types(list); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		for _, m := range list {
			payload := body(t, m)["payload"].(map[string]any)
			if deleted := payload["deleted"].(bool); deleted != (payload["deleted_at"] != nil) || deleted != slices.Contains([]string{"delete", "unshare", "task deleted"}, c.name) {
				t.Errorf("%s, %s: deleted %v at %v", c.name, m.Type, deleted, payload["deleted_at"])
			}
			if failed, ok := payload["os_glance_failed_import"].([]any); (m.Type == "image.prepare" || m.Type == "image.upload") != ok || ok && len(failed) != 2 {
				t.Errorf("%s, %s: stores that failed: %v", c.name, m.Type, failed)
			}
		}
	}
}

// TestSecrets: neither where the bytes are nor what a task was told leaves.
func TestSecrets(t *testing.T) {
	p := &place{}
	n := newNotifier(t, p, Config{})
	n.ImageChanged(t.Context(), nil, &catalog.Image{ID: "i", Locations: []catalog.Location{{Store: "hidden", Key: "hidden"}}})
	n.TaskChanged(t.Context(), nil, &catalog.Task{ID: "t", Message: "hidden", Input: map[string]any{"a": "hidden"}, Result: map[string]any{"a": "hidden"}})
	for _, m := range finish(t, n, p) {
		if strings.Contains(string(m.Body), "hidden") {
			t.Errorf("%s: %s", m.Type, m.Body)
		}
	}
}

func TestSent(t *testing.T) {
	p := &place{}
	n := newNotifier(t, p, Config{})
	ctx := wire.WithIdentity(t.Context(), wire.Identity{UserID: "u", ProjectID: "p"})
	n.Sent(ctx, catalog.Image{ID: "i", Owner: "o"}, 5, 5)
	n.Sent(ctx, catalog.Image{ID: "i", Owner: "o"}, 4, 5)
	list := finish(t, n, p)
	if len(list) != 2 || list[0].Priority != Info || list[1].Priority != Error {
		t.Fatalf("got %v", list)
	}
	payload := body(t, list[1])["payload"].(map[string]any)
	want := object{"bytes_sent": 4.0, "image_id": "i", "owner_id": "o", "receiver_tenant_id": "p", "receiver_user_id": "u"}
	for key, value := range want {
		if payload[key] != value {
			t.Errorf("%s is %v, want %v", key, payload[key], value)
		}
	}
}
