package main

import (
	"net/url"

	"github.com/urfave/cli/v2"
)

const imageListHelp = `Lists the images that you may see, newest first.

Examples:
   platter image list
   platter image list --status active --sort size:desc
   platter image list --name debian --property os_distro=debian
   platter image list -f value -c id`

func (p *program) imageListCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "only images of this `NAME`"},
		&cli.StringFlag{Name: "status", Usage: "only images in this `STATUS`, such as active or queued"},
		&cli.StringFlag{Name: "disk-format", Usage: "only images in this `FORMAT`"},
		&cli.StringSliceFlag{Name: "property", Usage: "only images with `KEY=VALUE`; may be repeated"},
		&cli.StringSliceFlag{Name: "tag", Usage: "only images with this `TAG`; may be repeated"},
		&cli.StringFlag{Name: "owner", Usage: "only images of this `PROJECT`"},
		&cli.StringFlag{Name: "member-status", Usage: "images offered to you: pending, accepted, rejected or all"},
		&cli.BoolFlag{Name: "hidden", Usage: "only hidden images"},
		&cli.BoolFlag{Name: "all", Usage: "community images of others as well"},
		&cli.StringFlag{Name: "sort", Usage: "`KEY[:asc|desc],...`, such as name:asc"},
		&cli.IntFlag{Name: "limit", Usage: "at most `N` images (default: all)"},
		&cli.BoolFlag{Name: "long", Usage: "more columns"},
	}
	return &cli.Command{
		Name:        "list",
		Usage:       "list images",
		Description: imageListHelp,
		Flags:       append(append(flags, visibilityFlags()...), formatFlags()...),
		Action:      p.imageList,
	}
}

func (p *program) imageList(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("image list takes no argument; to look for a name, use --name %s", c.Args().First())
	}
	query, err := imageQuery(c)
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"id", "name", "status", "disk_format", "size", "visibility"}}
	if c.Bool("long") {
		s.columns = append(s.columns, "virtual_size", "container_format", "protected", "owner", "tags", "checksum", "created_at", "updated_at")
	}
	for img, err := range cl.Images(c.Context, query) {
		if err != nil {
			return err
		}
		s.rows = append(s.rows, row(img, s.columns))
		if len(s.rows) == c.Int("limit") {
			break
		}
	}
	return p.show(c, s)
}

func imageQuery(c *cli.Context) (url.Values, error) {
	query := url.Values{"limit": {"1000"}}
	if n := c.Int("limit"); n < 0 {
		return nil, usagef("--limit %d: a number of images is not negative", n)
	} else if n > 0 {
		query.Set("limit", c.String("limit"))
	}
	for flag, key := range map[string]string{"name": "name", "status": "status", "disk-format": "disk_format",
		"owner": "owner", "member-status": "member_status", "sort": "sort"} {
		if v := c.String(flag); v != "" {
			query.Set(key, v)
		}
	}
	who, err := visibility(c)
	if err != nil {
		return nil, err
	}
	if c.Bool("all") {
		who = "all"
	}
	if who != "" {
		query.Set("visibility", who)
	}
	if c.Bool("hidden") {
		query.Set("os_hidden", "true")
	}
	properties, err := pairs(c.StringSlice("property"))
	if err != nil {
		return nil, err
	}
	for key, value := range properties {
		query.Set(key, value)
	}
	for _, tag := range c.StringSlice("tag") {
		query.Add("tag", tag)
	}
	return query, nil
}
