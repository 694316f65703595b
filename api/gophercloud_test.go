package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imageimport"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/members"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/tasks"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A cloud is a gateway as gophercloud, and so Terraform, talks to it.
type cloud struct {
	*site
	url string
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{site: newSite(t, memkv.New(), "g", mem.New(), "")}
	server := httptest.NewServer(c.Server)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// as is a client for somebody.
func (c *cloud) as(who string) *gophercloud.ServiceClient {
	header := map[string]string{}
	for _, h := range importers[who][:2] {
		key, value, _ := strings.Cut(h, ": ")
		header[key] = value
	}
	return &gophercloud.ServiceClient{
		ProviderClient: &gophercloud.ProviderClient{TokenID: "token"}, Type: "image",
		Endpoint: c.url + "/", ResourceBase: c.url + "/v2/", MoreHeaders: header,
	}
}

// must ends the test if a call failed.
func must[T any](t *testing.T, what string, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return v
}

func fails(t *testing.T, what string, err error, status int) {
	t.Helper()
	if !gophercloud.ResponseCodeIs(err, status) {
		t.Errorf("%s: %v, want %d", what, err, status)
	}
}

// await asks until an image is as it should be, as Terraform does after a
// change.
func await(t *testing.T, cl *gophercloud.ServiceClient, id string, status images.ImageStatus) *images.Image {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		img, err := images.Get(t.Context(), cl, id).Extract()
		if err != nil {
			t.Fatal(err)
		}
		if img.Status == status {
			return img
		}
		if time.Now().After(end) {
			t.Fatalf("image %s stays %s and does not become %s", id, img.Status, status)
		}
	}
}

// TestGophercloudImages makes, reads, changes and deletes an image with every
// field and every change that gophercloud has.
func TestGophercloudImages(t *testing.T) {
	c, ctx := newCloud(t), t.Context()
	cl := c.as("owner")
	private, yes := images.ImageVisibilityPrivate, true
	id := "0D7F5F6C-7E0B-4B0A-9D53-1B1C5B0F7A11"
	img, err := images.Create(ctx, cl, images.CreateOpts{
		Name: "debian", ID: id, Visibility: &private, Hidden: &yes, Tags: []string{"red", "blue"}, ContainerFormat: "bare", DiskFormat: "raw",
		MinDisk: 2, MinRAM: 128, Protected: &yes, Properties: map[string]string{"os_distro": "debian", "properties": "mine"},
	}).Extract()
	img = must(t, "create", img, err)
	slices.Sort(img.Tags)
	if img.ID != id || img.Name != "debian" || img.Status != images.ImageStatusQueued || img.Visibility != private || !img.Hidden || !img.Protected ||
		!slices.Equal(img.Tags, []string{"blue", "red"}) || img.MinDiskGigabytes != 2 || img.MinRAMMegabytes != 128 || img.Owner != "p1" ||
		img.Properties["os_distro"] != "debian" || img.Properties["properties"] != "mine" || img.CreatedAt.IsZero() || img.File != "/v2/images/"+id+"/file" {
		t.Errorf("created: %+v", img)
	}
	if !slices.Contains(img.OpenStackImageImportMethods, "web-download") || !slices.Equal(img.OpenStackImageStoreIDs, []string{"fast", "slow", "web"}) {
		t.Errorf("methods %q, stores %q", img.OpenStackImageImportMethods, img.OpenStackImageStoreIDs)
	}
	_, err = images.Create(ctx, cl, images.CreateOpts{Name: "again", ID: id}).Extract()
	fails(t, "an id twice", err, http.StatusConflict)

	must(t, "upload", 0, imagedata.Upload(ctx, cl, id, strings.NewReader("platter!")).ExtractErr())
	fails(t, "a second upload", imagedata.Upload(ctx, cl, id, strings.NewReader("x")).ExtractErr(), http.StatusConflict)
	r, err := imagedata.Download(ctx, cl, id).Extract()
	if data, readErr := io.ReadAll(must(t, "download", r, err)); readErr != nil || string(data) != "platter!" {
		t.Errorf("downloaded %q, %v", data, readErr)
	}
	for _, patch := range []images.Patch{
		images.ReplaceImageHidden{}, images.ReplaceImageName{NewName: "renamed"}, images.ReplaceImageTags{NewTags: []string{"green"}},
		images.ReplaceImageMinDisk{NewMinDisk: 3}, images.ReplaceImageMinRam{NewMinRam: 256}, images.ReplaceImageProtected{},
		images.UpdateVisibility{Visibility: images.ImageVisibilityShared},
		images.UpdateImageProperty{Op: images.AddOp, Name: "hw_disk_bus", Value: "virtio"},
		images.UpdateImageProperty{Op: images.ReplaceOp, Name: "hw_disk_bus", Value: "scsi"},
		images.UpdateImageProperty{Op: images.RemoveOp, Name: "os_distro"},
	} {
		img, err = images.Update(ctx, cl, id, images.UpdateOpts{patch}).Extract()
		img = must(t, fmt.Sprintf("update %T", patch), img, err)
	}
	if img.Hidden || img.Name != "renamed" || !slices.Equal(img.Tags, []string{"green"}) || img.MinDiskGigabytes != 3 || img.MinRAMMegabytes != 256 ||
		img.Protected || img.Visibility != images.ImageVisibilityShared || img.Properties["hw_disk_bus"] != "scsi" || img.Properties["os_distro"] != nil ||
		img.SizeBytes != 8 || img.Checksum == "" || img.Status != images.ImageStatusActive {
		t.Errorf("updated: %+v", img)
	}
	_, err = images.Update(ctx, cl, id, images.UpdateOpts{images.ReplaceImageChecksum{Checksum: "x"}}).Extract()
	fails(t, "another checksum", err, http.StatusForbidden)
	_, err = images.Update(ctx, cl, id, images.UpdateOpts{images.UpdateVisibility{Visibility: images.ImageVisibilityPublic}}).Extract()
	fails(t, "public by its owner", err, http.StatusForbidden)
	fails(t, "deleted by a stranger", images.Delete(ctx, c.as("stranger"), id).ExtractErr(), http.StatusNotFound)
	must(t, "delete", 0, images.Delete(ctx, cl, id).ExtractErr())
	_, err = images.Get(ctx, cl, id).Extract()
	fails(t, "what is deleted", err, http.StatusNotFound)
}

