package api

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A guard keeps web pages away from a server that asks for no token. A page
// can make a browser send requests to any address; what it cannot do is hide
// the Origin it comes from, nor send a Host that is not in the address. A
// Host of its own name that leads here (DNS rebinding) is refused as well.
type guard struct {
	hosts map[string]bool // lower case, without port
	pages []string        // origins of web pages that may come all the same
}

func newGuard(cfg Config) guard {
	g := guard{hosts: map[string]bool{}, pages: cfg.CORS.Origins}
	for _, h := range append([]string{cfg.Listen, urlHost(cfg.PublicEndpoint)}, cfg.Hosts...) {
		if h = hostOnly(h); h != "" {
			g.hosts[h] = true
		}
	}
	return g
}

func urlHost(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

// hostOnly takes the port off, and the brackets of an IPv6 address.
func hostOnly(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		s = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(s, "[]"), "."))
}

// check refuses a request that a web page may have made.
func (g guard) check(r *http.Request) error {
	host := hostOnly(r.Host)
	if !g.trusts(host) && !isLocalAddr(r, host) {
		return wire.Errorf(http.StatusForbidden,
			"The Host header %.100q is not a name of this gateway. Use its listen address, a loopback name or the host of api.public_endpoint.", r.Host)
	}
	if origin := r.Header.Get("Origin"); origin != "" && slices.Contains(g.pages, origin) {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" && hostOnly(urlHost(origin)) != host && !g.trusts(hostOnly(urlHost(origin))) {
		return wire.Errorf(http.StatusForbidden,
			"A web page of %.100q may not use this gateway, which asks for no token.", origin)
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" {
		return wire.Errorf(http.StatusForbidden, "A web page of another site may not use this gateway, which asks for no token.")
	}
	return nil
}

// isLocalAddr tells whether host is the very address that the request came in
// at. A name cannot be, so a rebound name is none.
func isLocalAddr(r *http.Request, host string) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	ip := net.ParseIP(host)
	return ok && ip != nil && ip.Equal(local.IP)
}

// trusts tells whether host is a name of this server. The unspecified
// addresses that one can listen on are names of nothing.
func (g guard) trusts(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback() || g.hosts[host] && !ip.IsUnspecified()
	}
	return host != "" && g.hosts[host]
}
