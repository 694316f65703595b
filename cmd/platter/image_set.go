package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageSetHelp = `Changes fields, properties and tags of an image: all of them or, if one cannot
be, none. Tags are added to those it has.

Examples:
   platter image set debian --name debian-12 --property os_version=12
   platter image set debian --tag stable --protected`

func (p *program) imageSetCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "a new `NAME`"},
		&cli.StringSliceFlag{Name: "property", Usage: "set `KEY=VALUE`; may be repeated"},
		&cli.StringSliceFlag{Name: "tag", Usage: "add a `TAG`; may be repeated"},
		&cli.StringFlag{Name: "owner", Usage: "the `PROJECT` it belongs to"},
		&cli.StringFlag{Name: "disk-format", Usage: "`FORMAT` of the bytes, while there are none"},
		&cli.StringFlag{Name: "container-format", Usage: "`FORMAT` around the bytes, while there are none"},
		&cli.IntFlag{Name: "min-disk", Usage: "smallest disk to boot from it, in `GB`"},
		&cli.IntFlag{Name: "min-ram", Usage: "smallest memory to boot from it, in `MB`"},
		&cli.BoolFlag{Name: "protected", Usage: "it cannot be deleted"},
		&cli.BoolFlag{Name: "unprotected", Usage: "it can be deleted"},
		&cli.BoolFlag{Name: "hidden", Usage: "leave it out of listings"},
		&cli.BoolFlag{Name: "unhidden", Usage: "show it in listings"},
	}
	return &cli.Command{
		Name:        "set",
		Usage:       "change an image",
		ArgsUsage:   "IMAGE",
		Description: imageSetHelp,
		Flags:       append(append(flags, visibilityFlags()...), formatFlags()...),
		Action:      p.imageSet,
	}
}

func (p *program) imageSet(c *cli.Context) error {
	changes, err := setChanges(c)
	if err != nil {
		return err
	}
	tags := c.StringSlice("tag")
	if len(changes) == 0 && len(tags) == 0 {
		return usagef("nothing to change is given")
	}
	cl, img, err := p.image(c)
	if err != nil {
		return err
	}
	if len(tags) > 0 {
		all := img.Strings("tags")
		for _, tag := range tags {
			if !slices.Contains(all, tag) {
				all = append(all, tag)
			}
		}
		changes = append(changes, client.Change{Op: "replace", Path: "/tags", Value: all})
	}
	if img, err = cl.UpdateImage(c.Context, img.ID(), changes); err != nil {
		return err
	}
	return p.showImage(c, img)
}

// setChanges reads the changes from the flags. "add" also replaces.
func setChanges(c *cli.Context) ([]client.Change, error) {
	properties, err := pairs(c.StringSlice("property"))
	if err != nil {
		return nil, err
	}
	var changes []client.Change
	put := func(key string, value any) {
		changes = append(changes, client.Change{Op: "add", Path: client.Pointer(key), Value: value})
	}
	for key, value := range properties {
		put(key, value)
	}
	for _, f := range [][2]string{{"name", "name"}, {"owner", "owner"}, {"disk-format", "disk_format"}, {"container-format", "container_format"}} {
		if c.IsSet(f[0]) {
			put(f[1], c.String(f[0]))
		}
	}
	for _, f := range [][2]string{{"min-disk", "min_disk"}, {"min-ram", "min_ram"}} {
		if c.IsSet(f[0]) {
			put(f[1], c.Int(f[0]))
		}
	}
	for _, f := range [][3]string{{"protected", "unprotected", "protected"}, {"hidden", "unhidden", "os_hidden"}} {
		switch on, off := c.Bool(f[0]), c.Bool(f[1]); {
		case on && off:
			return nil, usagef("--%s and --%s exclude each other", f[0], f[1])
		case on || off:
			put(f[2], on)
		}
	}
	who, err := visibility(c)
	if who != "" {
		put("visibility", who)
	}
	return changes, err
}
