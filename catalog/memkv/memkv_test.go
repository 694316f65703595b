package memkv_test

import (
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

func TestKV(t *testing.T) {
	catalogtest.Test(t, func(testing.TB) catalog.KV { return memkv.New() })
}
