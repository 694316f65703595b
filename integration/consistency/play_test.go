package consistency

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// A game is several clients that do anything at random to one disk.
type game struct {
	h       *History
	clients []*nbdtest.Client
	lanes   int // of each client: so many requests are in flight at once
	steps   int // of each lane; 0: until a connection ends
}

// errOver is the end of a game whose server is gone.
var errOver = errors.New("the connection has ended")

// play plays the game, and returns the first thing that cannot be. A
// connection that ends is the end of the game where that is expected.
func (g *game) play(seed uint64) error {
	var all sync.WaitGroup
	wrong := make(chan error, len(g.clients)*g.lanes)
	for i, c := range g.clients {
		for lane := range g.lanes {
			rng := rand.New(rand.NewPCG(seed, uint64(i*g.lanes+lane)))
			all.Go(func() {
				for step := 0; g.steps == 0 || step < g.steps; step++ {
					err := g.step(c, rng)
					if g.steps == 0 && errors.Is(err, errOver) {
						return
					}
					if err != nil {
						wrong <- fmt.Errorf("connection %d: %w", i, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	close(wrong)
	return <-wrong
}

// span picks sectors: often the same ones, often at the borders of what the
// layers below work with.
func span(rng *rand.Rand, sectors int) (from, to int) {
	n := 1 + rng.IntN([]int{1, 8, 16, 64, 256}[rng.IntN(5)])
	from = rng.IntN(sectors)
	switch rng.IntN(4) {
	case 0: // around a border of a cluster
		from = from/128*128 - rng.IntN(n+1)
	case 1: // whole blocks of 4 KiB
		from, n = from&^7, (n+7)&^7
	}
	from = min(max(from, 0), sectors-1)
	return from, min(from+n, sectors)
}

// step sends one request and checks its answer.
func (g *game) step(c *nbdtest.Client, rng *rand.Rand) error {
	from, to := span(rng, len(g.h.changes))
	off, n := uint64(from)*Sector, uint64(to-from)*Sector
	fua := uint16(rng.IntN(4)/3) * nbdtest.FUA
	var err error
	switch k := rng.IntN(20); {
	case k < 7:
		w := g.h.Begin(from, to, false, false)
		p := make([]byte, n)
		Stamp(p, w.Value)
		err = g.change(w, fua, func() error { return c.WriteAt(p, off, fua) })
	case k < 9:
		w := g.h.Begin(from, to, true, false)
		flags := fua | uint16(rng.IntN(2))*nbdtest.NoHole
		err = g.change(w, fua, func() error { return c.Zero(off, n, flags) })
	case k < 10:
		w := g.h.Begin(from, to, true, true)
		err = g.change(w, fua, func() error { return c.Trim(off, n, fua) })
	case k < 11:
		acknowledged := g.h.Flush()
		if err = c.Flush(); err == nil {
			acknowledged()
		}
	case k < 12:
		err = c.Cache(off, n)
	case k < 14 && chunked(c):
		return g.status(c, from, to)
	default:
		begun := g.h.Now()
		var p []byte
		if p, err = c.Read(off, int(n), uint16(rng.IntN(2))*df(c)); err == nil {
			return g.h.Read(begun, from, Values(p))
		}
	}
	return ended(err)
}

// chunked tells whether replies come in chunks, and with what is known of extents.
func chunked(c *nbdtest.Client) bool { return c.Structured || c.Extended }

// df is the flag that wants a read in one piece, where there can be pieces.
func df(c *nbdtest.Client) uint16 {
	if chunked(c) {
		return nbdtest.DF
	}
	return 0
}

// change sends a request that changes something.
func (g *game) change(w *Write, fua uint16, send func() error) error {
	err := send()
	if err == nil {
		w.Answered(fua != 0)
	}
	return err
}

// status asks where the zeros are, which is as good as having read them.
func (g *game) status(c *nbdtest.Client, from, to int) error {
	begun := g.h.Now()
	extents, err := c.Status(uint64(from)*Sector, uint64(to-from)*Sector, 0)
	if err != nil {
		return ended(err)
	}
	at := uint64(from) * Sector
	for _, e := range extents {
		end := min(at+e.Len, uint64(to)*Sector)
		if e.Flags&2 != 0 {
			first, last := int((at+Sector-1)/Sector), int(end/Sector)
			if err := g.h.Read(begun, first, make([]uint64, max(last-first, 0))); err != nil {
				return fmt.Errorf("block status: %w", err)
			}
		}
		at = end
	}
	return nil
}

// ended makes errOver of an error that no server has sent.
func ended(err error) error {
	var told *nbdtest.Error
	if err == nil || errors.As(err, &told) {
		return err
	}
	return fmt.Errorf("%w: %w", errOver, err)
}
