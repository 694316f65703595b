package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

const infoHelp = `Says what an image file is: its format, its sizes, its snapshots, and what it
claims to stand on. For an image of the gateway, the record comes with it.
Nothing that a file names is opened.

Examples:
   platter info debian.qcow2
   platter info debian -f json`

func (p *program) infoCommand() *cli.Command {
	return &cli.Command{
		Name:        "info",
		Usage:       "say what an image file is",
		Category:    "Image files",
		ArgsUsage:   "FILE|IMAGE",
		Description: infoHelp,
		Flags:       append([]cli.Flag{fromFlag()}, formatFlags()...),
		Action:      p.info,
	}
}

func fromFlag() cli.Flag {
	return &cli.StringFlag{Name: "from", Usage: "take the file as `FORMAT` (default: look)"}
}

func (p *program) info(c *cli.Context) error {
	what, err := one(c, "FILE or IMAGE")
	if err != nil {
		return err
	}
	s, err := p.source(c, what, c.String("from"))
	if err != nil {
		return err
	}
	defer s.close()
	out := sheet{single: true, rows: [][]any{{}}}
	add := func(column string, v any) {
		out.columns = append(out.columns, column)
		out.rows[0] = append(out.rows[0], v)
	}
	add("name", s.name)
	if s.record != nil {
		add("id", s.record.ID())
		add("status", s.record.Text("status"))
	}
	add("format", s.format)
	add("virtual_size", size(s.disk.Size()))
	add("file_size", size(s.native.Size()))
	stored, err := block.Stored(c.Context, s.disk)
	if err != nil {
		return fileError(fmt.Errorf("%s: %w", s.name, err))
	}
	add("data", size(stored))
	if q, ok := s.image.(*qcow2.Image); ok {
		if err := infoQcow2(c.Context, q, add); err != nil {
			return fileError(fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return p.show(c, out)
}

func infoQcow2(ctx context.Context, q *qcow2.Image, add func(string, any)) error {
	h := q.Header()
	add("version", h.Version)
	add("cluster_size", size(h.ClusterSize()))
	add("extended_l2", h.Extended())
	add("dirty", q.Dirty())
	add("corrupt", q.Corrupt())
	if q.Backing() != "" {
		add("claims_to_stand_on", q.Backing())
		add("claimed_format", h.BackingFormat())
	}
	list, err := q.Snapshots(ctx)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(list))
	for _, s := range list {
		names = append(names, fmt.Sprintf("%s %s (%s)", s.ID, s.Name, s.Created.UTC().Format(time.DateTime)))
	}
	if len(names) > 0 {
		add("snapshots", names)
	}
	return nil
}
