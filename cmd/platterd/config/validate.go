package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// validate notes every mistake that can be seen without opening anything.
func (l *loader) validate() {
	c := l.cfg
	if !filepath.IsAbs(c.DataDir) {
		l.wrong("data_dir", "%q is not an absolute path", c.DataDir)
	}
	l.oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	l.oneOf("log_format", c.LogFormat, "text", "json")
	l.oneOf("images.hash_algorithm", c.Images.HashAlgorithm, "sha512", "sha256")
	l.validateAuth()
	l.validateDoors()
	l.validateCatalog()
	l.validateStores()
	l.validateNotifications()
}

func (l *loader) validateAuth() {
	c := l.cfg
	l.oneOf("policy.property_protection_rule_format", c.Policy.PropertyProtectionFormat, "roles", "policies")
	l.oneOf("auth.mode", c.Auth.Mode, "none", Keystone)
	if c.Auth.Mode == Keystone {
		l.validateKeystone()
	} else if c.Auth.AuthURL != "" {
		l.wrong("auth.auth_url", "auth mode %s asks no Keystone: set auth.mode = \"keystone\", or remove auth_url", c.Auth.Mode)
	}
}

func (l *loader) validateDoors() {
	c := l.cfg
	l.listener("api.listen", c.API.Listen)
	l.listener("nbd.listen", c.NBD.Listen)
	l.listener("debug.listen", c.Debug.Listen)
	if c.API.Listen != Off && c.Auth.Mode == "none" && !c.Auth.AllowUnauthenticated && !isLoopback(c.API.Listen) {
		l.wrong("api.listen", "%s is not loopback and auth mode none lets everybody in: listen on 127.0.0.1, or set auth.allow_unauthenticated = true", c.API.Listen)
	}
	if c.Debug.Listen != Off && !isLoopback(c.Debug.Listen) && !c.Auth.AllowUnauthenticated {
		l.wrong("debug.listen", "%s is not loopback and metrics and profiles have no password: listen on 127.0.0.1, or set auth.allow_unauthenticated = true", c.Debug.Listen)
	}
	l.validateNBD()
	if (c.API.TLSCert == "") != (c.API.TLSKey == "") {
		l.wrong("api.tls_cert", "tls_cert and tls_key belong together: give both or neither")
	}
	if c.Import.GlanceDownload && c.Auth.Mode != Keystone {
		l.wrong("import.glance_download", "other image services are found through Keystone: set auth.mode = \"keystone\"")
	}
	if e := c.Import.SelfURL; e != "" {
		if u, err := url.Parse(e); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			l.wrong("import.self_url", "%q is not a URL such as http://10.0.0.1:9292", e)
		}
	}
	if e := c.API.PublicEndpoint; e != "" {
		if u, err := url.Parse(e); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			l.wrong("api.public_endpoint", "%q is no http or https URL", e)
		}
	}
}

func (l *loader) listener(path, addr string) {
	if addr == Off {
		return
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		l.wrong(path, "%q is no HOST:PORT; write for example \"127.0.0.1:9292\", or \"off\"", addr)
	}
}

// isLoopback says whether only this machine can reach a listener.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // said already
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (l *loader) validateCatalog() {
	c := l.cfg.Catalog
	for _, e := range c.Etcd {
		if u, err := url.Parse(e); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			l.wrong("catalog.etcd", "%q is no etcd endpoint; write for example \"http://10.0.0.1:2379\"", e)
		}
	}
	if !strings.HasPrefix(c.Prefix, "/") || strings.HasSuffix(c.Prefix, "/") {
		l.wrong("catalog.prefix", "%q must start with / and not end with it", c.Prefix)
	}
	if c.Lease < Duration(3*time.Second) || c.Lease > Duration(5*time.Minute) {
		l.wrong("catalog.lease", "%s is not between 3s and 5m", time.Duration(c.Lease))
	}
	if d := l.cfg.Cache.Dir; d != Off && !filepath.IsAbs(d) && filepath.IsAbs(l.cfg.DataDir) {
		l.wrong("cache.dir", "%q is not an absolute path; write one, or \"off\"", d)
	}
	if l.cfg.Cache.Size < 16<<20 {
		l.wrong("cache.size", "less than 16 MiB is no cache; to have none, set cache.dir = \"off\"")
	}
	l.oneOf("limits.journal_full", l.cfg.Limits.JournalFull, "wait", "fail")
}

var storeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

func (l *loader) validateStores() {
	if _, ok := l.cfg.Stores[l.cfg.DefaultStore]; !ok {
		l.wrong("default_store", "there is no [stores.%s]; known stores: %s", l.cfg.DefaultStore, strings.Join(sortedKeys(l.cfg.Stores), ", "))
	}
	if l.cfg.Stores[l.cfg.DefaultStore].Type == "http" {
		l.wrong("default_store", "a store of type http takes no uploads: add another store and name that")
	}
	dirs := map[string]string{}
	for _, name := range sortedKeys(l.cfg.Stores) {
		s, path := l.cfg.Stores[name], "stores."+name
		if !storeName.MatchString(name) {
			l.wrong(path, "a store's name is letters, digits, '_' and '-', at most 64")
		}
		l.validateStore(path, s)
		if s.Type != "file" || s.Dir == "" {
			continue
		}
		dir := l.cfg.StoreDir(s)
		if other, taken := dirs[dir]; taken {
			l.wrong(path+".dir", "%s is already the folder of store %s", dir, other)
		}
		dirs[dir] = name
	}
}

func (l *loader) oneOf(path, value string, known ...string) {
	if !slices.Contains(known, value) {
		l.wrong(path, "%q is none of %s", value, fmt.Sprint(strings.Join(known, ", ")))
	}
}
