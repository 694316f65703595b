package attach

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Parse reads an NBD URI, such as "nbd://127.0.0.1/NAME" or
// "nbd+unix:///NAME?socket=/run/platter/nbd.sock", into Network, Address and
// Export. What it says in errors does not hold the name.
func Parse(uri string) (Config, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return Config{}, errors.New("nbd: that is no NBD URI: they look like nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH")
	}
	c := Config{Export: strings.TrimPrefix(u.Path, "/")}
	switch u.Scheme {
	case "nbd":
		port := u.Port()
		if port == "" {
			port = "10809"
		}
		c.Network, c.Address = "tcp", net.JoinHostPort(u.Hostname(), port)
		if u.Hostname() == "" {
			return Config{}, errors.New("nbd: the NBD URI names no host: it looks like nbd://HOST:PORT/NAME")
		}
	case "nbd+unix":
		c.Network, c.Address = "unix", u.Query().Get("socket")
		if c.Address == "" {
			return Config{}, errors.New("nbd: the NBD URI names no socket: it looks like nbd+unix:///NAME?socket=PATH")
		}
	case "nbds", "nbds+unix":
		return Config{}, &refusal{code: repErrTLSReqd}
	default:
		return Config{}, fmt.Errorf("nbd: no NBD URI starts with %q: they look like nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH", u.Scheme+":")
	}
	return c, nil
}
