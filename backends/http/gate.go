package http

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A gate decides which servers are asked. What it denies is fs.ErrPermission.
type gate struct {
	all     bool
	hosts   map[string]bool // HOST:PORT, lower case
	private bool
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	dialer  *net.Dialer
}

func newGate(cfg Config, base *url.URL) (gate, error) {
	g := gate{hosts: make(map[string]bool), private: cfg.AllowPrivate, resolve: cfg.Resolve,
		dialer: &net.Dialer{Timeout: min(cfg.Timeout, 10*time.Second), KeepAlive: 15 * time.Second}}
	if g.resolve == nil {
		g.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if base != nil {
		g.hosts[hostPort(base)] = true
		g.hosts[strings.ToLower(net.JoinHostPort(base.Hostname(), "443"))] = true // where http leads
	}
	for _, entry := range cfg.Allow {
		switch host, port, err := net.SplitHostPort(entry); {
		case entry == "*":
			g.all = true
		case entry == "" || strings.ContainsAny(entry, "/*@ "):
			return gate{}, fmt.Errorf("allow: %q is no HOST, HOST:PORT or *: %w", entry, fs.ErrInvalid)
		case err == nil && host != "" && port != "":
			g.hosts[strings.ToLower(net.JoinHostPort(host, port))] = true
		default:
			host := strings.ToLower(strings.Trim(entry, "[]"))
			g.hosts[net.JoinHostPort(host, "80")], g.hosts[net.JoinHostPort(host, "443")] = true, true
		}
	}
	if !g.all && len(g.hosts) == 0 {
		return gate{}, fmt.Errorf("neither endpoint nor allow names a server: %w", fs.ErrInvalid)
	}
	return g, nil
}

// hostPort returns HOST:PORT of a URL, in lower case.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.ToLower(net.JoinHostPort(u.Hostname(), port))
}

// check says whether a URL may be asked for.
func (g gate) check(u *url.URL) error {
	if g.all || g.hosts[hostPort(u)] {
		return nil
	}
	return fmt.Errorf("%s is not among the servers that may be asked: add it to allow if it should be: %w", hostPort(u), fs.ErrPermission)
}

// dial connects to an address of the host that is allowed. Nobody looks the
// name up again after the check.
func (g gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := g.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var failed error
	denied := 0
	for _, a := range addrs {
		if !g.private && !public(a) {
			denied++
			continue
		}
		conn, err := g.dialer.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	switch {
	case failed != nil:
		return nil, failed
	case denied > 0:
		return nil, fmt.Errorf("%s has only private or local addresses: set allow_private if it should be asked: %w", host, fs.ErrPermission)
	}
	return nil, fmt.Errorf("%s has no address", host)
}

func (g gate) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return g.resolve(ctx, strings.ToLower(host))
}

// special returns the networks that are not of the public Internet beyond
// those that package netip knows (IANA's registries of special-purpose
// addresses, RFC 6890), and those that carry an IPv4 address inside.
func special() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range []string{
		"168.63.129.16/32", // a cloud's own servers have it
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "::ffff:0:0:0/96", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// public tells whether an address is one of the public Internet.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() &&
		!slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(a) })
}
