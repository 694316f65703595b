//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// crashBlock is the size of what the checker writes at once, in bytes. Writes
// of a block are never torn for the checker: it allows every earlier value of
// each half.
const crashBlock = 4096

// Contents that are no write's.
const (
	contentBase  = 0 // what the image beneath holds
	contentZeros = 1
)

// diskModel knows, for every block of a disk, which contents it may have
// after a crash: the last one that a flush made sure, and all since.
type diskModel struct {
	mu     sync.Mutex
	base   []byte
	blocks []blockModel
	next   uint64 // number of the next write; each has a content of its own
}

type blockModel struct {
	sure  uint64
	times int          // how often writes were settled
	since []writeModel // in order; one block is written by one goroutine
}

type writeModel struct {
	content uint64
	answer  bool // it was acknowledged
	undone  bool // a trim: the old content is as good
}

func newDiskModel(base []byte) *diskModel {
	return &diskModel{base: base, blocks: make([]blockModel, len(base)/crashBlock), next: 2}
}

// content fills p with what write number n puts into block b.
func (m *diskModel) content(p []byte, n uint64, b int) {
	switch n {
	case contentBase:
		copy(p, m.base[b*crashBlock:])
	case contentZeros:
		clear(p)
	default:
		for i := 0; i < len(p); i += 16 {
			binary.LittleEndian.PutUint64(p[i:], n)
			binary.LittleEndian.PutUint64(p[i+8:], uint64(b)<<32|uint64(i))
		}
	}
}

// begin notes a write before it is sent.
func (m *diskModel) begin(b int, content uint64, trim bool) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if content > contentZeros {
		content = m.next
		m.next++
	}
	m.blocks[b].since = append(m.blocks[b].since, writeModel{content: content, undone: trim})
	return content
}

// acknowledged notes the answer to the last write of a block; fua says that
// it is as good as flushed.
func (m *diskModel) acknowledged(b int, fua bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	blk := &m.blocks[b]
	blk.since[len(blk.since)-1].answer = true
	if fua {
		blk.settle(len(blk.since))
	}
}

// settle makes the first n writes sure.
func (blk *blockModel) settle(n int) {
	last := n - 1
	for last >= 0 && blk.since[last].undone {
		last--
	}
	if last < 0 {
		return // only trims: they promise nothing
	}
	blk.sure = blk.since[last].content
	blk.times++
	blk.since = append([]writeModel(nil), blk.since[last+1:]...)
}

// flushing notes what a flush that is sent now covers, and returns what to
// call when it is acknowledged.
func (m *diskModel) flushing() func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	covered := make([]int, len(m.blocks))
	times := make([]int, len(m.blocks))
	for b := range m.blocks {
		since := m.blocks[b].since
		for covered[b] < len(since) && since[covered[b]].answer {
			covered[b]++
		}
		times[b] = m.blocks[b].times
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for b, n := range covered {
			// A FUA write may have settled some of them meanwhile.
			if n > 0 && m.blocks[b].times == times[b] {
				m.blocks[b].settle(n)
			}
		}
	}
}

// check compares the disk with the model and takes what it finds as the new
// truth.
func (m *diskModel) check(t testing.TB, c *nbdtest.Client) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	want := make([]byte, crashBlock)
	for start := 0; start < len(m.blocks); start += 64 {
		data, err := c.Read(uint64(start)*crashBlock, 64*crashBlock, 0)
		if err != nil {
			t.Fatalf("read the overlay after a crash: %v", err)
		}
		for b := start; b < start+64; b++ {
			got := data[(b-start)*crashBlock:][:crashBlock]
			found, ok := m.find(b, got, want)
			if !ok {
				t.Fatalf("block %d holds %s; sure was %d, since then %+v", b, describe(got), m.blocks[b].sure, m.blocks[b].since)
			}
			m.blocks[b] = blockModel{sure: found}
		}
	}
}

func (m *diskModel) find(b int, got, scratch []byte) (uint64, bool) {
	blk := &m.blocks[b]
	may := []uint64{blk.sure}
	for _, w := range blk.since {
		may = append(may, w.content)
		if w.undone {
			may = append(may, contentBase, contentZeros)
		}
	}
	for _, n := range may {
		if m.content(scratch, n, b); bytes.Equal(got, scratch) {
			return n, true
		}
	}
	return 0, false
}

func describe(p []byte) string {
	return fmt.Sprintf("write %d of block %d", binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])>>32)
}

// work writes to its share of the blocks until the connection breaks.
func (m *diskModel) work(c *nbdtest.Client, rng *rand.Rand, share, of int) {
	p := make([]byte, crashBlock)
	for {
		b := rng.IntN(len(m.blocks)/of)*of + share
		off := uint64(b) * crashBlock
		var err error
		fua := uint16(0)
		if rng.IntN(16) == 0 {
			fua = 1
		}
		switch rng.IntN(12) {
		case 0:
			m.begin(b, contentZeros, false)
			err = c.Zero(off, crashBlock, fua)
		case 1:
			m.begin(b, contentZeros, true)
			err = c.Trim(off, crashBlock, fua)
		default:
			m.content(p, m.begin(b, 2, false), b)
			err = c.WriteAt(p, off, fua)
		}
		if err != nil {
			return
		}
		m.acknowledged(b, fua != 0)
		if rng.IntN(20) == 0 {
			done := m.flushing()
			if c.Flush() != nil {
				return
			}
			done()
		}
	}
}
