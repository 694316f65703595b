package embedded_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/embedded"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// BenchmarkStart starts a gateway's catalog of 100,000 images: etcd and index.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	fillImages(b, dir, 100_000)
	for b.Loop() {
		s := start(b, dir)
		c, err := catalog.Open(b.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Close()
		s.Close()
		b.StartTimer()
	}
}

func fillImages(b *testing.B, dir string, images int) {
	s := start(b, dir)
	defer s.Close()
	kv := etcdkv.New(s.Client(), "/platter")
	var txn catalog.Txn
	for n := range images {
		properties := map[string]string{}
		for p := range 20 {
			properties[fmt.Sprint("some_property_", p)] = fmt.Sprint("some value of it ", n%(1+50*p))
		}
		at := time.Unix(1700000000+int64(n), 0).UTC()
		value, err := json.Marshal(map[string]any{"v": 1, "status": "active", "visibility": "private", "name": fmt.Sprint("image ", n),
			"owner": fmt.Sprint(n % 500), "created_at": at, "updated_at": at, "properties": properties, "checksum": fmt.Sprintf("%032x", n)})
		if err != nil {
			b.Fatal(err)
		}
		txn.Then = append(txn.Then, catalog.Op{Key: fmt.Sprintf("img/00000000-0000-0000-0000-%012d", n), Value: value})
		if len(txn.Then) == 100 {
			if _, err := kv.Commit(b.Context(), txn); err != nil {
				b.Fatal(err)
			}
			txn.Then = nil
		}
	}
}

// BenchmarkCreate creates images, each safe on disk when it returns.
func BenchmarkCreate(b *testing.B) {
	s, err := embedded.Start(b.Context(), embedded.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	c, err := catalog.Open(b.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if _, err := c.CreateImage(b.Context(), catalog.Image{}); err != nil {
			b.Fatal(err)
		}
	}
}
