package config

import (
	"strings"
	"testing"
)

func TestNBDOverTLS(t *testing.T) {
	c, err := Load(Sources{File: write(t, "x.toml", `
[nbd]
listen = "0.0.0.0:10809"
tls = "required"
tls_min = "1.3"
tls_cert = "/etc/platter/nbd.crt"
tls_key = "/etc/platter/nbd.key"
tls_client_ca = "/etc/platter/ca.crt"
socket_mode = "600"
max_in_flight = "1GiB"

[[nbd.clients]]
name = "hv-*.example.org"
exports = ["attach/*", "overlay/*"]
mode = "rw"

[[nbd.clients]]
name = "reader"
exports = ["*"]
`)})
	if err != nil {
		t.Fatal(err)
	}
	n := c.NBD
	if n.TLS != "required" || n.TLSMin != "1.3" || n.TLSClientCA == "" || n.SocketMode != 0o600 || n.MaxInFlight != 1<<30 {
		t.Errorf("got %+v", n)
	}
	if len(n.Clients) != 2 || n.Clients[0].Mode != "rw" || len(n.Clients[0].Exports) != 2 || n.Clients[1].Name != "reader" || n.Clients[1].Mode != "ro" {
		t.Errorf("clients %+v", n.Clients)
	}
	c, err = Load(Sources{})
	if err != nil || c.NBD.TLSMin != "1.2" || c.NBD.SocketMode != 0o660 || c.NBD.MaxInFlight != 256<<20 {
		t.Errorf("defaults %+v, %v", c, err)
	}
}

func TestNBDMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // "line: text"
	}{
		"plain optional": {`listen = "0.0.0.0:10809"
tls = "optional"
tls_cert = "c"
tls_key = "k"`, []string{`2: nbd.listen: 0.0.0.0:10809 is not loopback`, `set nbd.tls = "required"`}},
		"no TLS of that name": {`tls = "on"`, []string{`2: nbd.tls: "on" is none of off, optional, required`}},
		"no key": {`tls = "optional"
tls_cert = "c"`, []string{`1: nbd.tls_key: with nbd.tls = "optional" the server needs its certificate's key`}},
		"old TLS":                  {`tls_min = "1.1"`, []string{`2: nbd.tls_min: "1.1" is none of 1.2, 1.3`}},
		"certificates without TLS": {`tls_client_ca = "ca"`, []string{`2: nbd.tls_client_ca: without TLS no certificate is asked for`}},
		"bare mode":                {`socket_mode = 660`, []string{`2: nbd.socket_mode: this must be a mode of a file, such as "0660": 660 is no mode`, "in quotes"}},
		"no mode":                  {`socket_mode = "rw"`, []string{`2: nbd.socket_mode: this must be a mode`, `"rw" is no mode`}},
		"little memory":            {`max_in_flight = "1MiB"`, []string{`2: nbd.max_in_flight: 1048576 bytes are less than the 64MiB`}},
		"no address":               {`public_endpoint = "images.example.org"`, []string{`2: nbd.public_endpoint: "images.example.org" is no HOST:PORT`}},
		"no list":                  {`clients = "hv"`, []string{`2: nbd.clients: this is a list of tables: write [[nbd.clients]]`}},
		"rules without authority": {`
[[nbd.clients]]
name = "hv"
exports = ["*"]`, []string{`3: nbd.clients: rules for certificates need nbd.tls_client_ca`}},
		"rules": {`tls = "required"
tls_cert = "c"
tls_key = "k"
tls_client_ca = "ca"
[[nbd.clients]]
exports = ["attach/*"]
mode = "both"
[[nbd.clients]]
name = "hv-[12]"
exprots = ["*"]
exports = ["overlay/**", ""]
[[nbd.clients]]
name = "x"`, []string{
			`6: nbd.clients[1].name: a rule needs the name of certificates`,
			`8: nbd.clients[1].mode: "both" is none of ro, rw`,
			`10: nbd.clients[2].name: "hv-[12]" has '[': a pattern knows only *`,
			`11: nbd.clients[2].exprots: unknown key; did you mean exports?`,
			`12: nbd.clients[2].exports: "overlay/**" has **: write *`,
			`12: nbd.clients[2].exports: "" fits no export`,
			`13: nbd.clients[3].exports: a rule needs the exports that it allows`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, "x.toml", "[nbd]\n"+c.text+"\n")
			_, err := Load(Sources{File: file})
			if err == nil {
				t.Fatal("no mistake found")
			}
			text := strings.ReplaceAll(err.Error(), file+":", "")
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("missing: %s\ngot:\n%s", want, text)
				}
			}
		})
	}
}

func TestNBDEndpoint(t *testing.T) {
	for _, c := range []struct{ listen, public, api, want string }{
		{"127.0.0.1:1", "", "https://images.example.org", "127.0.0.1:1"},
		{"0.0.0.0:1", "", "https://images.example.org:9292", "images.example.org:1"},
		{"[::]:1", "", "", "[::]:1"},
		{":1", "nbd.example.org:2", "https://images.example.org", "nbd.example.org:2"},
		{Off, "", "https://images.example.org", ""},
	} {
		cfg := &Config{NBD: NBD{Listen: c.listen, PublicEndpoint: c.public}, API: API{PublicEndpoint: c.api}}
		if got := cfg.NBDEndpoint(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
