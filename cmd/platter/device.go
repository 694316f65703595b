package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
	"github.com/seed-478a8fee/platter/nbd/attach"
)

const deviceHelp = `With --device the kernel of this machine gets the disk, as /dev/nbdN. The
command prints the device's name and stays: when the gateway restarts it
connects again, and who uses the device sees a pause and no error. It ends, and
the attachment with it, when it is interrupted or the device is disconnected:
platter detach /dev/nbdN. Unmount first. It needs root and the nbd module, and
cannot do TLS, which the kernel does not speak.

nbd-client, whose command line --print nbd-client prints, does TLS, but up to
3.26 does not survive a restart of the gateway: -persist has no effect there.

With --device an NBD URI of an attachment may stand in place of an image.
`

// deviceFlags are the flags of attach that are about a device.
func deviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "device", Usage: "connect to kernel `DEVICE` /dev/nbdN, or to auto, a free one, and stay to keep it connected"},
		&cli.IntFlag{Name: "connections", Usage: "`NUMBER` of connections that the device has", Value: 1},
		&cli.DurationFlag{Name: "request-timeout", Usage: "repeat requests that are older than `TIME`; the longest pause after a restart of the gateway", Value: 30 * time.Second},
		&cli.DurationFlag{Name: "reconnect", Usage: "let requests wait for `TIME` for a gateway that is away before they fail", Value: time.Minute},
	}
}

// checkDevice refuses flags that make no sense together, before there is an
// attachment.
func checkDevice(c *cli.Context) error {
	if c.String("device") == "" {
		for _, f := range deviceFlags()[1:] {
			if name := f.Names()[0]; c.IsSet(name) {
				return usagef("--%s belongs to --device", name)
			}
		}
		return nil
	}
	switch {
	case c.IsSet("print") || c.IsSet("format") || c.IsSet("column"):
		return usagef("--device prints the device's name and nothing else")
	case c.String("transport") == "tls":
		return hint(errors.New("the kernel speaks NBD without TLS"), "use --transport unix, or tcp on loopback")
	case c.Int("connections") < 1:
		return usagef("--connections takes a number from 1 on")
	}
	return nil
}

// isURI tells an NBD URI from a name.
func isURI(what string) bool {
	scheme, _, ok := strings.Cut(what, "://")
	return ok && strings.HasPrefix(scheme, "nbd")
}

// attachDevice connects what a URI names to a device of the kernel and keeps
// it connected until the command is interrupted, or the device disconnected.
func (p *program) attachDevice(c *cli.Context, uri string) error {
	cfg, err := attach.Parse(uri)
	if err != nil {
		return err
	}
	if cfg.Device = c.String("device"); cfg.Device == "auto" {
		cfg.Device = ""
	}
	cfg.ReadOnly = c.String("mode") == "ro"
	cfg.Connections = c.Int("connections")
	cfg.Timeout, cfg.DeadConnTimeout = c.Duration("request-timeout"), c.Duration("reconnect")
	cfg.Logger = slog.New(slog.NewTextHandler(p.err, nil))
	d, err := attach.Connect(c.Context, cfg)
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Fprintln(p.out, d.Path)
	if p.tty {
		fmt.Fprintf(p.err, "connected while this runs; when done: platter detach %s\n", d.Path)
	}
	err = d.Keep(c.Context)
	within, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 30*time.Second)
	defer cancel()
	return errors.Join(err, d.Disconnect(within))
}

// keepAttachment is attachDevice for an attachment that was made for it, and
// that ends with it.
func (p *program) keepAttachment(c *cli.Context, cl *client.Client, a client.Record) error {
	err := p.attachDevice(c, a.Text("uri"))
	within, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 10*time.Second)
	defer cancel()
	if gone := cl.Detach(within, a.ID()); gone != nil {
		err = errors.Join(err, hint(fmt.Errorf("the attachment %s is still there: %w", a.ID(), gone), "platter detach %s", a.ID()))
	}
	return err
}
