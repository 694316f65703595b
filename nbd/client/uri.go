package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// defaultPort is NBD's own.
const defaultPort = "10809"

// A Target is what an NBD URI names.
type Target struct {
	Network, Address string // as net.Dial takes them
	Host             string // whose certificate it is over TLS
	TLS              bool
	Export           string // its name; may be a secret
}

// ParseURI reads nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, and
// the same with nbds for TLS. What it says in errors does not hold the name of
// the export.
func ParseURI(uri string) (Target, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return Target{}, errors.New("nbd: that is no NBD URI: they look like nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH")
	}
	t := Target{Export: strings.TrimPrefix(u.Path, "/"), Host: u.Hostname()}
	scheme, over, _ := strings.Cut(u.Scheme, "+")
	t.TLS = scheme == "nbds"
	switch {
	case scheme != "nbd" && scheme != "nbds":
		return Target{}, fmt.Errorf("nbd: no NBD URI starts with %q: they look like nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH", u.Scheme+":")
	case over == "unix":
		t.Network, t.Address = "unix", u.Query().Get("socket")
		if t.Address == "" {
			return Target{}, errors.New("nbd: the NBD URI names no socket: it looks like nbd+unix:///NAME?socket=PATH")
		}
	case over == "" || over == "tcp":
		if t.Host == "" {
			return Target{}, errors.New("nbd: the NBD URI names no host: it looks like nbd://HOST:PORT/NAME, or nbd+unix:///NAME?socket=PATH")
		}
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		t.Network, t.Address = "tcp", net.JoinHostPort(t.Host, port)
	default:
		return Target{}, fmt.Errorf("nbd: NBD over %q is not known here: there are tcp and unix", over)
	}
	return t, nil
}