// TestGophercloudLists asks with every filter that gophercloud has, page by
// page.
func TestGophercloudLists(t *testing.T) {
	c, ctx := newCloud(t), t.Context()
	cl := c.as("owner")
	yes := true
	ids := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		img, err := images.Create(ctx, cl, images.CreateOpts{Name: name, DiskFormat: "raw", ContainerFormat: "bare", Tags: []string{"t", name}}).Extract()
		ids[name] = must(t, "create", img, err).ID
	}
	must(t, "upload", 0, imagedata.Upload(ctx, cl, ids["b"], strings.NewReader("12345")).ExtractErr())
	_, err := images.Create(ctx, cl, images.CreateOpts{Name: "h", Hidden: &yes}).Extract()
	must(t, "create", 0, err)
	long, later := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, l := range []struct {
		opts images.ListOpts
		want string
	}{
		{images.ListOpts{Sort: "name:asc", Limit: 2}, "abcde"},
		{images.ListOpts{SortKey: "name", SortDir: "desc", Limit: 2}, "edcba"},
		{images.ListOpts{Sort: "name:asc", Marker: ids["c"]}, "de"},
		{images.ListOpts{ID: "in:" + ids["a"] + "," + ids["e"], Sort: "name:asc"}, "ae"},
		{images.ListOpts{Name: "in:b,c", Sort: "name:asc"}, "bc"},
		{images.ListOpts{Visibility: images.ImageVisibilityShared, Name: "d"}, "d"},
		{images.ListOpts{Visibility: images.ImageVisibilityShared, MemberStatus: images.ImageMemberStatusAll, Name: "d"}, "d"},
		{images.ListOpts{Hidden: true}, "h"},
		{images.ListOpts{Owner: "p1", Name: "a"}, "a"},
		{images.ListOpts{Owner: "p2"}, ""},
		{images.ListOpts{Status: "in:active,saving"}, "b"},
		// It has SizeMin and SizeMax, too, but does not send them.
		{images.ListOpts{Tags: []string{"t", "c"}}, "c"},
		{images.ListOpts{ContainerFormat: "in:bare,ami", DiskFormat: "raw", Sort: "name:asc"}, "abcde"},
		{images.ListOpts{CreatedAtQuery: &images.ImageDateQuery{Date: long, Filter: images.FilterGT}, Sort: "name:asc"}, "abcde"},
		{images.ListOpts{UpdatedAtQuery: &images.ImageDateQuery{Date: later, Filter: images.FilterGTE}}, ""},
	} {
		got := ""
		err := images.List(cl, l.opts).EachPage(ctx, func(_ context.Context, p pagination.Page) (bool, error) {
			list, err := images.ExtractImages(p)
			for _, img := range list {
				got += img.Name
			}
			return true, err
		})
		if err != nil || got != l.want {
			t.Errorf("%+v: %q, %v; want %q", l.opts, got, err, l.want)
		}
	}
}

