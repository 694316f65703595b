package main

import (
	"crypto/tls"
	"io/fs"
	"syscall"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// openCerts reads the certificates of the doors that speak TLS.
func (g *gateway) openCerts() (err error) {
	if api := g.cfg.API; api.TLSCert != "" {
		files := certFiles{Cert: api.TLSCert, Key: api.TLSKey}
		if g.apiCerts, err = openCerts("the API (api.tls_cert)", files, tls.VersionTLS12, []string{"h2", "http/1.1"}, g.log); err != nil {
			return err
		}
	}
	if n := g.cfg.NBD; n.TLS != config.Off {
		files := certFiles{Cert: n.TLSCert, Key: n.TLSKey, ClientCA: n.TLSClientCA}
		least := uint16(tls.VersionTLS12)
		if n.TLSMin == "1.3" {
			least = tls.VersionTLS13
		}
		g.nbdCerts, err = openCerts("NBD (nbd.tls_cert)", files, least, nil, g.log)
	}
	return err
}

// reload reads again what may change while the gateway runs.
func (g *gateway) reload() {
	if g.apiCerts == nil && g.nbdCerts == nil && g.cfg.Policy.File == "" {
		g.log.Info("there are no certificates and no policy file to read again; everything else is read by a new process: see --takeover")
	}
	g.policy.reload()
	for _, c := range []*certs{g.apiCerts, g.nbdCerts} {
		if c != nil {
			c.look(true)
		}
	}
}

// ailing says what is wrong without making the gateway useless.
func (g *gateway) ailing() []string {
	out := g.places.ailing()
	if g.keystone != nil {
		if err := g.keystone.Trouble(); err != nil {
			out = append(out, "auth: tokens cannot be checked: "+err.Error())
		}
	}
	for _, c := range []*certs{g.apiCerts, g.nbdCerts} {
		if c == nil {
			continue
		}
		if what := c.ailing(); what != "" {
			out = append(out, what)
		}
	}
	if what := g.policy.ailing(); what != "" {
		out = append(out, what)
	}
	return out
}

// An inodeNumber tells two files of one name apart.
type inodeNumber struct{ dev, ino uint64 }

func inode(info fs.FileInfo) inodeNumber {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return inodeNumber{uint64(s.Dev), s.Ino}
	}
	return inodeNumber{}
}
