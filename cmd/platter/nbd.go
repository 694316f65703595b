package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const nbdHelp = `Shows who has what open over NBD, and cuts connections. A client that is cut
may come back at once, as hypervisors do: to keep it out, detach what it opens.

Examples:
   platter nbd list
   platter nbd kick 17
   platter nbd kick --export overlay/3f0e2b52-6f38-4c58-8d0e-4a5c7c1f2a10`

func (p *program) nbdCommand() *cli.Command {
	return &cli.Command{
		Name: "nbd", Usage: "list and cut NBD connections", Category: "Gateway", Description: nbdHelp,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list the live connections, oldest first", Action: p.nbdList, Flags: formatFlags()},
			{
				Name: "kick", Usage: "cut connections", ArgsUsage: "ID...", Action: p.nbdKick,
				Description: `Cuts connections by their numbers, all of an export, or all there are. Requests
in flight are cancelled; the export is closed when this returns.`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "export", Usage: "every connection that has this `EXPORT` open, as platter nbd list calls it"},
					&cli.BoolFlag{Name: "all", Usage: "every connection of the gateway"},
				},
			},
		},
	}
}

func (p *program) nbdList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	list, err := cl.Connections(c.Context)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"id", "client", "transport", "peer", "export", "writable", "headers", "age", "in_flight", "requests", "read", "written", "errors"}}
	for _, r := range list {
		age := r.Int("age_seconds")
		r["age"] = cell{age, (time.Duration(age) * time.Second).String()}
		r["read"], r["written"] = size(r.Int("read_bytes")), size(r.Int("written_bytes"))
		s.rows = append(s.rows, row(r, s.columns))
	}
	return p.show(c, s)
}

func (p *program) nbdKick(c *cli.Context) error {
	export, all := c.String("export"), c.Bool("all")
	kinds := 0
	for _, given := range []bool{c.NArg() > 0, c.IsSet("export"), all} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return usagef("%s takes the numbers of connections, or --export, or --all", c.Command.HelpName)
	}
	if c.NArg() > 0 {
		return p.each(c, "ID", func(cl *client.Client, id string) error {
			if _, err := strconv.ParseUint(id, 10, 64); err != nil {
				return usagef("%q is no number of a connection; platter nbd list shows them", id)
			}
			return hinting(cl.Kick(c.Context, id), "platter nbd list shows the connections")
		})
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	list, err := cl.Connections(c.Context)
	if err != nil {
		return err
	}
	if !all {
		list = slices.DeleteFunc(list, func(r client.Record) bool { return r.Text("export") != export })
		if len(list) == 0 {
			return hint(&client.MissingError{Kind: "connection to export", Name: export}, "platter nbd list shows the connections")
		}
	}
	for _, r := range list {
		if err := cl.Kick(c.Context, r.ID()); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have gone by itself
			return err
		}
	}
	if p.tty {
		fmt.Fprintf(p.err, "%d connections cut\n", len(list))
	}
	return nil
}

// hinting adds a hint to an error for what is not there.
func hinting(err error, text string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hint(err, "%s", text)
	}
	return err
}
