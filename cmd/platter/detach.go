package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
	"github.com/seed-478a8fee/platter/nbd/attach"
)

const detachHelp = `Ends attachments: their connections are cut and their secrets are forgotten.
What was written to an ephemeral one is gone; an overlay stays. The name of a
device, /dev/nbdN, disconnects it from this machine: unmount it first.`

func (p *program) detachCommand() *cli.Command {
	return &cli.Command{
		Name:        "detach",
		Usage:       "end attachments",
		Category:    "Disks",
		ArgsUsage:   "ATTACHMENT|DEVICE...",
		Description: detachHelp,
		Action: func(c *cli.Context) error {
			if path := c.Args().First(); c.NArg() == 1 && strings.HasPrefix(path, "/dev/") {
				return attach.Disconnect(c.Context, path)
			}
			return p.each(c, "ATTACHMENT", func(cl *client.Client, id string) error {
				if strings.HasPrefix(id, "/dev/") {
					return attach.Disconnect(c.Context, id)
				}
				if err := cl.Detach(c.Context, id); err != nil {
					return hint(err, "platter attachment list shows the attachments")
				}
				return nil
			})
		},
	}
}
