package exports

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io/fs"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// secure is a client over TLS from another machine, whose certificate has a
// common name and DNS names; with none at all it has shown no certificate.
func secure(id uint64, cn string, dns ...string) nbd.Client {
	state := &tls.ConnectionState{HandshakeComplete: true}
	if cn != "" || len(dns) > 0 {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: cn}, DNSNames: dns}
		state.PeerCertificates, state.VerifiedChains = []*x509.Certificate{cert}, [][]*x509.Certificate{{cert}}
	}
	return nbd.Client{ID: id, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6}, Transport: "tls", TLS: state}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"", "", true}, {"", "a", false},
		{"attach/*", "attach/x", true}, {"attach/*", "attach/", true}, {"attach/*", "attach", false}, {"attach/*", "xattach/y", false},
		{"hv-?.example.org", "hv-1.example.org", true}, {"hv-?.example.org", "hv-12.example.org", false},
		{"*.example.org", "a.b.example.org", true}, {"*.example.org", "a.example.org.evil", false},
		{"a*b*c", "axxbyybzc", true}, {"a*b*c", "axxbyyb", false}, {"*a", "aaaab", false},
		{strings.Repeat("*a", 20) + "b", strings.Repeat("a", 4000), false},
	} {
		if got := match(tt.pattern, tt.s); got != tt.want {
			t.Errorf("match(%q, %.40q) = %t", tt.pattern, tt.s, got)
		}
	}
}

func TestRules(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TLS = true })
	img := r.image("raw", noise(1<<20, 1))
	ov := r.overlay(img, 0)
	r.e.cfg.Rules = []Rule{
		{Name: "hv-*.example.org", Exports: []string{"attach/*", "overlay/*"}, Write: true},
		{Name: "Reader", Exports: []string{"*"}},
		{Name: "both", Exports: []string{"*"}},
		{Name: "both", Exports: []string{"overlay/" + ov.ID}, Write: true},
	}
	hv, reader, both := secure(11, "x", "HV-1.example.org"), secure(12, "reader"), secure(13, "both")
	writable := func(c nbd.Client, name string) bool {
		t.Helper()
		x := r.open(c, name)
		defer r.close(x)
		_, ok := x.Disk.(block.Device)
		return ok
	}
	if !writable(hv, "overlay/"+ov.ID) || !writable(both, "overlay/"+ov.ID) || !writable(first, "overlay/"+ov.ID) {
		t.Error("who may write cannot")
	}
	if writable(reader, "overlay/"+ov.ID) || writable(reader, "ephemeral/"+img.ID) || writable(reader, img.ID) || writable(both, "ephemeral/"+img.ID) {
		t.Error("who may only read can write")
	}
	r.refused(hv, img.ID, fs.ErrPermission, `"x"`, "[[nbd.clients]]")
	r.refused(hv, "00000000-0000-4000-8000-000000000000", fs.ErrPermission) // no oracle either
	r.refused(secure(14, "stranger"), img.ID, fs.ErrPermission)
	r.refused(secure(15, ""), img.ID, fs.ErrPermission)
	r.refused(tcp, img.ID, nbd.ErrTLSRequired, "certificate", "use TLS")

	for c, want := range map[*nbd.Client][]string{
		&hv: {"overlay/" + ov.ID}, &reader: {img.ID, "overlay/" + ov.ID}, &tcp: nil, &first: {img.ID, "overlay/" + ov.ID},
	} {
		var names []string
		for info, err := range r.e.List(t.Context(), *c) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, info.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("client %d is shown %q, want %q", c.ID, names, want)
		}
	}
}

// TestReaderBesideWriter: who may only read an overlay takes no writer's place.
func TestReaderBesideWriter(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.TLS, c.Rules = true, []Rule{{Name: "reader", Exports: []string{"*"}}}
	})
	ov := r.overlay(r.image("raw", noise(1<<20, 1)), 0)
	w := r.open(first, "overlay/"+ov.ID)
	defer w.Close()
	x := r.open(secure(12, "reader"), "overlay/"+ov.ID)
	defer x.Close()
	r.write(w, []byte("seen"), 512)
	if got := r.read(x.Disk)[512:516]; string(got) != "seen" {
		t.Errorf("the reader sees %q", got)
	}
}

func TestAttachOverTLS(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.TCP, c.Elsewhere, c.TLS, c.TLSRequired, c.ClientCertificates = "0.0.0.0:10809", "images.example.org:10809", true, true, true
		c.Rules = []Rule{{Name: "hv", Exports: []string{"attach/*"}, Write: true}, {Name: "watch", Exports: []string{"attach/*"}}}
	})
	img := r.image("raw", noise(1<<20, 1))
	ov := r.overlay(img, 0)
	a := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW, Transport: "tls", TLSDir: "/my certs"})
	if !strings.HasPrefix(a.URI, "nbds://images.example.org:10809/attach/") {
		t.Errorf("uri %s", a.URI)
	}
	x := r.open(secure(11, "hv"), exportOf(a))
	r.write(x, []byte("mine"), 0)
	y := r.open(secure(12, "watch"), exportOf(a))
	if _, ok := y.Disk.(block.Device); ok {
		t.Error("a certificate that may read can write through an attachment")
	}
	r.close(y)
	r.close(x)
	r.refused(tcp, exportOf(a), nbd.ErrTLSRequired, "use TLS")
	r.refused(remote, exportOf(a), nbd.ErrTLSRequired, "plain TCP", "use TLS")
	r.refused(remote, "attach/AAAA", nbd.ErrTLSRequired, "plain TCP") // before it is looked for
	r.refused(first, exportOf(a), fs.ErrPermission, "transport tls")
	r.refused(secure(13, "other"), exportOf(a), fs.ErrPermission)

	for transport, want := range map[string]string{"tcp": "only with TLS"} {
		_, err := r.e.Attach(t.Context(), platter.AttachRequest{Image: &img, Mode: catalog.AttachRO, Transport: transport})
		if wire.StatusOf(err) != 409 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", transport, err)
		}
	}
}

func TestDoorOverTLS(t *testing.T) {
	d := door{node: "platter-1", export: "attach/T", host: "images.example.org", port: "10809", tls: true, tlsDir: "/my certs"}
	shows := d
	shows.tlsDir, shows.tlsShows = "/etc/pki/qemu", true
	for _, tt := range []struct{ got, want string }{
		{d.uri(), "nbds://images.example.org:10809/attach/T"},
		{d.qemu(), "-object 'tls-creds-x509,id=tls-platter-1,endpoint=client,dir=/my certs' -blockdev driver=nbd,node-name=platter-1,server.type=inet,server.host=images.example.org,server.port=10809,tls-creds=tls-platter-1,export=attach/T,reconnect-delay=60,discard=unmap -device virtio-blk-pci,drive=platter-1"},
		{d.nbdClient(), "nbd-client -name attach/T -cacertfile '/my certs/ca-cert.pem' images.example.org 10809 /dev/nbd0 -persist"},
		{shows.nbdClient(), "nbd-client -name attach/T -cacertfile /etc/pki/qemu/ca-cert.pem -certfile /etc/pki/qemu/client-cert.pem -keyfile /etc/pki/qemu/client-key.pem images.example.org 10809 /dev/nbd0 -persist"},
	} {
		if tt.got != tt.want {
			t.Errorf("got  %s\nwant %s", tt.got, tt.want)
		}
	}
	if x := d.libvirt(); !strings.Contains(x, `<source protocol="nbd" name="attach/T" tls="yes">`) {
		t.Errorf("libvirt: %s", x)
	}
}
