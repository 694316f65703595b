package catalog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// BenchmarkOpen loads 100,000 images: what a start costs besides etcd's part.
func BenchmarkOpen(b *testing.B) {
	kv := memkv.New()
	first, err := catalog.Open(b.Context(), kv, catalog.Config{})
	if err != nil {
		b.Fatal(err)
	}
	first.Close()
	var txn catalog.Txn
	for n := range 100_000 {
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
			if _, err := kv.Commit(context.Background(), txn); err != nil {
				b.Fatal(err)
			}
			txn.Then = nil
		}
	}
	for b.Loop() {
		c, err := catalog.Open(b.Context(), kv, catalog.Config{})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
