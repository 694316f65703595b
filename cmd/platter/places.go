package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

func (p *program) storeCommand() *cli.Command {
	return &cli.Command{
		Name: "store", Usage: "list the stores", Category: "Gateway",
		Description: `A store is a place for the bytes of images. What its server can do was tried
when the gateway opened it; nothing relies on what it cannot.

Examples:
   platter store list
   platter store show cold`,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list the stores, how they are, and what their servers lack", Action: p.storeList, Flags: formatFlags()},
			{Name: "show", Usage: "show one store with all that its server was found to do", ArgsUsage: "STORE", Action: p.storeShow, Flags: formatFlags()},
		},
	}
}

func (p *program) storeList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	list, err := cl.Stores(c.Context)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"name", "type", "default", "state", "message", "total", "free", "overlay", "durability", "lacks"}}
	for _, r := range list {
		r["lacks"] = lacks(r)
		s.rows = append(s.rows, row(r, s.columns))
	}
	return p.show(c, s)
}

// lacks names what a store's server was found not to do.
func lacks(r client.Record) string {
	var names []string
	for _, c := range r.Records("capabilities") {
		if c["ok"] != true {
			names = append(names, c.Text("name"))
		}
	}
	return strings.Join(names, ", ")
}

func (p *program) storeShow(c *cli.Context) error {
	name, err := one(c, "STORE")
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	list, err := cl.Stores(c.Context)
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.Text("name") != name {
			continue
		}
		order := []string{"name", "type", "description", "default", "weight", "state", "message", "since", "latency_seconds", "total", "free", "overlay", "durability"}
		for _, c := range r.Records("capabilities") {
			key := "can: " + c.Text("name")
			r[key] = c["ok"]
			if d := c.Text("detail"); d != "" {
				r[key] = fmt.Sprintf("%v (%s)", c["ok"], d)
			}
			order = append(order, key)
		}
		delete(r, "capabilities")
		return p.show(c, upright(r, order))
	}
	return hint(&client.MissingError{Kind: "store", Name: name}, "platter store list shows what there is")
}

func (p *program) cacheCommand() *cli.Command {
	return &cli.Command{
		Name: "cache", Usage: "look at the cache above far stores", Category: "Gateway",
		Description: `The gateway keeps what it reads from far stores on a local disk. Images never
change, so nothing in the cache is ever wrong; it only takes space.

Examples:
   platter cache show
   platter cache list
   platter cache drop debian
   platter cache queue debian       fetch all of it, ahead of its first use
   platter cache list --whole`,
		Subcommands: append([]*cli.Command{
			{Name: "show", Usage: "what it did and holds", Action: p.cacheShow, Flags: formatFlags()},
			{Name: "list", Usage: "list the images in it", Action: p.cacheList, Flags: append([]cli.Flag{
				&cli.BoolFlag{Name: "whole", Usage: "only those of which everything is there, with their uses, and those that are queued"},
			}, formatFlags()...)},
			{Name: "drop", Usage: "take images out of it", ArgsUsage: "IMAGE...", Action: p.cacheDrop},
		}, p.wholeCommands()...),
	}
}

func (p *program) cacheShow(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	r, err := cl.Cache(c.Context)
	if err != nil {
		return err
	}
	return p.show(c, upright(r, []string{"dir", "state", "message", "size", "used", "hits", "misses", "waits", "hit_bytes", "far_bytes",
		"fetches", "hedges", "corrupt", "evicted_bytes"}, "images"))
}

func (p *program) cacheList(c *cli.Context) error {
	if c.Bool("whole") {
		return p.cacheWhole(c)
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	r, err := cl.Cache(c.Context)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"image_id", "size", "used", "generation"}}
	for _, i := range r.Records("images") {
		s.rows = append(s.rows, row(i, s.columns))
	}
	return p.show(c, s)
}

func (p *program) cacheDrop(c *cli.Context) error {
	return p.each(c, "IMAGE", func(cl *client.Client, what string) error {
		img, err := cl.FindImage(c.Context, what)
		if err != nil {
			return err
		}
		return cl.DropCached(c.Context, img.ID())
	})
}

func (p *program) traceCommand() *cli.Command {
	return &cli.Command{
		Name: "trace", Usage: "what is fetched ahead when an image is attached", ArgsUsage: "IMAGE", Action: p.imageTrace,
		Description: `The gateway notes in which order the bytes of an image are first read after it
is attached from a far store, and fetches them ahead the next time. Ranges are
bytes of the image as stored.`,
		Flags: append([]cli.Flag{&cli.BoolFlag{Name: "forget", Usage: "forget it, so that the next attachment records anew"}}, formatFlags()...),
	}
}

func (p *program) imageTrace(c *cli.Context) error {
	cl, img, err := p.image(c)
	if err != nil {
		return err
	}
	if c.Bool("forget") {
		return cl.ForgetTrace(c.Context, img.ID())
	}
	r, err := cl.Trace(c.Context, img.ID())
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"offset", "length"}}
	for _, i := range r.Records("ranges") {
		s.rows = append(s.rows, row(i, s.columns))
	}
	if p.tty {
		fmt.Fprintf(p.err, "learned from %s attachments, %s bytes\n", r.Text("boots"), r.Text("bytes"))
	}
	return p.show(c, s)
}
