package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

func (p *program) imageCommand() *cli.Command {
	return &cli.Command{
		Name:     "image",
		Usage:    "list, create, change, download and delete images",
		Category: "Images",
		Subcommands: []*cli.Command{
			p.imageListCommand(), p.imageShowCommand(), p.imageCreateCommand(), p.imageSetCommand(), p.imageUnsetCommand(),
			p.imageSaveCommand(), p.imageDeleteCommand(), p.imageActivateCommand(), p.imageDeactivateCommand(),
			p.imageStageCommand(), p.imageImportCommand(),
			unbuilt("locations", "where the bytes of an image are"),
			p.traceCommand(),
		},
	}
}

// imageOrder is how fields of an image are shown; others follow by name.
func imageOrder() []string {
	return []string{"id", "name", "status", "disk_format", "container_format", "size", "virtual_size", "visibility",
		"protected", "os_hidden", "owner", "min_disk", "min_ram", "tags", "checksum", "os_hash_algo", "os_hash_value",
		"created_at", "updated_at"}
}

// showImage prints one image.
func (p *program) showImage(c *cli.Context, img client.Record) error {
	return p.show(c, upright(img, imageOrder(), "self", "file", "schema"))
}

// upright makes a sheet of one record: first the fields of order, then the
// others by name, without those that only programs want.
func upright(r client.Record, order []string, without ...string) sheet {
	s := sheet{single: true, rows: [][]any{{}}}
	add := func(key string) {
		s.columns = append(s.columns, key)
		s.rows[0] = append(s.rows[0], faces(r, key))
	}
	for _, key := range order {
		if _, ok := r[key]; ok {
			add(key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r)) {
		if !slices.Contains(order, key) && !slices.Contains(without, key) {
			add(key)
		}
	}
	return s
}

// row makes one line of a listing.
func row(r client.Record, columns []string) []any {
	out := make([]any, 0, len(columns))
	for _, key := range columns {
		out = append(out, faces(r, key))
	}
	return out
}

// faces shows a field to people in a better way than to programs, where there
// is one.
func faces(r client.Record, key string) any {
	v := r[key]
	switch key {
	case "size", "virtual_size", "used", "total", "free", "hit_bytes", "far_bytes", "evicted_bytes":
		if n := r.Int(key); n >= 0 {
			return cell{v, human(n)}
		}
	case "tags":
		return cell{v, strings.Join(r.Strings(key), ", ")}
	}
	return v
}

// visibilityFlags are the flags that say who sees an image.
func visibilityFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "visibility", Usage: "`WHO` may see it: private, shared (with members), community or public"},
		&cli.BoolFlag{Name: "public", Usage: "same as --visibility public"},
		&cli.BoolFlag{Name: "private", Usage: "same as --visibility private"},
		&cli.BoolFlag{Name: "shared", Usage: "same as --visibility shared"},
		&cli.BoolFlag{Name: "community", Usage: "same as --visibility community"},
	}
}

// visibility returns what those flags say, or "".
func visibility(c *cli.Context) (string, error) {
	said := c.String("visibility")
	for _, v := range []string{"public", "private", "shared", "community"} {
		if !c.Bool(v) {
			continue
		}
		if said != "" && said != v {
			return "", usagef("an image is either %s or %s", said, v)
		}
		said = v
	}
	return said, nil
}

// pairs reads KEY=VALUE flags.
func pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, usagef("--property takes KEY=VALUE, not %q", s)
		}
		out[key] = value
	}
	return out, nil
}
