package main

import (
	"cmp"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const overlayHelp = `An overlay is a writable disk on top of an image. What is written stays until
the overlay is deleted; the image never changes.

Examples:
   platter overlay create debian --name web1
   platter attach overlay/web1
   platter capture --overlay web1 --name debian-with-web
   platter overlay delete web1`

func (p *program) overlayCommand() *cli.Command {
	return &cli.Command{
		Name:        "overlay",
		Usage:       "make, list, snapshot and delete writable disks",
		Category:    "Disks",
		Description: overlayHelp,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list overlays, oldest first", Action: p.overlayList, Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "image", Usage: "only on this `IMAGE`"},
			}, formatFlags()...)},
			{Name: "show", Usage: "show one overlay", ArgsUsage: "OVERLAY", Action: p.overlayShow, Flags: formatFlags()},
			{Name: "create", Usage: "make an overlay of an image", ArgsUsage: "IMAGE", Action: p.overlayCreate, Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "name", Usage: "its `NAME`"},
				&cli.StringFlag{Name: "size", Usage: "its `SIZE`, such as 20GiB (default: that of the image)"},
				&cli.StringFlag{Name: "store", Usage: "the `STORE` that keeps what is written (default: the default store)"},
			}, formatFlags()...)},
			{Name: "resize", Usage: "make an overlay larger while nobody has it open", ArgsUsage: "OVERLAY SIZE", Action: p.overlayResize, Flags: formatFlags()},
			{Name: "flatten", Usage: "copy into an overlay what it takes from its image", ArgsUsage: "OVERLAY", Action: p.overlayFlatten, Flags: formatFlags()},
			{Name: "delete", Usage: "delete overlays and what was written to them", ArgsUsage: "OVERLAY...", Action: p.overlayDelete},
			{Name: "snapshot", Usage: "keep the state of an overlay, or forget one", ArgsUsage: "OVERLAY", Action: p.overlaySnapshot, Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "name", Usage: "the snapshot's `NAME`"},
				&cli.StringFlag{Name: "delete", Usage: "forget this `SNAPSHOT` (an id or a name) instead"},
			}, formatFlags()...)},
		},
	}
}

func overlayOrder() []string {
	return []string{"id", "name", "image_id", "size", "used", "status", "message", "export", "engine", "store", "dirty", "gateway", "owner"}
}

func (p *program) overlayList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	query := url.Values{}
	if what := c.String("image"); what != "" {
		img, err := cl.FindImage(c.Context, what)
		if err != nil {
			return err
		}
		query.Set("image_id", img.ID())
	}
	s := sheet{columns: []string{"id", "name", "image_id", "size", "used", "status", "gateway"}}
	for o, err := range cl.Overlays(c.Context, query) {
		if err != nil {
			return err
		}
		s.rows = append(s.rows, row(o, s.columns))
	}
	return p.show(c, s)
}

// overlay connects and finds the only argument, which is an overlay.
func (p *program) overlay(c *cli.Context) (*client.Client, client.Record, error) {
	what, err := one(c, "OVERLAY")
	if err != nil {
		return nil, nil, err
	}
	cl, err := p.connect(c)
	if err != nil {
		return nil, nil, err
	}
	o, err := cl.FindOverlay(c.Context, what)
	return cl, o, err
}

func (p *program) overlayShow(c *cli.Context) error {
	_, o, err := p.overlay(c)
	if err != nil {
		return err
	}
	return p.show(c, upright(o, overlayOrder()))
}

func (p *program) overlayCreate(c *cli.Context) error {
	fields := map[string]any{}
	if s := c.String("size"); s != "" {
		n, err := parseSize(s)
		if err != nil {
			return err
		}
		fields["size"] = n
	}
	for _, key := range []string{"name", "store"} {
		if v := c.String(key); v != "" {
			fields[key] = v
		}
	}
	cl, img, err := p.image(c)
	if err != nil {
		return err
	}
	fields["image_id"] = img.ID()
	o, err := cl.CreateOverlay(c.Context, fields)
	if err != nil {
		return err
	}
	return p.show(c, upright(o, overlayOrder()))
}

// parseSize reads 512, 20G or 20GiB. The units are powers of 1024, as qemu-img
// takes them.
func parseSize(s string) (int64, error) {
	m := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(?:([KMGTPE])I?)?B?$`).FindStringSubmatch(strings.ToUpper(s))
	if m == nil {
		return 0, usagef("%q is not a size; write bytes, or 512M, 20G, 1.5T", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	shift := 10 * strings.Index("BKMGTPE", cmp.Or(m[2], "B"))
	if err != nil || n*float64(int64(1)<<shift) >= 1<<63 {
		return 0, usagef("%q is too large", s)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}

func (p *program) overlayResize(c *cli.Context) error {
	what, size, err := two(c, "OVERLAY", "SIZE")
	if err != nil {
		return err
	}
	n, err := parseSize(size)
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	o, err := cl.FindOverlay(c.Context, what)
	if err == nil {
		o, err = cl.ChangeOverlay(c.Context, o.ID(), map[string]any{"size": n})
	}
	if err != nil {
		return err
	}
	return p.show(c, upright(o, overlayOrder()))
}

func (p *program) overlayFlatten(c *cli.Context) error {
	cl, o, err := p.overlay(c)
	if err != nil {
		return err
	}
	task, err := cl.Flatten(c.Context, o.ID())
	if err != nil {
		return err
	}
	return p.show(c, upright(task, []string{"id", "type", "status", "message"}, "self", "schema"))
}

func (p *program) overlayDelete(c *cli.Context) error {
	return p.each(c, "OVERLAY", func(cl *client.Client, what string) error {
		o, err := cl.FindOverlay(c.Context, what)
		if err != nil {
			return err
		}
		return cl.DeleteOverlay(c.Context, o.ID())
	})
}

func (p *program) overlaySnapshot(c *cli.Context) error {
	cl, o, err := p.overlay(c)
	if err != nil {
		return err
	}
	if what := c.String("delete"); what != "" {
		id, err := snapshotID(o, what)
		if err != nil {
			return err
		}
		return cl.DeleteSnapshot(c.Context, o.ID(), id)
	}
	snap, err := cl.Snapshot(c.Context, o.ID(), c.String("name"))
	if err != nil {
		return err
	}
	return p.show(c, upright(snap, []string{"id", "name", "created_at"}))
}

// snapshotID returns the id of the snapshot that an id or a name means.
func snapshotID(o client.Record, what string) (string, error) {
	list, _ := o["snapshots"].([]any)
	var all []string
	for _, v := range list {
		snap, _ := v.(map[string]any)
		if snap["id"] == what {
			return what, nil
		}
		if snap["name"] == what {
			all = append(all, client.Record(snap).ID())
		}
	}
	switch len(all) {
	case 0:
		return "", hint(&client.MissingError{Kind: "snapshot", Name: what},
			"platter overlay show %s -c snapshots shows what there is", o.ID())
	case 1:
		return all[0], nil
	}
	return "", &client.AmbiguousError{Kind: "snapshot", Name: what, IDs: all}
}
