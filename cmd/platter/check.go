package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format"
)

const checkHelp = `Says what an upload of this file would say: that it is accepted, or the reason
why it is refused. The exit code is 0 or 1, and more if it could not be read.

Examples:
   platter check --format qcow2 debian.qcow2
   platter check --format raw --strict disk.img`

func (p *program) checkCommand() *cli.Command {
	return &cli.Command{
		Name:        "check",
		Usage:       "say what an upload would say",
		Category:    "Image files",
		ArgsUsage:   "FILE",
		Description: checkHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Usage: "the `FORMAT` that the upload would declare"},
			&cli.StringFlag{Name: "container-format", Value: "bare", Usage: "the `FORMAT` around it"},
			&cli.BoolFlag{Name: "strict", Usage: "refuse, declared as raw, what looks like any image format"},
		},
		Action: p.check,
	}
}

func (p *program) check(c *cli.Context) error {
	name, err := one(c, "FILE")
	if err != nil {
		return err
	}
	declared := c.String("format")
	if declared == "" {
		return usagef("check takes --format FORMAT: what the upload would declare")
	}
	if all := declarable(); !slices.Contains(all, declared) {
		return usagef("--format %q: an upload declares one of %s", declared, strings.Join(all, ", "))
	}
	r, err := openFile(name)
	if err != nil {
		return unsure(fileError(err))
	}
	defer r.Close()
	verdict, err := p.inspect(c.Context, r, format.InspectorConfig{
		Declared: declared, Container: c.String("container-format"), RequireMatch: true, Strict: c.Bool("strict"),
	})
	var refused *format.Refusal
	switch {
	case errors.As(err, &refused):
		fmt.Fprintf(p.out, "%s: refused: %s\n", printable(name), printable(refused.Reason))
		if refused.Found != "" && refused.Found != declared {
			fmt.Fprintf(p.out, "it looks like %s\n", refused.Found)
		}
		return errNo
	case err != nil:
		return unsure(fileError(fmt.Errorf("%s: %w", name, err)))
	}
	text := fmt.Sprintf("%s: accepted as %s", printable(name), verdict.Format)
	if verdict.VirtualSize >= 0 {
		text += fmt.Sprintf(", a disk of %s", human(verdict.VirtualSize))
	}
	if len(verdict.Matches) > 1 {
		text += ", also looks like " + strings.Join(verdict.Matches, ", ")
	}
	_, err = fmt.Fprintln(p.out, text)
	return err
}

// declarable are the formats that a gateway takes on its defaults.
func declarable() []string {
	return []string{"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ploop", "ami", "ari", "aki"}
}

// inspect does what an upload does: the stream first, then the whole.
func (p *program) inspect(ctx context.Context, r block.Reader, cfg format.InspectorConfig) (format.Verdict, error) {
	in := format.NewInspector(cfg)
	g := p.track("checking", r.Size())
	defer g.finish()
	if err := writeStream(ctx, in, r, g.set); err != nil {
		return format.Verdict{}, err
	}
	verdict, err := in.Finish()
	if err != nil {
		return verdict, err
	}
	return verdict, format.Verify(ctx, verdict.Format, r)
}
