package cache

import (
	"context"
	"time"
)

// Fill fetches what the cache lacks of the whole object, behind what anybody
// waits for, and gives all of it the standing of what is used often: it does
// not push itself out, and what is read once by others does not push it out
// soon. That what came is kept is certain when the Reader was closed; whether
// all of it found room, [Cache.Whole] tells.
func (r *Reader) Fill(ctx context.Context) error {
	if r.closed.Load() {
		return r.gone("fill")
	}
	r.s.obj.value()
	return r.s.bring(ctx, 0, r.s.obj.size, purpose{behind: true, exact: true})
}

// value gives the units of o the standing of those that were used again and
// again, which others of it will have at once.
func (o *object) value() {
	c := o.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	o.valued = true
	for _, u := range o.units {
		u.uses.Store(maxUses)
		if u.queue == &c.space.small {
			c.space.move(u)
		}
	}
}

// Whole reports whether the cache has every byte of the object id. Of an
// object without bytes it has none.
func (c *Cache) Whole(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[id]
	return o != nil && o.whole()
}

// whole is Whole for who holds Cache.mu.
func (o *object) whole() bool { return o.size > 0 && o.kept == o.grains() }

// keeps notes that n grains more, or fewer, are kept. The caller holds
// Cache.mu.
func (o *object) keeps(n int64) {
	o.kept += n
	if n > 0 {
		o.grown = time.Now()
	}
}
