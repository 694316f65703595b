package nbd_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// BenchmarkRead reads 4 KiB at a time with a client that costs little, at
// several depths.
func BenchmarkRead(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			a := serve(b)
			c := a.simple(b, "ro")
			c.Conn.SetDeadline(neverTime)
			b.ReportAllocs()
			pipeline(b, c, depth, b.N)
		})
	}
}

// pipeline makes n reads of 4 KiB, depth at a time.
func pipeline(t testing.TB, c *nbdtest.Client, depth, n int) {
	out := make([]byte, 0, depth*28)
	in := make([]byte, depth*(16+4096))
	for n > 0 {
		k := min(depth, n)
		out = out[:0]
		for range k {
			q := nbdtest.Request{Cmd: nbdtest.CmdRead, Off: uint64(rand.IntN(diskSize/4096)) * 4096, Len: 4096}
			out = q.Append(out)
		}
		if _, err := c.Conn.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, in[:k*(16+4096)]); err != nil {
			t.Fatal(err)
		}
		if binary.BigEndian.Uint64(in) != 0x67446698<<32 {
			t.Fatalf("reply %x", in[:16])
		}
		n -= k
	}
}

// TestNoAllocations makes sure that a request in steady state allocates
// nothing, whether it is served inline or by workers.
func TestNoAllocations(t *testing.T) {
	for name, tt := range map[string]struct {
		q     nbdtest.Request
		enter func(a *aServer, t testing.TB, name string) *nbdtest.Client
	}{
		"inline":             {nbdtest.Request{Len: 4096}, (*aServer).simple},
		"inline, structured": {nbdtest.Request{Len: 4096}, (*aServer).enter},
		"inline, extended":   {nbdtest.Request{Len: 4096}, (*aServer).extended},
		"inline write":       {nbdtest.Request{Cmd: nbdtest.CmdWrite, Payload: make([]byte, 4096)}, (*aServer).simple},
		"inline write, extended": {
			nbdtest.Request{Cmd: nbdtest.CmdWrite, Flags: nbdtest.PayloadLen, Payload: make([]byte, 4096)}, (*aServer).extended},
		"workers":                         {nbdtest.Request{Len: 64 << 10}, (*aServer).simple},
		"workers, structured, with holes": {nbdtest.Request{Len: 64 << 10}, (*aServer).enter},
		"workers, extended, with holes":   {nbdtest.Request{Len: 64 << 10}, (*aServer).extended},
		"status of all contexts":          {nbdtest.Request{Cmd: nbdtest.CmdBlockStatus, Len: diskSize}, (*aServer).extended},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			c := tt.enter(a, t, "rw")
			a.disk.mark(8192, 4096, 0)
			request := tt.q.Append(nil)
			if c.Extended {
				request = tt.q.AppendExtended(nil)
			}
			reply := make([]byte, 1<<17)
			run := func() {
				for range 512 {
					if _, err := c.Conn.Write(request); err != nil {
						t.Fatal(err)
					}
					if _, err := c.Conn.Read(reply); err != nil { // any part of it
						t.Fatal(err)
					}
				}
			}
			run()
			if n := testing.AllocsPerRun(5, run); n > 16 && !raceEnabled() { // the race detector allocates
				t.Errorf("%.0f allocations for 512 requests", n)
			}
		})
	}
}

// raceEnabled reports whether the test was built with the race detector.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// ExampleServer serves a disk on a listener until the context ends.
func ExampleServer() {
	server, err := nbd.New(nbd.Config{Exports: &exports{byName: map[string]nbd.Export{"disk": {Disk: newMemory(1 << 20)}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	l := newPipes()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error)
	go func() { done <- server.Serve(ctx, l) }()

	c := nbdtest.New(l.dial())
	fmt.Println(c.Greet(nbdtest.FixedNewstyle), c.Enter("disk"))
	fmt.Println(c.Size, c.WriteAt([]byte("hello"), 42, nbdtest.FUA))
	fmt.Println(c.Disconnect(), server.Shutdown(ctx), <-done)
	// Output:
	// <nil> <nil>
	// 1048576 <nil>
	// <nil> <nil> <nil>
}
