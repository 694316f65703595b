// Package port finds loopback ports for the servers that tests start.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// A TB is what this package needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Free returns a TCP port of 127.0.0.1 that nobody listens on. It is below
// the range that the kernel gives to clients, so that a server finds it free
// when it is started again, and is given to nobody else until the test ends,
// for whose sake its UDP port is kept.
func Free(t TB) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		ours, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			ours.Close()
			continue
		}
		ln.Close()
		t.Cleanup(func() { ours.Close() })
		return port
	}
	t.Fatalf("no free port on loopback")
	return 0
}

// Addr returns 127.0.0.1 with a port as Free finds it.
func Addr(t TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Free(t))
}
