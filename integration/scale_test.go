//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/integration/gateway"
)

// TestHundredThousandImages restores a catalog of 100,000 images and looks how
// the gateway starts with it, what it takes and how fast a page is.
func TestHundredThousandImages(t *testing.T) {
	const images = 100_000
	file := filepath.Join(t.TempDir(), "catalog.backup")
	makeCatalog(t, file, images)
	g := gateway.New(t)
	begun := time.Now()
	tool(t, gateway.Binary(t, "platterd"), "--data-dir", g.Dir, "restore", file)
	t.Logf("restored in %v", time.Since(begun).Round(time.Millisecond))

	begun = time.Now()
	g.Run(t)
	start := time.Since(begun)
	status := string(readAll(t, fmt.Sprintf("/proc/%d/status", g.PID())))
	t.Logf("started in %v; %s", start.Round(time.Millisecond), regexp.MustCompile(`VmRSS:.*`).FindString(status))
	if start > 2*time.Minute {
		t.Errorf("the start took %v", start)
	}

	const page = "/v2/images?limit=25&tag=t7&os_distro=debian&sort=name:asc"
	get(t, g.URL+page)
	begun = time.Now()
	const rounds = 200
	for range rounds {
		if code, body := get(t, g.URL+page); code != 200 || strings.Count(body, `"id"`) != 25 {
			t.Fatalf("a page: %d, %d images", code, strings.Count(body, `"id"`))
		}
	}
	t.Logf("a page of 25 with two filters and a sort, over HTTP: %v", (time.Since(begun) / rounds).Round(time.Microsecond))

	dir, err := os.Open(filepath.Join(g.Mount, "by-id"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	begun = time.Now()
	names, err := dir.Readdirnames(-1)
	if err != nil || len(names) != images {
		t.Errorf("the tree shows %d images: %v", len(names), err)
	}
	t.Logf("the tree listed in %v", time.Since(begun).Round(time.Millisecond))
}

// makeCatalog writes a backup with so many active images.
func makeCatalog(t *testing.T, file string, images int) {
	t.Helper()
	ctx := t.Context()
	c, err := catalog.Open(ctx, memkv.New(), catalog.Config{GatewayID: "scale"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range images {
		name := fmt.Sprintf("image-%06d", i)
		img, err := c.CreateImage(ctx, catalog.Image{
			ID: fmt.Sprintf("%08x-0000-4000-8000-000000000000", i), Name: &name, Visibility: catalog.VisibilityPublic,
			DiskFormat: "qcow2", ContainerFormat: "bare", Tags: []string{fmt.Sprintf("t%d", i%10), "all"},
			Properties: map[string]string{"os_distro": []string{"debian", "fedora", "alpine"}[i%3], "hw_disk_bus": "virtio", "build": fmt.Sprint(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
		upload := fmt.Sprintf("u%d", i)
		if _, err := c.BeginUpload(ctx, catalog.Upload{ID: upload, Image: img.ID, Gateway: "scale", Store: "local", Key: img.ID + "/" + upload}); err != nil {
			t.Fatal(err)
		}
		loc := catalog.Location{Store: "local", Key: img.ID + "/" + upload, Generation: upload, Size: 1 << 20}
		if _, err := c.FinishUpload(ctx, upload, img.ID, loc, 1<<20, nil, strings.Repeat("0", 32), "sha512", strings.Repeat("0", 128)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Backup(ctx, f); err != nil {
		t.Fatal(err)
	}
}
