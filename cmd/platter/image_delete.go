package main

import (
	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageDeleteHelp = `Deletes images and their bytes. An image that is protected, or that an overlay
or an attachment uses, stays.

Example:
   platter image delete debian-11 debian-10`

func (p *program) imageDeleteCommand() *cli.Command {
	return &cli.Command{
		Name:        "delete",
		Usage:       "delete images",
		ArgsUsage:   "IMAGE...",
		Description: imageDeleteHelp,
		Action: func(c *cli.Context) error {
			return p.each(c, "IMAGE", func(cl *client.Client, what string) error {
				img, err := cl.FindImage(c.Context, what)
				if err != nil {
					return err
				}
				return cl.DeleteImage(c.Context, img.ID())
			})
		},
	}
}
