package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends/block"
)

const mapHelp = `Lists the runs of a disk: data, zero, or absent, which is left to the file
beneath it and reads as zeros where there is none. Of an image, the gateway
answers.

Examples:
   platter map debian.qcow2
   platter map debian -f json`

func (p *program) mapCommand() *cli.Command {
	return &cli.Command{
		Name:        "map",
		Usage:       "list data and holes of a disk",
		Category:    "Image files",
		ArgsUsage:   "FILE|IMAGE",
		Description: mapHelp,
		Flags:       append([]cli.Flag{fromFlag()}, formatFlags()...),
		Action:      p.mapDisk,
	}
}

func (p *program) mapDisk(c *cli.Context) error {
	what, err := one(c, "FILE or IMAGE")
	if err != nil {
		return err
	}
	s, err := p.native(c, what)
	if err != nil {
		return err
	}
	defer s.close()
	out := sheet{columns: []string{"offset", "length", "kind"}}
	add := func(e block.Extent) {
		out.rows = append(out.rows, []any{e.Off, cell{e.Len, human(e.Len)}, e.Kind.String()})
	}
	if r, ok := s.native.(*remote); ok && c.String("from") == "" {
		for e, err := range r.cl.Map(c.Context, r.id) {
			if err != nil {
				return err
			}
			out.rows = append(out.rows, []any{e.Offset, cell{e.Length, human(e.Length)}, e.Kind})
		}
		return p.show(c, out)
	}
	if err := s.decode(c.Context, c.String("from")); err != nil {
		return err
	}
	for e, err := range block.Extents(c.Context, s.disk, 0, s.disk.Size()) {
		if err != nil {
			return fileError(fmt.Errorf("%s: %w", s.name, err))
		}
		add(e)
	}
	return p.show(c, out)
}
