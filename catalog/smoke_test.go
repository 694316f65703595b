package catalog_test

import (
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"testing"
)

func TestSmoke(t *testing.T) {
	c, err := catalog.Open(t.Context(), memkv.New(), catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := c.CreateImage(t.Context(), catalog.Image{Owner: "p", Tags: []string{"b", "a", "b"}, Properties: map[string]string{"os": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Images(t.Context(), catalog.Query{Viewer: catalog.Viewer{Project: "p"}})
	if err != nil || len(got) != 1 || got[0].ID != img.ID {
		t.Fatal(got, err)
	}
	u := catalog.Upload{ID: "u", Image: img.ID, Store: "s", Key: "k"}
	if _, err := c.BeginUpload(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if img, err = c.FinishUpload(t.Context(), "u", img.ID, catalog.Location{Store: "s", Key: "k"}, 5, nil, "c", "sha512", "h"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteImage(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	g, err := c.Garbage(t.Context())
	if err != nil || len(g) != 1 {
		t.Fatal(g, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
