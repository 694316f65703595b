package main

import "github.com/urfave/cli/v2"

const imageShowHelp = `Shows all that the gateway knows of an image.

Examples:
   platter image show debian
   platter image show debian -f json
   platter image show debian -f value -c checksum`

func (p *program) imageShowCommand() *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show one image",
		ArgsUsage:   "IMAGE",
		Description: imageShowHelp,
		Flags:       formatFlags(),
		Action: func(c *cli.Context) error {
			_, img, err := p.image(c)
			if err != nil {
				return err
			}
			return p.showImage(c, img)
		},
	}
}
