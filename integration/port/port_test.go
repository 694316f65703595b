package port_test

import (
	"net"
	"testing"

	"github.com/seed-478a8fee/platter/integration/port"
)

// TestFree wants ports that differ and can be listened on.
func TestFree(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		addr := port.Addr(t)
		if seen[addr] {
			t.Fatalf("%s twice", addr)
		}
		seen[addr] = true
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	}
}
