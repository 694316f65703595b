package main

import (
	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageActivateHelp = `Makes images that were deactivated usable again.`

const imageDeactivateHelp = `Keeps images from being read, by all but administrators, until they are
activated again. Their bytes stay.`

func (p *program) imageActivateCommand() *cli.Command {
	return p.actionCommand("activate", "reactivate", "make deactivated images usable again", imageActivateHelp)
}

func (p *program) imageDeactivateCommand() *cli.Command {
	return p.actionCommand("deactivate", "deactivate", "keep images from being read", imageDeactivateHelp)
}

func (p *program) actionCommand(name, action, short, help string) *cli.Command {
	return &cli.Command{
		Name:        name,
		Usage:       short,
		ArgsUsage:   "IMAGE...",
		Description: help,
		Action: func(c *cli.Context) error {
			return p.each(c, "IMAGE", func(cl *client.Client, what string) error {
				img, err := cl.FindImage(c.Context, what)
				if err != nil {
					return err
				}
				return cl.Act(c.Context, img.ID(), action)
			})
		},
	}
}
