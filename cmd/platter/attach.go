package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const attachHelp = `Gives you the right to open one disk over NBD, and says how: the arguments for
QEMU, a disk element for libvirt, an NBD URI, and a command for the kernel's
client. The address holds a secret that is shown only now; whoever has it can
open the disk until it is detached.

Modes:
   ro         read only: of an image (the default) or of an overlay
   rw         writable: of an overlay (the default), one at a time
   ephemeral  writable, of an image; what is written is kept apart from the
              image and is gone with the attachment

Transports:
   unix       the gateway's socket (the default): for clients on its machine
   tcp        plain TCP, on loopback only, for anybody could read the secret
   tls        TLS, also from other machines; the client needs the gateway's
              authority, and a certificate if the gateway wants one, in a
              folder with the names that QEMU gives them: ca-cert.pem,
              client-cert.pem, client-key.pem

Examples:
   platter attach debian --mode ephemeral
   platter attach overlay/web1
   platter attach overlay/web1 --transport tls --tls-dir /etc/pki/web1
   platter attach overlay/web1 --device auto
   qemu-system-x86_64 -m 1G $(platter attach debian --mode ephemeral --print qemu)`

func (p *program) attachCommand() *cli.Command {
	return &cli.Command{
		Name:        "attach",
		Usage:       "open a disk over NBD",
		Category:    "Disks",
		ArgsUsage:   "IMAGE|overlay/OVERLAY",
		Description: strings.Replace(attachHelp, "Examples:", deviceHelp+"\nExamples:", 1),
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "mode", Usage: "`MODE`: ro, rw or ephemeral"},
			&cli.StringFlag{Name: "transport", Usage: "`TRANSPORT`: unix, tcp or tls (default: unix)"},
			&cli.StringFlag{Name: "tls-dir", Usage: "with transport tls: the `FOLDER` of certificates on the client's machine (default: /etc/pki/qemu)"},
			&cli.BoolFlag{Name: "accept-loss", Usage: "take the overlay even if its last writes are only in the journal of a gateway that is away; they are lost then"},
			&cli.StringFlag{Name: "print", Usage: "print `WHAT` only: qemu, libvirt, uri or nbd-client"},
		}, deviceFlags(), formatFlags()),
		Action: p.attach,
	}
}

// printKeys maps what --print takes to where it is in the answer.
func printKeys() map[string]string {
	return map[string]string{"qemu": "qemu", "libvirt": "libvirt_xml", "uri": "uri", "nbd-client": "nbd_client"}
}

func (p *program) attach(c *cli.Context) error {
	what, err := one(c, "IMAGE or overlay/OVERLAY")
	if err != nil {
		return err
	}
	only := c.String("print")
	if only != "" && printKeys()[only] == "" {
		return usagef("--print takes qemu, libvirt, uri or nbd-client, not %q", only)
	}
	if err := checkDevice(c); err != nil {
		return err
	}
	if isURI(what) {
		if c.String("device") == "" {
			return usagef("an NBD URI belongs to --device; everything else wants IMAGE or overlay/OVERLAY")
		}
		return p.attachDevice(c, what)
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	fields, err := attachTarget(c, cl, what)
	if err != nil {
		return err
	}
	for _, key := range []string{"mode", "transport"} {
		if v := c.String(key); v != "" {
			fields[key] = v
		}
	}
	if v := c.String("tls-dir"); v != "" {
		fields["tls_dir"] = v
	}
	if c.Bool("accept-loss") {
		fields["accept_loss"] = true
	}
	a, err := cl.Attach(c.Context, fields)
	if err != nil {
		return err
	}
	switch {
	case c.String("device") != "":
		return p.keepAttachment(c, cl, a)
	case only != "":
		if p.tty { // what was printed does not tell it
			fmt.Fprintf(p.err, "attached; when done: platter detach %s\n", a.ID())
		}
		_, err = fmt.Fprintln(p.out, a.Text(printKeys()[only]))
		return err
	case c.String("format") == "table" && !c.IsSet("column"):
		return p.explain(a)
	}
	return p.show(c, upright(a, attachmentOrder()))
}

func attachTarget(c *cli.Context, cl *client.Client, what string) (map[string]any, error) {
	if strings.HasPrefix(what, "overlay/") {
		o, err := cl.FindOverlay(c.Context, what)
		return map[string]any{"overlay_id": o.ID()}, err
	}
	img, err := cl.FindImage(c.Context, strings.TrimPrefix(what, "image:"))
	return map[string]any{"image_id": img.ID()}, err
}

func attachmentOrder() []string {
	return []string{"id", "image_id", "overlay_id", "mode", "transport", "uri", "qemu", "libvirt_xml", "nbd_client"}
}

// explain says in words how to use an attachment.
func (p *program) explain(a client.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Attached (%s, over %s). The address is a secret and is shown only now.\n", a.Text("mode"), a.Text("transport"))
	for _, part := range [][2]string{{"NBD URI", "uri"}, {"QEMU", "qemu"}, {"libvirt", "libvirt_xml"}, {"Kernel", "nbd_client"}} {
		if text := strings.TrimSpace(a.Text(part[1])); text != "" {
			fmt.Fprintf(&b, "\n%s:\n   %s\n", part[0], strings.ReplaceAll(text, "\n", "\n   "))
		}
	}
	fmt.Fprintf(&b, "\nWhen done:\n   platter detach %s\n", a.ID())
	_, err := fmt.Fprint(p.out, b.String())
	return err
}

const attachmentHelp = `Lists who has the right to open what, without the secrets.`

func (p *program) attachmentCommand() *cli.Command {
	return &cli.Command{
		Name:     "attachment",
		Usage:    "list attachments",
		Category: "Disks",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list attachments, oldest first", Description: attachmentHelp, Flags: formatFlags(), Action: p.attachmentList},
		},
	}
}

func (p *program) attachmentList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"id", "image_id", "overlay_id", "mode", "transport", "connections", "created_at", "last_used"}}
	for a, err := range cl.Attachments(c.Context, url.Values{}) {
		if err != nil {
			return err
		}
		r := row(a, s.columns)
		list, _ := a["connections"].([]any)
		r[5] = cell{a["connections"], fmt.Sprint(len(list))}
		s.rows = append(s.rows, r)
	}
	return p.show(c, s)
}
