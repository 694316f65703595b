//go:build integration

package consistency

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestKill plays the game with the real daemon, which is killed in the middle
// of it.
func TestKill(t *testing.T) {
	rounds := 40
	if os.Getenv("PLATTER_SOAK") != "" {
		rounds = 1000
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CONSISTENCY_SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("CONSISTENCY_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	base := make([]byte, sectors*Sector)
	Stamp(base, Base)
	path := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, base, 0o600); err != nil {
		t.Fatal(err)
	}
	export := "overlay/" + g.NewOverlay(t, g.Upload(t, "base", "raw", path), "")
	h := NewHistory(sectors)
	for round := range rounds {
		clients := connect(t, g.Socket, export)
		game := game{h: h, clients: clients, lanes: 4}
		var wrong error
		var playing sync.WaitGroup
		playing.Go(func() { wrong = game.play(seed + uint64(round)*1000) })
		time.Sleep(time.Duration(10+rng.IntN(150)) * time.Millisecond)
		g.Kill(t)
		playing.Wait()
		for _, c := range clients {
			c.Close()
		}
		if wrong != nil {
			t.Fatalf("round %d of seed %d: %v", round, seed, wrong)
		}
		g.Run(t)
		c, err := nbdtest.Open("unix", g.Socket, export)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Read(0, sectors*Sector, 0)
		if err == nil {
			err = h.Crashed(Values(p))
		}
		if err != nil {
			t.Fatalf("after the kill in round %d of seed %d: %v", round, seed, err)
		}
		if err := c.Disconnect(); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	t.Logf("%d kills", rounds)
	if h.last < uint64(rounds)*20 {
		t.Errorf("only %d writes: too few for the kills to mean anything", h.last)
	}
}
