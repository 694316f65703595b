package attach

import (
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/nbd/client"
)

// Parse reads an NBD URI, such as "nbd://127.0.0.1/NAME" or
// "nbd+unix:///NAME?socket=/run/platter/nbd.sock", into Network, Address and
// Export. What it says in errors does not hold the name.
func Parse(uri string) (Config, error) {
	t, err := client.ParseURI(uri)
	if err == nil && t.TLS {
		err = errTLS
	}
	if err != nil {
		return Config{}, err
	}
	return Config{Network: t.Network, Address: t.Address, Export: t.Export}, nil
}

var errTLS = fmt.Errorf("nbd: the server wants TLS, which the kernel cannot speak: attach over the unix socket, or over TCP on loopback "+
	"or through a tunnel of the network (WireGuard, IPsec); or use nbd-client with -cacertfile, -certfile and -keyfile, "+
	"which does TLS in a process of its own and does not reconnect: %w", errors.ErrUnsupported)
