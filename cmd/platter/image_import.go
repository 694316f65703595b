package main

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageStageHelp = `Sends the bytes of an image to be imported later. Until then the image is
uploading, and nobody can use it.

Example:
   platter image stage debian --file debian.qcow2
   platter image import debian --all-stores`

const imageImportHelp = `Makes bytes those of an image: what was staged, what a web server has, or, of an
image that is there already, a copy in more stores. Waits for the end, unless
--no-wait is given.

Examples:
   platter image import debian --uri https://images.example.org/debian.qcow2
   platter image import debian --method copy-image --store cold --store far`

func (p *program) imageStageCommand() *cli.Command {
	return &cli.Command{
		Name:        "stage",
		Usage:       "send the bytes of an image for an import",
		ArgsUsage:   "IMAGE",
		Description: imageStageHelp,
		Flags:       []cli.Flag{&cli.StringFlag{Name: "file", Usage: "send this `FILE`; - is the standard input"}},
		Action: func(c *cli.Context) error {
			what, err := one(c, "IMAGE")
			if err != nil {
				return err
			}
			if c.String("file") == "" {
				return usagef("image stage needs --file FILE")
			}
			up, err := p.openUpload(c.Context, c.String("file"))
			if err != nil {
				return err
			}
			defer up.Close()
			cl, err := p.connect(c)
			if err != nil {
				return err
			}
			img, err := cl.FindImage(c.Context, what)
			if err != nil {
				return err
			}
			return p.sendBytes(c.Context, img.ID(), up, "staging", cl.Stage)
		},
	}
}

func (p *program) imageImportCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "method", Usage: "`METHOD`: glance-direct, web-download or copy-image (default: the first, or the second with --uri)"},
		&cli.StringFlag{Name: "uri", Usage: "fetch from this `URI`"},
		&cli.StringSliceFlag{Name: "store", Usage: "into this `STORE`; may be repeated (default: the gateway's default one)"},
		&cli.BoolFlag{Name: "all-stores", Usage: "into all stores"},
		&cli.BoolFlag{Name: "some-may-fail", Usage: "keep what got into some stores if others fail"},
		&cli.BoolFlag{Name: "no-wait", Usage: "return when it has begun"},
	}
	return &cli.Command{
		Name:        "import",
		Usage:       "import the bytes of an image",
		ArgsUsage:   "IMAGE",
		Description: imageImportHelp,
		Flags:       append(flags, formatFlags()...),
		Action:      p.imageImport,
	}
}

func (p *program) imageImport(c *cli.Context) error {
	what, err := one(c, "IMAGE")
	if err != nil {
		return err
	}
	request, err := importRequest(c)
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	img, err := cl.FindImage(c.Context, what)
	if err != nil {
		return err
	}
	if err := cl.Import(c.Context, img.ID(), request); err != nil {
		return err
	}
	if !c.Bool("no-wait") {
		if err := p.waitImport(c.Context, cl, img.ID()); err != nil {
			return err
		}
	}
	if img, err = cl.Image(c.Context, img.ID()); err != nil {
		return err
	}
	return p.showImage(c, img)
}

// importRequest reads the request from the flags.
func importRequest(c *cli.Context) (map[string]any, error) {
	method := map[string]any{"name": c.String("method")}
	if method["name"] == "" {
		method["name"] = "glance-direct"
		if c.IsSet("uri") {
			method["name"] = "web-download"
		}
	}
	if uri := c.String("uri"); uri != "" {
		method["uri"] = uri
	}
	request := map[string]any{"method": method}
	stores := c.StringSlice("store")
	switch {
	case c.Bool("all-stores") && len(stores) > 0:
		return nil, usagef("--all-stores and --store exclude each other")
	case c.Bool("all-stores"):
		request["all_stores"] = true
	case len(stores) > 0:
		request["stores"] = stores
	}
	if c.Bool("some-may-fail") {
		request["all_stores_must_succeed"] = false
	}
	return request, nil
}

// lookEvery is how often an import is looked after.
const lookEvery = 500 * time.Millisecond

// waitImport waits until no import of an image is under way, and returns why
// it failed if it did.
func (p *program) waitImport(ctx context.Context, cl *client.Client, id string) error {
	g := p.track("importing", -1)
	defer g.finish()
	for pause := lookEvery / 10; ; pause = min(2*pause, lookEvery) {
		img, err := cl.Image(ctx, id)
		if err != nil {
			return err
		}
		var last client.Record // the task that was made last
		for t, err := range cl.ImageTasks(ctx, id) {
			if err != nil {
				return err
			}
			if last == nil || t.Text("created_at") > last.Text("created_at") {
				last = t
			}
		}
		if last != nil && img.Text("os_glance_import_task") == "" {
			switch last.Text("status") {
			case "failure":
				return errors.New("the import failed: " + last.Text("message"))
			case "success":
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