// TestGophercloudMembers shares an image.
func TestGophercloudMembers(t *testing.T) {
	c, ctx := newCloud(t), t.Context()
	owner, guest := c.as("owner"), c.as("stranger")
	img, err := images.Create(ctx, owner, images.CreateOpts{Name: "shared"}).Extract()
	id := must(t, "create", img, err).ID
	m, err := members.Create(ctx, owner, id, "p2").Extract()
	if m = must(t, "add", m, err); m.MemberID != "p2" || m.ImageID != id || m.Status != "pending" || m.CreatedAt.IsZero() {
		t.Errorf("added: %+v", m)
	}
	m, err = members.Update(ctx, guest, id, "p2", members.UpdateOpts{Status: "accepted"}).Extract()
	if m = must(t, "accept", m, err); m.Status != "accepted" {
		t.Errorf("accepted: %+v", m)
	}
	_, err = members.Update(ctx, owner, id, "p2", members.UpdateOpts{Status: "rejected"}).Extract()
	fails(t, "rejected by the owner", err, http.StatusForbidden)
	if m, err = members.Get(ctx, owner, id, "p2").Extract(); err != nil || m.Status != "accepted" {
		t.Errorf("shown: %+v, %v", m, err)
	}
	page, err := members.List(owner, id).AllPages(ctx)
	list, extractErr := members.ExtractMembers(page)
	if err := errors.Join(err, extractErr); err != nil || len(list) != 1 || list[0].MemberID != "p2" {
		t.Errorf("listed: %+v, %v", list, err)
	}
	must(t, "remove", 0, members.Delete(ctx, owner, id, "p2").ExtractErr())
	_, err = members.Get(ctx, owner, id, "p2").Extract()
	fails(t, "who was removed", err, http.StatusNotFound)
}

// TestGophercloudImports stages and imports, and follows the tasks.
func TestGophercloudImports(t *testing.T) {
	c, ctx := newCloud(t), t.Context()
	owner, admin := c.as("owner"), c.as("admin")
	info, err := imageimport.Get(ctx, owner).Extract()
	if info = must(t, "info", info, err); !slices.Contains(info.ImportMethods.Value, "glance-direct") || info.ImportMethods.Type != "array" {
		t.Errorf("%+v", info)
	}
	img, err := images.Create(ctx, owner, images.CreateOpts{Name: "staged", DiskFormat: "raw", ContainerFormat: "bare"}).Extract()
	id := must(t, "create", img, err).ID
	must(t, "stage", 0, imagedata.Stage(ctx, owner, id, strings.NewReader("staged")).ExtractErr())
	if img := await(t, owner, id, images.ImageStatusUploading); img.SizeBytes != 6 {
		t.Errorf("staged: %+v", img)
	}
	must(t, "import", 0, imageimport.Create(ctx, owner, id, imageimport.CreateOpts{Name: imageimport.GlanceDirectMethod}).ExtractErr())
	if img := await(t, owner, id, images.ImageStatusActive); img.SizeBytes != 6 {
		t.Errorf("imported: %+v", img)
	}
	fails(t, "import of what is active", imageimport.Create(ctx, owner, id, imageimport.CreateOpts{Name: imageimport.WebDownloadMethod, URI: "http://images.example.org/disk"}).ExtractErr(), http.StatusConflict)

	task, err := tasks.Create(ctx, admin, tasks.CreateOpts{Type: "import", Input: map[string]any{
		"import_from": "http://images.example.org/disk", "import_from_format": "raw",
		"image_properties": map[string]any{"name": "by-task", "disk_format": "raw", "container_format": "bare"},
	}}).Extract()
	task = must(t, "a task", task, err)
	for end := time.Now().Add(time.Minute); task.Status != "success"; time.Sleep(time.Millisecond) {
		task, err = tasks.Get(ctx, admin, task.ID).Extract()
		if task = must(t, "show", task, err); task.Status == "failure" || time.Now().After(end) {
			t.Fatalf("%+v", task)
		}
	}
	if task.Type != "import" || task.Owner != "p0" || task.Input["import_from_format"] != "raw" || task.ExpiresAt.IsZero() {
		t.Errorf("%+v", task)
	}
	made, _ := task.Result["image_id"].(string)
	if img := await(t, admin, made, images.ImageStatusActive); img.Name != "by-task" || img.SizeBytes != 4 {
		t.Errorf("%+v", img)
	}
	found := 0
	err = tasks.List(admin, tasks.ListOpts{Limit: 1, SortKey: "created_at", SortDir: "asc", Status: tasks.TaskStatusSuccess}).EachPage(ctx, func(_ context.Context, p pagination.Page) (bool, error) {
		list, err := tasks.ExtractTasks(p)
		found += len(list)
		return true, err
	})
	if err != nil || found != 2 {
		t.Errorf("%d tasks, %v", found, err)
	}
	_, err = tasks.Get(ctx, owner, task.ID).Extract()
	fails(t, "a task for who is no administrator", err, http.StatusForbidden)
}

