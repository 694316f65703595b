package exports

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"strings"

	"github.com/seed-478a8fee/platter/nbd"
)

// A Rule says what a client with a verified certificate may open over TLS. It
// may what any rule allows that fits its certificate. In patterns "*" stands
// for any number of characters and "?" for one.
type Rule struct {
	Name    string   // pattern of the certificate's common name or of a DNS name in it
	Exports []string // patterns of export names
	Write   bool     // what it opens may be written to, if it can be
}

// A right is what a client may do with an export.
type right uint8

const (
	mayNothing right = iota
	mayRead
	mayWrite
)

// right tells what the rules allow a client to do with the export called name.
// The socket has its mode and group instead.
func (e *Exports) right(c nbd.Client, name string) right {
	if len(e.cfg.Rules) == 0 || c.Transport == "unix" {
		return mayWrite
	}
	cert := certificate(c)
	if cert == nil {
		return mayNothing
	}
	best := mayNothing
	for _, r := range e.cfg.Rules {
		if !r.fits(cert) || !matchAny(r.Exports, name) {
			continue
		}
		if r.Write {
			return mayWrite
		}
		best = mayRead
	}
	return best
}

// admit returns whether a client may write to the export called name, or an
// error if it may not even open it.
func (e *Exports) admit(c nbd.Client, name string, k kind) (writes bool, err error) {
	may := e.right(c, name)
	switch {
	case k == kindToken && c.Transport == "tcp" && !loopback(c.Addr):
		return false, e.wantsTLS("a token is not taken over plain TCP from another machine, where others could read it")
	case may == mayNothing && c.Transport == "tcp":
		return false, e.wantsTLS("what a client may open depends on its certificate")
	case may == mayNothing:
		return false, fmt.Errorf("the certificate of %.64q may not open this export; [[nbd.clients]] of the gateway's configuration says what it may: %w", peerName(c), fs.ErrPermission)
	}
	return may == mayWrite, nil
}

// wantsTLS is the error for a client that would be served with TLS.
func (e *Exports) wantsTLS(why string) error {
	if !e.cfg.TLS {
		return fmt.Errorf("%s; use the socket: %w", why, fs.ErrPermission)
	}
	return fmt.Errorf("%s; use TLS, or the socket: %w", why, nbd.ErrTLSRequired)
}

// certificate returns the verified certificate of a client, or nil.
func certificate(c nbd.Client) *x509.Certificate {
	if c.TLS == nil || len(c.TLS.VerifiedChains) == 0 || len(c.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return c.TLS.VerifiedChains[0][0]
}

// peerName is what people call the owner of a certificate.
func peerName(c nbd.Client) string {
	cert := certificate(c)
	switch {
	case cert == nil:
		return ""
	case cert.Subject.CommonName == "" && len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	}
	return cert.Subject.CommonName
}

// fits tells whether a rule is for a certificate. Names of machines have no
// case.
func (r Rule) fits(cert *x509.Certificate) bool {
	pattern := strings.ToLower(r.Name)
	for _, name := range append([]string{cert.Subject.CommonName}, cert.DNSNames...) {
		if name != "" && match(pattern, strings.ToLower(name)) {
			return true
		}
	}
	return false
}

func matchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if match(p, s) {
			return true
		}
	}
	return false
}

// match tells whether pattern fits all of s. It takes as long as both together,
// times the number of stars at most.
func match(pattern, s string) bool {
	star, from := -1, 0 // where to go on if what follows the last star does not fit
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, from = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0: // the star takes one more
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}
