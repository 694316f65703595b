package config

import (
	"strings"
	"testing"
	"time"
)

func TestKeystone(t *testing.T) {
	const whole = "[auth]\nmode = \"keystone\"\nauth_url = \"https://k:5000/v3\"\nusername = \"platter\"\npassword = \"p\"\nproject_name = \"service\"\n"
	c, err := Load(Sources{File: write(t, "whole", whole)})
	if err != nil {
		t.Fatal(err)
	}
	a := c.Auth
	if a.UserDomainName != "Default" || a.ProjectDomainName != "Default" || a.PublicAuthURL != a.AuthURL ||
		time.Duration(a.CacheTime) != 10*time.Second || a.CacheTokens != 10_000 || a.Insecure || a.AllowAnonymous {
		t.Errorf("defaults: %+v", a)
	}
	if _, err := Load(Sources{File: write(t, "wide", whole+"[api]\nlisten = \"0.0.0.0:9292\"\n")}); err != nil {
		t.Errorf("who asks for tokens may listen anywhere: %v", err)
	}
	for name, mistake := range map[string]struct{ text, want string }{
		"bare":       {"[auth]\nmode = \"keystone\"\n", "auth.password: auth mode keystone needs the password"},
		"ftp":        {strings.Replace(whole, "https", "ftp", 1), "no http or https URL"},
		"user":       {strings.Replace(whole, "k:5000", "u:p@k:5000", 1), "no http or https URL"},
		"public":     {whole + "public_auth_url = \"keystone\"\n", "auth.public_auth_url"},
		"http, TLS":  {strings.Replace(whole, "https", "http", 1) + "insecure = true\n", "write https"},
		"both":       {whole + "insecure = true\nca_file = \"/ca.pem\"\n", "keep one"},
		"for ever":   {whole + "cache_time = \"1h\"\n", "a revoked token goes on"},
		"no time":    {whole + "timeout = \"1ms\"\n", "auth.timeout"},
		"no tokens":  {whole + "cache_tokens = -1\n", "auth.cache_tokens"},
		"other mode": {strings.Replace(whole, "\"keystone\"", "\"ldap\"", 1), "none of none, keystone"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Sources{File: write(t, "mistake", mistake.text)})
			if err == nil || !strings.Contains(err.Error(), mistake.want) {
				t.Errorf("%v, want %q", err, mistake.want)
			}
		})
	}
}
