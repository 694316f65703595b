package nbdclient

import (
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
	Export           string
}

// ParseURI reads nbd://HOST[:PORT]/EXPORT, nbds://..., and
// nbd+unix:///EXPORT?socket=PATH. Its errors do not repeat the export's name,
// which may be a secret.
func ParseURI(word string) (Target, error) {
	u, err := url.Parse(word)
	if err != nil {
		return Target{}, fmt.Errorf("this is no NBD URI; write nbd://HOST:PORT/EXPORT, nbds://... or nbd+unix:///EXPORT?socket=PATH")
	}
	t := Target{Export: strings.TrimPrefix(u.Path, "/"), Host: u.Hostname()}
	scheme, over, _ := strings.Cut(u.Scheme, "+")
	t.TLS = scheme == "nbds"
	switch {
	case scheme != "nbd" && scheme != "nbds":
		return t, fmt.Errorf("%q is no scheme of NBD; there are nbd, nbds and nbd+unix", u.Scheme)
	case over == "unix":
		t.Network, t.Address = "unix", u.Query().Get("socket")
		if t.Address == "" {
			return t, fmt.Errorf("the URI names no socket: add ?socket=PATH")
		}
	case over == "" || over == "tcp":
		if t.Host == "" {
			return t, fmt.Errorf("the URI names no host; write nbd://HOST:PORT/EXPORT, or nbd+unix:///EXPORT?socket=PATH")
		}
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		t.Network, t.Address = "tcp", net.JoinHostPort(t.Host, port)
	default:
		return t, fmt.Errorf("NBD over %q is not known here; there are tcp and unix", over)
	}
	return t, nil
}
