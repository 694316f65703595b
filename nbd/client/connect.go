package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// Connect connects to what t names and goes through the handshake, as
// [Handshake] does. It ends with ctx, whose cause is then the error.
func Connect(ctx context.Context, t Target, conf *tls.Config) (net.Conn, Export, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, Export{}, cause
		}
		return nil, Export{}, fmt.Errorf("nbd: cannot reach the server: %w; is the gateway running, and does it listen there?", err)
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	entered, e, err := Handshake(nc, t, conf)
	if !stop() {
		err = cmp.Or(context.Cause(ctx), err)
	}
	if err != nil {
		nc.Close()
		return nil, Export{}, err
	}
	return entered, e, nil
}
