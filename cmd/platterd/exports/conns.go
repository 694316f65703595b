package exports

import (
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/nbd"
)

// Conns are the connections of an NBD server, as the API shows them.
type Conns struct{ Server *nbd.Server }

var _ platter.Conns = Conns{}

// Conns returns the connections, oldest first.
func (s Conns) Conns() []platter.ConnInfo {
	var out []platter.ConnInfo
	for _, c := range s.Server.Conns() {
		out = append(out, platter.ConnInfo{
			ID: c.Client.ID, Client: c.Client.Addr.String(), Transport: c.Client.Transport, Peer: c.Peer, Export: c.Export, Headers: c.Headers,
			Writable: c.Writable, Since: c.Since, InFlight: int64(c.InFlight), Requests: c.Requests, Errors: c.Errors,
			Read: c.Read, Written: c.Written,
		})
	}
	return out
}

// Kick cuts the connection with a number and waits until its export is closed.
func (s Conns) Kick(id uint64) bool {
	return s.Server.Kick(func(c nbd.ConnInfo) bool { return c.Client.ID == id }) > 0
}
