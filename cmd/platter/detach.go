package main

import (
	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const detachHelp = `Ends attachments: their connections are cut and their secrets are forgotten.
What was written to an ephemeral one is gone; an overlay stays.`

func (p *program) detachCommand() *cli.Command {
	return &cli.Command{
		Name:        "detach",
		Usage:       "end attachments",
		Category:    "Disks",
		ArgsUsage:   "ATTACHMENT...",
		Description: detachHelp,
		Action: func(c *cli.Context) error {
			return p.each(c, "ATTACHMENT", func(cl *client.Client, id string) error {
				if err := cl.Detach(c.Context, id); err != nil {
					return hint(err, "platter attachment list shows the attachments")
				}
				return nil
			})
		},
	}
}
