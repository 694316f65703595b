package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// wholeCommands are those of whole images in the cache, as the Image API has
// them.
func (p *program) wholeCommands() []*cli.Command {
	return []*cli.Command{
		{Name: "queue", Usage: "have images fetched whole, in the background", ArgsUsage: "IMAGE...", Action: p.cacheQueue},
		{Name: "delete", Usage: "take images out of the cache and its queue", ArgsUsage: "IMAGE...", Action: p.cacheDelete},
		{Name: "clear", Usage: "take all images out of the cache and its queue", Action: p.cacheClear, Flags: []cli.Flag{
			&cli.StringFlag{Name: "target", Usage: "only `WHAT`: cache or queue"},
		}},
		{Name: "clean", Usage: "remove what is left of images that are gone; the gateway does so by itself as well", Action: p.cacheClean},
		{Name: "prune", Usage: "make the cache as small as it is to be, which it always is, and say what that took", Action: p.cachePrune, Flags: formatFlags()},
	}
}

// cacheWhole lists the images that are there whole and those that wait.
func (p *program) cacheWhole(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	cached, queued, err := cl.CachedImages(c.Context)
	if err != nil {
		return err
	}
	s := sheet{columns: []string{"image_id", "state", "size", "hits", "last_accessed", "last_modified"}}
	for _, r := range cached {
		r["state"] = "cached"
		for _, key := range []string{"last_accessed", "last_modified"} {
			r[key] = when(r[key])
		}
		s.rows = append(s.rows, row(r, s.columns))
	}
	for _, id := range queued {
		s.rows = append(s.rows, row(client.Record{"image_id": id, "state": "queued"}, s.columns))
	}
	return p.show(c, s)
}

// when writes seconds since 1970 as the rest of the API writes times.
func when(v any) any {
	var seconds float64
	if _, err := fmt.Sscan(fmt.Sprint(v), &seconds); err != nil {
		return v
	}
	return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
}

func (p *program) cacheQueue(c *cli.Context) error {
	return p.each(c, "IMAGE", func(cl *client.Client, what string) error {
		img, err := cl.FindImage(c.Context, what)
		if err != nil {
			return err
		}
		return cl.QueueCached(c.Context, img.ID())
	})
}

// cacheDelete also takes the id of an image that is gone.
func (p *program) cacheDelete(c *cli.Context) error {
	return p.each(c, "IMAGE", func(cl *client.Client, what string) error {
		if img, err := cl.FindImage(c.Context, what); err == nil {
			what = img.ID()
		}
		return cl.DeleteCached(c.Context, what)
	})
}

func (p *program) cacheClear(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	return cl.ClearCache(c.Context, c.String("target"))
}

func (p *program) cacheClean(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	return cl.CleanCache(c.Context)
}

func (p *program) cachePrune(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	r, err := cl.PruneCache(c.Context)
	if err != nil {
		return err
	}
	return p.show(c, upright(r, []string{"total_files_pruned", "total_bytes_pruned"}))
}