// TestTerraform does what the resource openstack_images_image_v2 does in its
// life: it makes the image, has the gateway download it, waits for it, reads
// it, changes name, tags and properties in one request, and deletes it.
func TestTerraform(t *testing.T) {
	c, ctx := newCloud(t), t.Context()
	cl := c.as("owner")
	private, no := images.ImageVisibilityPrivate, false
	img, err := images.Create(ctx, cl, images.CreateOpts{
		Name: "rocky", ContainerFormat: "bare", DiskFormat: "raw", Protected: &no, Hidden: &no, Visibility: &private,
		Tags: []string{"terraform"}, Properties: map[string]string{"key": "value"},
	}).Extract()
	id := must(t, "create", img, err).ID
	info, err := imageimport.Get(ctx, cl).Extract()
	if info = must(t, "methods", info, err); !slices.Contains(info.ImportMethods.Value, string(imageimport.WebDownloadMethod)) {
		t.Fatalf("methods %q", info.ImportMethods.Value)
	}
	must(t, "import", 0, imageimport.Create(ctx, cl, id, imageimport.CreateOpts{Name: imageimport.WebDownloadMethod, URI: "http://images.example.org/disk"}).ExtractErr())
	if img = await(t, cl, id, images.ImageStatusActive); img.SizeBytes != 4 || img.Checksum == "" {
		t.Errorf("imported: %+v", img)
	}
	// What the server adds must look like text, or a plan never comes to rest.
	for key, value := range img.Properties {
		if _, ok := value.(string); !ok && value != nil {
			t.Errorf("property %s is %v of type %T", key, value, value)
		}
	}
	img, err = images.Update(ctx, cl, id, images.UpdateOpts{
		images.UpdateVisibility{Visibility: images.ImageVisibilityShared}, images.ReplaceImageName{NewName: "rocky-9"},
		images.ReplaceImageTags{NewTags: []string{"terraform", "nine"}}, images.ReplaceImageProtected{NewProtected: true},
		images.UpdateImageProperty{Op: images.ReplaceOp, Name: "key", Value: "other"}, images.UpdateImageProperty{Op: images.AddOp, Name: "new", Value: "x"},
	}).Extract()
	if img = must(t, "update", img, err); img.Name != "rocky-9" || len(img.Tags) != 2 || !img.Protected || img.Properties["key"] != "other" || img.Properties["new"] != "x" {
		t.Errorf("updated: %+v", img)
	}
	fails(t, "delete while protected", images.Delete(ctx, cl, id).ExtractErr(), http.StatusForbidden)
	_, err = images.Update(ctx, cl, id, images.UpdateOpts{images.ReplaceImageProtected{}}).Extract()
	must(t, "unprotect", 0, err)
	must(t, "delete", 0, images.Delete(ctx, cl, id).ExtractErr())
	_, err = images.Get(ctx, cl, id).Extract()
	fails(t, "what is deleted", err, http.StatusNotFound)
}
