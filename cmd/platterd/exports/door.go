package exports

import (
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
}

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

func (e *Exports) door(a catalog.Attachment, token string) door {
	d := door{export: "attach/" + token, node: "platter-" + a.ID[:min(8, len(a.ID))], readOnly: a.Mode == catalog.AttachRO}
	if a.Transport == "unix" {
		d.socket = e.cfg.Socket
		return d
	}
	d.host, d.port, _ = net.SplitHostPort(e.cfg.TCP) // reachable has checked it
	return d
}

// uri is the NBD URI.
func (d door) uri() string {
	if d.socket != "" {
		return "nbd+unix:///" + d.export + "?socket=" + strings.ReplaceAll(url.QueryEscape(d.socket), "+", "%20") // NBD URIs know no "+"
	}
	return "nbd://" + net.JoinHostPort(d.host, d.port) + "/" + d.export
}

// qemu is arguments of QEMU's command line, quoted for a shell.
func (d door) qemu() string {
	server := "server.type=inet,server.host=" + comma(d.host) + ",server.port=" + d.port
	if d.socket != "" {
		server = "server.type=unix,server.path=" + comma(d.socket)
	}
	blockdev := "driver=nbd,node-name=" + d.node + "," + server + ",export=" + d.export + fmt.Sprintf(",reconnect-delay=%d", reconnect)
	if d.readOnly {
		blockdev += ",read-only=on"
	} else {
		blockdev += ",discard=unmap"
	}
	return "-blockdev " + quote(blockdev) + " -device virtio-blk-pci,drive=" + d.node
}

// comma doubles commas, as QEMU wants them in values.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// libvirt is a <disk> element.
func (d door) libvirt() string {
	host := fmt.Sprintf(`<host name="%s" port="%s"/>`, attr(d.host), attr(d.port))
	if d.socket != "" {
		host = fmt.Sprintf(`<host transport="unix" socket="%s"/>`, attr(d.socket))
	}
	extra, options := "", ` discard="unmap"`
	if d.readOnly {
		extra, options = "\n  <readonly/>", ""
	}
	return fmt.Sprintf(`<disk type="network" device="disk">
  <driver name="qemu" type="raw"%s/>
  <source protocol="nbd" name="%s">
    %s
    <reconnect delay="%d"/>
  </source>
  <target dev="vda" bus="virtio"/>%s
</disk>`, options, attr(d.export), host, reconnect, extra)
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
	line := "nbd-client -name " + quote(d.export) + " " + where + " /dev/nbd0 -persist"
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
