package mem_test

import (
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// sparse is data with holes, and with an end that no block divides.
func sparse(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, n)
	for i := range p {
		if i>>13&1 == 0 {
			p[i] = byte(rng.Uint32())
		}
	}
	return p
}

func TestReader(t *testing.T) {
	for _, n := range []int{0, 1, 511, 4096, 200_001} {
		blocktest.TestReader(t, mem.Reader(sparse(n)), sparse(n))
	}
}

func TestDevice(t *testing.T) {
	for _, n := range []int{1, 700, 200_001} {
		blocktest.TestDevice(t, mem.NewDevice(sparse(n)), sparse(n))
	}
}

func BenchmarkReader(b *testing.B) { blocktest.Benchmark(b, mem.Reader(sparse(8<<20))) }

func TestStore(t *testing.T) {
	storetest.Test(t, func(*testing.T) backends.Store { return mem.New() })
	storetest.TestFull(t, mem.NewLimited(1<<20), 1<<20)
}
