package config

import (
	"fmt"
	"strings"
)

// leastInFlight is what the requests of one connection may need.
const leastInFlight = 64 << 20

// validateNBD notes the mistakes of the NBD door.
func (l *loader) validateNBD() {
	n := l.cfg.NBD
	if n.Listen != Off && n.TLS != "required" && !n.AllowPlainTCP && !isLoopback(n.Listen) {
		l.wrong("nbd.listen", "%s is not loopback and the data would cross the network in the clear: set nbd.tls = \"required\", listen on 127.0.0.1, or set nbd.allow_plain_tcp = true", n.Listen)
	}
	if n.PublicEndpoint != "" {
		l.listener("nbd.public_endpoint", n.PublicEndpoint)
	}
	if n.Socket != Off && len(n.Socket) > 107 {
		l.wrong("nbd.socket", "%q is longer than the 107 bytes that a unix socket's name may have", n.Socket)
	}
	if n.MaxInFlight < leastInFlight {
		l.wrong("nbd.max_in_flight", "%d bytes are less than the 64MiB that one connection may need", n.MaxInFlight)
	}
	l.validateTLS()
	for i, rule := range n.Clients {
		l.validateClient(entry("nbd.clients", i+1), rule)
	}
}

// validateTLS notes what does not fit between the keys about TLS. That a file
// is there and holds what it should is for the daemon to find out.
func (l *loader) validateTLS() {
	n := l.cfg.NBD
	l.oneOf("nbd.tls", n.TLS, "off", "optional", "required")
	l.oneOf("nbd.tls_min", n.TLSMin, "1.2", "1.3")
	switch n.TLS {
	case "optional", "required":
		if n.TLSCert == "" {
			l.wrong("nbd.tls_cert", "with nbd.tls = %q the server needs a certificate: name its PEM file here", n.TLS)
		}
		if n.TLSKey == "" {
			l.wrong("nbd.tls_key", "with nbd.tls = %q the server needs its certificate's key: name the PEM file here", n.TLS)
		}
	case Off:
		if n.TLSClientCA != "" {
			l.wrong("nbd.tls_client_ca", "without TLS no certificate is asked for: set nbd.tls = \"required\", or remove this")
		}
	}
	if len(n.Clients) > 0 && n.TLSClientCA == "" {
		l.wrong("nbd.clients", "rules for certificates need nbd.tls_client_ca, the authorities whose certificates are taken")
	}
}

func (l *loader) validateClient(path string, rule NBDClient) {
	l.oneOf(path+".mode", rule.Mode, "ro", "rw")
	if rule.Name == "" {
		l.wrong(path+".name", "a rule needs the name of certificates that it is for, such as \"hv-*.example.org\"")
	}
	if len(rule.Exports) == 0 {
		l.wrong(path+".exports", "a rule needs the exports that it allows, such as [\"attach/*\"]; [\"*\"] is all")
	}
	if why := patternError(rule.Name); why != "" {
		l.wrong(path+".name", "%s", why)
	}
	for _, pattern := range rule.Exports {
		if why := patternError(pattern); why != "" {
			l.wrong(path+".exports", "%s", why)
		} else if pattern == "" {
			l.wrong(path+".exports", "\"\" fits no export; write [\"*\"] for all")
		}
	}
}

// patternError says what a pattern has that is none here, or "": whoever
// writes [ab] or ** means something that would not happen.
func patternError(pattern string) string {
	if i := strings.IndexAny(pattern, `[]{}!\`); i >= 0 {
		return fmt.Sprintf("%q has %q: a pattern knows only * for any characters and ? for one", pattern, pattern[i])
	}
	if strings.Contains(pattern, "**") {
		return fmt.Sprintf("%q has **: write *, which stands for any characters, also for /", pattern)
	}
	return ""
}
