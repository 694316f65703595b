package exports

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/seed-478a8fee/platter/catalog"
)

// reconnect is for how many seconds a hypervisor should wait for a gateway
// that restarts, rather than give the guest an error.
const reconnect = 60

// A door is where an export can be opened, in the words of several clients.
type door struct {
	export     string
	node       string // QEMU's name for the disk: two attachments fit into one machine
	socket     string // or host and port
	host, port string
	readOnly   bool

	tls      bool
	tlsDir   string // folder of PEM files on the client's machine, named as QEMU names them
	tlsShows bool   // the client shows a certificate
}

// tlsDir is where QEMU and libvirt look for certificates if nobody says.
const tlsDir = "/etc/pki/qemu"

// reach is how a client on this machine reaches a listener that takes
// connections from anywhere.
func reach(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

func (e *Exports) door(a catalog.Attachment, token, dir string) door {
	d := door{export: "attach/" + token, node: "platter-" + a.ID[:min(8, len(a.ID))], readOnly: a.Mode == catalog.AttachRO}
	if a.Transport == "unix" {
		d.socket = e.cfg.Socket
		return d
	}
	where := e.cfg.TCP
	if d.tls = a.Transport == "tls"; d.tls {
		where, d.tlsDir, d.tlsShows = e.cfg.Elsewhere, cmp.Or(dir, tlsDir), e.cfg.ClientCertificates
	}
	d.host, d.port, _ = net.SplitHostPort(where) // reachable has checked it
	return d
}

// uri is the NBD URI.
func (d door) uri() string {
	if d.socket != "" {
		return "nbd+unix:///" + d.export + "?socket=" + strings.ReplaceAll(url.QueryEscape(d.socket), "+", "%20") // NBD URIs know no "+"
	}
	scheme := "nbd://"
	if d.tls {
		scheme = "nbds://"
	}
	return scheme + net.JoinHostPort(d.host, d.port) + "/" + d.export
}

// qemu is arguments of QEMU's command line, quoted for a shell.
func (d door) qemu() string {
	server := "server.type=inet,server.host=" + comma(d.host) + ",server.port=" + d.port
	if d.socket != "" {
		server = "server.type=unix,server.path=" + comma(d.socket)
	}
	object, creds := "", ""
	if d.tls {
		object = "-object " + quote("tls-creds-x509,id=tls-"+d.node+",endpoint=client,dir="+comma(d.tlsDir)) + " "
		creds = ",tls-creds=tls-" + d.node
	}
	blockdev := "driver=nbd,node-name=" + d.node + "," + server + creds + ",export=" + d.export + fmt.Sprintf(",reconnect-delay=%d", reconnect)
	if d.readOnly {
		blockdev += ",read-only=on"
	} else {
		blockdev += ",discard=unmap"
	}
	return object + "-blockdev " + quote(blockdev) + " -device virtio-blk-pci,drive=" + d.node
}

// comma doubles commas, as QEMU wants them in values.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// libvirt is a <disk> element. Where the certificates for TLS are is said in
// libvirt's qemu.conf.
func (d door) libvirt() string {
	host := fmt.Sprintf(`<host name="%s" port="%s"/>`, attr(d.host), attr(d.port))
	if d.socket != "" {
		host = fmt.Sprintf(`<host transport="unix" socket="%s"/>`, attr(d.socket))
	}
	extra, options, secure := "", ` discard="unmap"`, ""
	if d.tls {
		secure = ` tls="yes"`
	}
	if d.readOnly {
		extra, options = "\n  <readonly/>", ""
	}
	return fmt.Sprintf(`<disk type="network" device="disk">
  <driver name="qemu" type="raw"%s/>
  <source protocol="nbd" name="%s"%s>
    %s
    <reconnect delay="%d"/>
  </source>
  <target dev="vda" bus="virtio"/>%s
</disk>`, options, attr(d.export), secure, host, reconnect, extra)
}

func attr(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

// nbdClient is a command line that attaches the export to /dev/nbd0.
func (d door) nbdClient() string {
	where := d.host + " " + d.port
	if d.socket != "" {
		where = "-unix " + quote(d.socket)
	}
	secure := ""
	if d.tls {
		secure = "-cacertfile " + quote(d.tlsDir+"/ca-cert.pem") + " "
		if d.tlsShows {
			secure += "-certfile " + quote(d.tlsDir+"/client-cert.pem") + " -keyfile " + quote(d.tlsDir+"/client-key.pem") + " "
		}
	}
	line := "nbd-client -name " + quote(d.export) + " " + secure + where + " /dev/nbd0 -persist"
	if d.readOnly {
		line += " -readonly"
	}
	return line
}

// quote makes one word of s for a shell, as it is if that is safe.
func quote(s string) string {
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:@+", c) {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}
