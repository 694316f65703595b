package main

import (
	"net/url"

	"github.com/urfave/cli/v2"
)

const taskHelp = `Long work that the gateway does by itself, such as captures, is a task.

Examples:
   platter task list --status processing
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
	query := url.Values{}
	for _, key := range []string{"status", "type"} {
		if v := c.String(key); v != "" {
			query.Set(key, v)
		}
	}
	s := sheet{columns: []string{"id", "type", "status", "owner", "created_at", "updated_at"}}
	for t, err := range cl.Tasks(c.Context, query) {
		if err != nil {
			return err
		}
		s.rows = append(s.rows, row(t, s.columns))
	}
	return p.show(c, s)
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
