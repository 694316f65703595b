package main

import (
	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const memberHelp = `A shared image is offered to projects, its members; a member accepts or rejects
the offer.

Examples:
   platter member create debian PROJECT
   platter member set debian PROJECT --accept
   platter member list debian`

func (p *program) memberCommand() *cli.Command {
	return &cli.Command{
		Name:        "member",
		Usage:       "share images with projects",
		Category:    "Images",
		Description: memberHelp,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list the members of an image", ArgsUsage: "IMAGE", Flags: formatFlags(), Action: p.memberList},
			{Name: "show", Usage: "show one member of an image", ArgsUsage: "IMAGE PROJECT", Flags: formatFlags(), Action: p.memberShow},
			{Name: "create", Usage: "offer an image to a project", ArgsUsage: "IMAGE PROJECT", Flags: formatFlags(), Action: p.memberCreate},
			{Name: "delete", Usage: "end the sharing with a project", ArgsUsage: "IMAGE PROJECT", Action: p.memberDelete},
			{Name: "set", Usage: "accept or reject an offer", ArgsUsage: "IMAGE PROJECT", Action: p.memberSet,
				Flags: append([]cli.Flag{
					&cli.BoolFlag{Name: "accept", Usage: "accept it: the image shows in listings"},
					&cli.BoolFlag{Name: "reject", Usage: "reject it"},
					&cli.BoolFlag{Name: "pending", Usage: "leave it open"},
				}, formatFlags()...)},
		},
	}
}

func memberColumns() []string {
	return []string{"image_id", "member_id", "status", "created_at", "updated_at"}
}

func (p *program) memberList(c *cli.Context) error {
	cl, img, err := p.image(c)
	if err != nil {
		return err
	}
	members, err := cl.Members(c.Context, img.ID())
	if err != nil {
		return err
	}
	s := sheet{columns: memberColumns()}
	for _, m := range members {
		s.rows = append(s.rows, row(m, s.columns))
	}
	return p.show(c, s)
}

// membership finds the image and the project of the two arguments.
func (p *program) membership(c *cli.Context) (cl *client.Client, id, project string, err error) {
	what, project, err := two(c, "IMAGE", "PROJECT")
	if err != nil {
		return nil, "", "", err
	}
	if cl, err = p.connect(c); err != nil {
		return nil, "", "", err
	}
	img, err := cl.FindImage(c.Context, what)
	return cl, img.ID(), project, err
}

func (p *program) showMember(c *cli.Context, m client.Record) error {
	return p.show(c, upright(m, memberColumns(), "schema"))
}

func (p *program) memberShow(c *cli.Context) error {
	cl, id, project, err := p.membership(c)
	if err != nil {
		return err
	}
	m, err := cl.Member(c.Context, id, project)
	if err != nil {
		return err
	}
	return p.showMember(c, m)
}

func (p *program) memberCreate(c *cli.Context) error {
	cl, id, project, err := p.membership(c)
	if err != nil {
		return err
	}
	m, err := cl.AddMember(c.Context, id, project)
	if err != nil {
		return err
	}
	return p.showMember(c, m)
}

func (p *program) memberDelete(c *cli.Context) error {
	cl, id, project, err := p.membership(c)
	if err != nil {
		return err
	}
	return cl.DeleteMember(c.Context, id, project)
}

func (p *program) memberSet(c *cli.Context) error {
	status, count := "", 0
	for flag, s := range map[string]string{"accept": "accepted", "reject": "rejected", "pending": "pending"} {
		if c.Bool(flag) {
			status, count = s, count+1
		}
	}
	if count != 1 {
		return usagef("member set takes one of --accept, --reject and --pending")
	}
	cl, id, project, err := p.membership(c)
	if err != nil {
		return err
	}
	m, err := cl.SetMember(c.Context, id, project, status)
	if err != nil {
		return err
	}
	return p.showMember(c, m)
}
