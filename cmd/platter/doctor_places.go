package main

import (
	"context"
	"errors"
	"io/fs"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// lowSpace is the share of a store, in percent, below which it is said that it
// fills up.
const lowSpace = 5

// places looks at the stores and the cache of a gateway.
func (d *diagnosis) places(ctx context.Context, cl *client.Client) {
	stores, err := cl.Stores(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		d.warn("stores", "the gateway does not tell of its stores: it is older than this program, so upgrade it")
		return
	}
	if err != nil {
		d.trouble("stores", "cannot list the stores", err)
		return
	}
	for _, s := range stores {
		d.storeState(s)
	}
	c, err := cl.Cache(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist): // all stores are local
	case err != nil:
		d.trouble("cache", "cannot look at the cache", err)
	case c.Text("state") != "ok":
		d.warn("cache", "reads go to the stores each time: %s; make room in %s or mend its disk, the gateway goes on by itself then", c.Text("message"), c.Text("dir"))
	case c.Int("corrupt") > 0:
		d.warn("cache", "%d damaged pieces were found in %s and fetched again: its disk may be failing", c.Int("corrupt"), c.Text("dir"))
	default:
		d.ok("cache", "%s of %s in %s", human(c.Int("used")), human(c.Int("size")), c.Text("dir"))
	}
}

// storeState says how one store is.
func (d *diagnosis) storeState(s client.Record) {
	what := "store " + s.Text("name")
	total, free := s.Int("total"), s.Int("free")
	lacking := lacks(s)
	switch {
	case s.Text("state") != "ok":
		d.fail(what, "%s; what is in the cache is served, the rest waits and then fails", s.Text("message"))
	case total > 0 && free*100 < total*lowSpace:
		d.warn(what, "only %s of %s are free: add space, or delete images", human(free), human(total))
	case lacking != "":
		d.ok(what, "answers; its server lacks, and nothing here relies on: %s", lacking)
	default:
		d.ok(what, "answers")
	}
}
