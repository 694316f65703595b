package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageUnsetHelp = `Takes properties and tags away from an image: all of them or, if one is not
there, none.

Example:
   platter image unset debian --property os_version --tag stable`

func (p *program) imageUnsetCommand() *cli.Command {
	return &cli.Command{
		Name:        "unset",
		Usage:       "take properties and tags away from an image",
		ArgsUsage:   "IMAGE",
		Description: imageUnsetHelp,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "property", Usage: "remove this `KEY`; may be repeated"},
			&cli.StringSliceFlag{Name: "tag", Usage: "remove this `TAG`; may be repeated"},
		}, formatFlags()...),
		Action: p.imageUnset,
	}
}

func (p *program) imageUnset(c *cli.Context) error {
	keys, tags := c.StringSlice("property"), c.StringSlice("tag")
	if len(keys)+len(tags) == 0 {
		return usagef("nothing to remove is given; use --property KEY or --tag TAG")
	}
	cl, img, err := p.image(c)
	if err != nil {
		return err
	}
	var changes []client.Change
	for _, key := range keys {
		if _, ok := img[key]; !ok {
			return nothingToUnset(img, "property", key)
		}
		changes = append(changes, client.Change{Op: "remove", Path: client.Pointer(key)})
	}
	if len(tags) > 0 {
		left := img.Strings("tags")
		for _, tag := range tags {
			i := slices.Index(left, tag)
			if i < 0 {
				return nothingToUnset(img, "tag", tag)
			}
			left = slices.Delete(left, i, i+1)
		}
		changes = append(changes, client.Change{Op: "replace", Path: "/tags", Value: left})
	}
	if img, err = cl.UpdateImage(c.Context, img.ID(), changes); err != nil {
		return err
	}
	return p.showImage(c, img)
}

func nothingToUnset(img client.Record, kind, what string) error {
	return &hinted{
		err:  fmt.Errorf("image %s has no %s %q; nothing was changed", img.ID(), kind, what),
		hint: "platter image show " + img.ID() + " shows what it has",
		code: exitNotFound,
	}
}
