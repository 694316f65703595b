package main

import (
	"time"

	"github.com/seed-478a8fee/platter/api/keystone"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// openIdentity makes what finds out who asks; nothing does with mode none.
// Keystone need not answer yet.
func (g *gateway) openIdentity() (err error) {
	a := g.cfg.Auth
	if a.Mode != config.Keystone {
		return nil
	}
	if a.Insecure {
		g.log.Warn("auth.insecure: Keystone's certificate is not checked; whoever is in between can be anybody to this gateway")
	}
	counts := g.metrics.newAuth()
	g.keystone, err = keystone.New(keystone.Config{
		URL: a.AuthURL, Username: a.Username, Password: a.Password, UserDomain: a.UserDomainName,
		Project: a.ProjectName, ProjectDomain: a.ProjectDomainName,
		PublicURL: a.PublicAuthURL, CAFile: a.CAFile, Insecure: a.Insecure, Anonymous: a.AllowAnonymous,
		Remember: time.Duration(a.CacheTime), RememberBad: min(2*time.Second, time.Duration(a.CacheTime)),
		Tokens: a.CacheTokens, Timeout: time.Duration(a.Timeout),
		Logger: g.log, Observe: counts.observe,
	})
	if err != nil {
		return err
	}
	g.metrics.watchKeystone(g.keystone.Trouble)
	return nil
}

// authenticator returns what finds out who asks, or nil.
func (g *gateway) authenticator() wire.Authenticator {
	if g.keystone == nil {
		return nil // and not an interface that holds a nil
	}
	return g.keystone
}
