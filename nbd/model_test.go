package nbd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestModel has several connections with several requests in flight each, in
// a part of the disk of their own, do anything at random and compares what
// they read with what they wrote.
func TestModel(t *testing.T) {
	a := serve(t)
	a.exports.byName["file"] = nbd.Export{Disk: newFileDisk(t, diskSize)}
	for _, name := range []string{"rw", "file"} {
		t.Run(name, func(t *testing.T) {
			const parts, part = 8, diskSize / 8
			var all sync.WaitGroup
			clients := []*nbdtest.Client{a.enter(t, name), a.simple(t, name), a.extended(t, name)}
			for i := range parts {
				c := clients[i%len(clients)]
				all.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(i), 42))
					if err := play(c, rng, uint64(i*part), make([]byte, part)); err != nil {
						t.Errorf("part %d: %v", i, err)
					}
				})
			}
			all.Wait()
		})
	}
}

// play does random things to the bytes from base on, which model has too.
func play(c *nbdtest.Client, rng *rand.Rand, base uint64, model []byte) error {
	for step := range 150 {
		n := rng.IntN(1 << rng.IntN(19))
		off := rng.IntN(len(model) - n)
		span := model[off : off+n]
		fua := uint16(rng.IntN(2)) * nbdtest.FUA
		var err error
		switch kind := rng.IntN(10); {
		case kind < 4:
			p := pattern(n, byte(step))
			copy(span, p)
			err = c.WriteAt(p, base+uint64(off), fua)
		case kind < 5:
			clear(span)
			err = c.Zero(base+uint64(off), uint64(n), fua|uint16(rng.IntN(2))*nbdtest.NoHole)
		case kind < 6:
			clear(span)
			err = c.Trim(base+uint64(off), uint64(n), fua) // our disk zeroes
		case kind < 7:
			err = c.Flush()
		case kind < 8 && n > 0 && (c.Structured || c.Extended):
			err = zerosAreZero(c, base+uint64(off), span)
		default:
			var got []byte
			got, err = c.Read(base+uint64(off), n, 0)
			if err == nil && !bytes.Equal(got, span) {
				err = fmt.Errorf("read %d+%d: wrong bytes", off, n)
			}
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// zerosAreZero looks that what the block status calls zero is zero.
func zerosAreZero(c *nbdtest.Client, off uint64, span []byte) error {
	extents, err := c.Status(off, uint64(len(span)), 0)
	for _, e := range extents {
		n := min(int(e.Len), len(span))
		if e.Flags&2 != 0 && bytes.Count(span[:n], []byte{0}) != n {
			return fmt.Errorf("status calls bytes zero that are not, at %d", off)
		}
		span = span[n:]
	}
	return err
}
