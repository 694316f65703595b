package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const captureHelp = `Makes a new image of what a disk holds at this moment, while its guest goes on
writing. The gateway does the work; this command waits for it, and stopping to
wait does not stop the capture.

Example:
   platter capture --overlay web1 --name debian-with-web`

func (p *program) captureCommand() *cli.Command {
	return &cli.Command{
		Name:        "capture",
		Usage:       "make an image of a disk in use",
		Category:    "Disks",
		Description: captureHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "overlay", Usage: "capture this `OVERLAY`"},
			&cli.StringFlag{Name: "name", Usage: "the new image's `NAME`"},
			&cli.StringFlag{Name: "disk-format", Usage: "the new image's `FORMAT`: qcow2 or raw (default: qcow2)"},
			&cli.StringSliceFlag{Name: "property", Usage: "a property of the new image, `KEY=VALUE`; may be repeated"},
			&cli.StringSliceFlag{Name: "tag", Usage: "a `TAG` of the new image; may be repeated"},
			&cli.StringFlag{Name: "visibility", Usage: "`WHO` may see it: private, shared, community or public"},
			&cli.StringFlag{Name: "store", Usage: "the `STORE` for its bytes (default: the gateway's)"},
			&cli.BoolFlag{Name: "no-wait", Usage: "print the task and leave"},
			&cli.StringFlag{Name: "qmp", Usage: "capture from a hypervisor's `SOCKET` (not built yet)"},
			&cli.StringFlag{Name: "device", Usage: "the `NODE` in that hypervisor (not built yet)"},
			&cli.StringFlag{Name: "nbd", Usage: "capture from an NBD `URI` (not built yet)"},
			&cli.BoolFlag{Name: "incremental", Usage: "only what changed since the last capture (not built yet)"},
			&cli.StringFlag{Name: "quiesce", Usage: "freeze the guest through its agent's `SOCKET` (not built yet)"},
		}, formatFlags()...),
		Action:      p.capture,
		Subcommands: []*cli.Command{unbuilt("cleanup", "remove what a broken capture left in a hypervisor")},
	}
}

func (p *program) capture(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("capture takes no argument; name the overlay with --overlay %s", c.Args().First())
	}
	for _, flag := range []string{"qmp", "device", "nbd", "incremental", "quiesce"} {
		if c.IsSet(flag) {
			return errNotBuilt("capture --" + flag)
		}
	}
	if c.String("overlay") == "" || c.String("name") == "" {
		return usagef("capture takes --overlay OVERLAY and --name NAME")
	}
	fields, err := captureFields(c)
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	o, err := cl.FindOverlay(c.Context, c.String("overlay"))
	if err != nil {
		return err
	}
	task, err := cl.Capture(c.Context, o.ID(), fields)
	if err != nil {
		return err
	}
	if c.Bool("no-wait") {
		return p.show(c, upright(task, []string{"id", "type", "status", "image_id"}, "self", "schema", "input", "result"))
	}
	if task, err = p.wait(c.Context, cl, task); err != nil {
		return err
	}
	img, err := cl.Image(c.Context, capturedImage(task))
	if err != nil {
		return err
	}
	return p.showImage(c, img)
}

func captureFields(c *cli.Context) (map[string]any, error) {
	properties, err := pairs(c.StringSlice("property"))
	if err != nil {
		return nil, err
	}
	image := map[string]any{"name": c.String("name")}
	for key, value := range properties {
		image[key] = value
	}
	for flag, key := range map[string]string{"disk-format": "disk_format", "visibility": "visibility"} {
		if v := c.String(flag); v != "" {
			image[key] = v
		}
	}
	if tags := c.StringSlice("tag"); len(tags) > 0 {
		image["tags"] = tags
	}
	fields := map[string]any{"image": image}
	if store := c.String("store"); store != "" {
		fields["store"] = store
	}
	return fields, nil
}

func capturedImage(task client.Record) string {
	if id := task.Text("image_id"); id != "" {
		return id
	}
	result, _ := task["result"].(map[string]any)
	return client.Record(result).Text("image_id")
}

// wait shows the progress of a task until it ends. A gateway that is away for
// a moment, being replaced, does not end it.
func (p *program) wait(ctx context.Context, cl *client.Client, task client.Record) (client.Record, error) {
	id := task.ID()
	g := p.track("capturing", -1)
	defer g.finish()
	for away := 0; ; {
		switch task.Text("status") {
		case "success":
			return task, nil
		case "failure":
			return nil, fmt.Errorf("the capture failed: %s (task %s)", task.Text("message"), id)
		}
		if done, ok := task["progress"].(map[string]any); ok {
			g.set(max(client.Record(done).Int("done"), 0), client.Record(done).Int("total"))
		}
		select {
		case <-ctx.Done():
			return nil, hint(errors.New("no longer waiting"), "the capture goes on; platter task show %s tells how far it is", id)
		case <-time.After(300 * time.Millisecond):
		}
		now, err := cl.Task(ctx, id)
		var unreached *client.UnreachedError
		switch {
		case err == nil:
			task, away = now, 0
		case errors.As(err, &unreached) && away < 100:
			away++
		case ctx.Err() == nil:
			return nil, err
		}
	}
}
