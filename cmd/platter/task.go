package main

import (
	"iter"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const taskHelp = `Long work that the gateway does by itself, such as captures, is a task.

Examples:
   platter task list --status processing
   platter task list --image debian
   platter task show TASK`

func (p *program) taskCommand() *cli.Command {
	return &cli.Command{
		Name:        "task",
		Usage:       "look at the gateway's long work",
		Category:    "Images",
		Description: taskHelp,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list tasks, newest first", Action: p.taskList, Flags: append([]cli.Flag{
				&cli.StringFlag{Name: "status", Usage: "only in this `STATUS`: pending, processing, success or failure"},
				&cli.StringFlag{Name: "type", Usage: "only of this `TYPE`"},
				&cli.StringFlag{Name: "image", Usage: "only those of this `IMAGE`"},
				&cli.IntFlag{Name: "limit", Usage: "at most `N` tasks (default: all)"},
			}, formatFlags()...)},
			{Name: "show", Usage: "show one task", ArgsUsage: "TASK", Action: p.taskShow, Flags: formatFlags()},
		},
	}
}

func (p *program) taskList(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	if c.Int("limit") < 0 {
		return usagef("--limit %d: a number of tasks is not negative", c.Int("limit"))
	}
	list, err := p.tasks(c, cl)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"id", "type", "status", "owner", "created_at", "updated_at"}}
	for t, err := range list {
		if err != nil {
			return err
		}
		if len(s.rows) == c.Int("limit") && c.IsSet("limit") {
			break
		}
		s.rows = append(s.rows, row(t, s.columns))
	}
	return p.show(c, s)
}

// tasks yields the tasks that the flags name. Those of an image anybody may
// ask for who sees it, and the gateway gives all of them.
func (p *program) tasks(c *cli.Context, cl *client.Client) (iter.Seq2[client.Record, error], error) {
	query := url.Values{}
	for _, key := range []string{"status", "type"} {
		if v := c.String(key); v != "" {
			query.Set(key, v)
		}
	}
	if c.String("image") == "" {
		return cl.Tasks(c.Context, query), nil
	}
	img, err := cl.FindImage(c.Context, c.String("image"))
	if err != nil {
		return nil, err
	}
	return func(yield func(client.Record, error) bool) {
		for t, err := range cl.ImageTasks(c.Context, img.ID()) {
			if err == nil && (query.Has("status") && query.Get("status") != t.Text("status") || query.Has("type") && query.Get("type") != t.Text("type")) {
				continue
			}
			if !yield(t, err) {
				return
			}
		}
	}, nil
}

func (p *program) taskShow(c *cli.Context) error {
	id, err := one(c, "TASK")
	if err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	t, err := cl.Task(c.Context, id)
	if err != nil {
		return err
	}
	return p.show(c, upright(t, []string{"id", "type", "status", "message", "progress", "image_id", "owner",
		"created_at", "updated_at", "expires_at"}, "self", "schema"))
}
