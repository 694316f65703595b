package config

import (
	"net/url"
	"time"
)

// validateKeystone notes the mistakes in what mode keystone needs.
func (l *loader) validateKeystone() {
	a := l.cfg.Auth
	for _, need := range []struct{ key, value, what string }{
		{"auth_url", a.AuthURL, "the address of Keystone, for example \"https://keystone.example.org/v3\""},
		{"username", a.Username, "the user that the gateway logs in as; it needs the role service in its project"},
		{"password", a.Password, "the password of the gateway's user, or password_file"},
		{"project_name", a.ProjectName, "the project of the gateway's user, often \"service\""},
	} {
		if need.value == "" {
			l.wrong("auth."+need.key, "auth mode keystone needs %s", need.what)
		}
	}
	for _, u := range []struct{ key, value string }{{"auth_url", a.AuthURL}, {"public_auth_url", a.PublicAuthURL}} {
		if u.value != "" && !isHTTP(u.value) {
			l.wrong("auth."+u.key, "%q is no http or https URL without user and query", u.value)
			break // the one is the default of the other
		}
	}
	if to, err := url.Parse(a.AuthURL); err == nil && to.Scheme == "http" && (a.Insecure || a.CAFile != "") {
		l.wrong("auth.auth_url", "insecure and ca_file are for https, and this is http: write https, or remove them")
	}
	if a.Insecure && a.CAFile != "" {
		l.wrong("auth.insecure", "with insecure nothing is checked against ca_file: keep one")
	}
	if a.CacheTime < Duration(time.Second) || a.CacheTime > Duration(5*time.Minute) {
		l.wrong("auth.cache_time", "%s is not between 1s and 5m; a revoked token goes on for that long", time.Duration(a.CacheTime))
	}
	if a.Timeout < Duration(time.Second) || a.Timeout > Duration(time.Minute) {
		l.wrong("auth.timeout", "%s is not between 1s and 1m", time.Duration(a.Timeout))
	}
	if a.CacheTokens < 1 || a.CacheTokens > 1_000_000 {
		l.wrong("auth.cache_tokens", "%d is not between 1 and 1000000", a.CacheTokens)
	}
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && (u.Scheme == "http" || u.Scheme == "https")
}
