package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
	"github.com/seed-478a8fee/platter/cmd/platter/cloud"
)

const migrateHelp = `Takes the images of a running Glance into the gateway: records with their ids,
times, owners, members, properties and tags, and the bytes, which are compared
with their checksums on the way. Both sides need an administrator. Images that
are here already are compared and left as they are, so it can be interrupted and
run again, also to fetch what was new meanwhile. One that is half here begins
its bytes anew. Metadata definitions come, too, with the owners they had. Images whose data is on its way
or gone are skipped.

With --adopt no byte is copied. The gateway needs the Glance's own place as a
store: a folder of its file store (with shared = true), or its pool, bucket or
container. Each object is read once and compared. From then on it belongs to the
image here: stop the Glance before anything is deleted on either side.

The Glance is --from, with --from-token or $PLATTER_FROM_TOKEN; without either,
the same login as for the gateway is used. At the end each image is compared
once more; what differs is listed, and the exit code is 1.

Examples:
   platter migrate --from https://glance.example.org:9292 --dry-run
   platter migrate --from https://glance.example.org:9292 --parallel 8
   platter migrate --from https://glance.example.org:9292 --adopt old`

func (p *program) migrateCommand() *cli.Command {
	return &cli.Command{
		Name:        "migrate",
		Usage:       "take over the images of a running Glance",
		ArgsUsage:   "[IMAGE_ID...]",
		Description: migrateHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "the Glance's `URL`"},
			&cli.StringFlag{Name: "from-token", Usage: "a `TOKEN` for it (default: $PLATTER_FROM_TOKEN, or from Keystone)"},
			&cli.IntFlag{Name: "parallel", Value: 4, Usage: "`NUMBER` of images that are copied at once"},
			&cli.StringFlag{Name: "adopt", Usage: "copy nothing: this `STORE` of the gateway has the bytes, where the Glance put them"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"},
		}, formatFlags()...),
		Action: p.migrate,
	}
}

func (p *program) migrate(c *cli.Context) error {
	switch n := c.Int("parallel"); {
	case c.String("from") == "":
		return usagef("migrate needs --from URL, the address of the Glance")
	case n < 1 || n > 64:
		return usagef("--parallel %d is not between 1 and 64", n)
	}
	from, err := p.glance(c)
	if err != nil {
		return err
	}
	to, err := p.connect(c)
	if err != nil {
		return err
	}
	if from.URL() == to.URL() {
		return usagef("--from and the gateway are the same, %s", to.URL())
	}
	list, err := everyImage(c.Context, from, c.Args().Slice())
	if err != nil {
		return err
	}
	m := &mover{from: from, to: to, dry: c.Bool("dry-run"), store: c.String("adopt")}
	var total int64
	for _, img := range list {
		total += img.Int("size")
	}
	m.progress = p.track("copying", total)
	results := m.all(c.Context, list, c.Int("parallel"))
	m.progress.finish()
	if c.NArg() == 0 && c.Context.Err() == nil {
		names, more, err := m.definitions(c.Context)
		if err != nil {
			names, more = append(names, client.Record{"id": "definitions"}), append(more, moved{result: movedFailed, err: err})
		}
		list, results = append(list, names...), append(results, more...)
	}
	if err := p.show(c, migrateSheet(list, results)); err != nil {
		return err
	}
	if err := c.Context.Err(); err != nil {
		return hint(err, "run it again; what is here already stays")
	}
	return verdictOf(results)
}

// glance returns a client of the Glance.
func (p *program) glance(c *cli.Context) (*client.Client, error) {
	cfg := client.Config{URL: c.String("from"), Token: cmp.Or(c.String("from-token"), p.env("PLATTER_FROM_TOKEN"))}
	if cfg.Token == "" {
		home, err := cloud.Find(p.env)
		if err != nil {
			return nil, hint(err, "give a token with --from-token, or set OS_AUTH_TYPE=none")
		}
		if home != nil {
			cfg.HTTP, cfg.Login = home.HTTP(), home.Token
		}
	}
	return p.client(cfg)
}

// everyImage lists the images of a service, hidden ones too, or those of the
// ids.
func everyImage(ctx context.Context, from *client.Client, ids []string) ([]client.Record, error) {
	var list []client.Record
	for _, id := range ids {
		img, err := from.Image(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	if len(ids) > 0 {
		return list, nil
	}
	for _, hidden := range []string{"false", "true"} {
		// From the oldest: what is made meanwhile comes at the end.
		query := url.Values{"limit": {"500"}, "visibility": {"all"}, "os_hidden": {hidden}, "sort_key": {"created_at"}, "sort_dir": {"asc"}}
		for img, err := range from.Images(ctx, query) {
			if err != nil {
				return nil, err
			}
			list = append(list, img)
		}
	}
	return list, nil
}

// A moved is what became of one image.
type moved struct {
	result string
	differ []string
	err    error
}

// The results of a move.
const (
	movedCopied  = "copied"
	movedAdopted = "adopted"
	movedHere    = "already here"
	movedRecord  = "record only"
	movedWould   = "would be copied"
	movedSkipped = "skipped"
	movedFailed  = "failed"
)

// A mover moves images.
type mover struct {
	from, to *client.Client
	dry      bool
	store    string // that has the bytes; "": they are copied
	progress *progress
}

// all moves images, several at once, and goes on after failures.
func (m *mover) all(ctx context.Context, list []client.Record, parallel int) []moved {
	results := make([]moved, len(list))
	var work errgroup.Group
	work.SetLimit(parallel)
	var mu sync.Mutex
	for i, img := range list {
		if ctx.Err() != nil {
			results[i] = moved{result: movedSkipped, err: ctx.Err()}
			continue
		}
		work.Go(func() error {
			r := m.one(ctx, img)
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			return nil
		})
	}
	work.Wait() // nobody fails here
	return results
}

// one moves one image, in as many steps as are missing.
func (m *mover) one(ctx context.Context, img client.Record) moved {
	id, status := img.ID(), img.Text("status")
	if status != "active" && status != "deactivated" && status != "queued" {
		return moved{result: movedSkipped, err: errors.New("it is " + status)}
	}
	here, err := m.to.Image(ctx, id)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return moved{result: movedFailed, err: err}
	}
	if !missing && here.Text("os_glance_migrating") == "" {
		m.progress.add(img.Int("size"))
		differ, err := m.compare(ctx, img)
		return moved{result: movedHere, differ: differ, err: err}
	}
	if m.dry {
		return moved{result: movedWould}
	}
	return m.move(ctx, img, here, missing)
}

// migrateSheet is the report.
func migrateSheet(list []client.Record, results []moved) sheet {
	s := sheet{columns: []string{"id", "name", "status", "size", "result", "detail"}}
	for i, img := range list {
		r := results[i]
		detail := strings.Join(r.differ, "; ")
		if r.err != nil {
			detail = r.err.Error()
		}
		s.rows = append(s.rows, []any{img.ID(), img.Text("name"), img.Text("status"), size(img.Int("size")), r.result, detail})
	}
	return s
}

// verdictOf is an error if something is not as it was.
func verdictOf(results []moved) error {
	failed := slices.ContainsFunc(results, func(r moved) bool { return r.result == movedFailed })
	differ := slices.ContainsFunc(results, func(r moved) bool { return len(r.differ) > 0 })
	switch {
	case failed:
		return hint(errors.New("some images were not taken over"), "the list above says why; run it again, and what is here already stays")
	case differ:
		return hint(errors.New("some images differ from what they were"), "the list above says in what")
	}
	return nil
}
