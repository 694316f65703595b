package notify

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSilentBroker: a broker that takes the connection and says nothing costs
// the time of one attempt, and the password is nowhere in what is said of it.
func TestSilentBroker(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := NewAMQP(AMQPConfig{Hosts: []string{ln.Addr().String(), "127.0.0.1:1"}, Username: "u", Password: "s3cret"})
	defer a.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = a.Send(ctx, Message{ID: "1", Priority: Info, Body: []byte("{}")})
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("%v", err)
	}
	for _, host := range a.cfg.Hosts {
		if !strings.Contains(err.Error(), host) {
			t.Errorf("%v, want it to name %s", err, host)
		}
	}
}
