package crashfs

import (
	"maps"
	"math/rand/v2"
)

// gone is the node of a name that is removed.
const gone = -1

// A put gives a name to a node.
type put struct {
	name string
	node int
}

// A place is a name in a folder.
type place struct {
	dir  int
	name string
}

// A change is what a folder holds for some of its names, all or nothing. It
// can be durable only after what it needs: the change of the same name before
// it, so that names change in order, and for the removal half of a rename to
// another folder the half that gives the new name.
type change struct {
	dir   int
	puts  []put
	needs []*change
	done  bool
}

// change adds a pending change.
func (h *history) change(dir int, needs []*change, puts ...put) *change {
	c := &change{dir: dir, puts: puts, needs: needs}
	for _, p := range puts {
		at := place{dir, p.name}
		if before := h.last[at]; before != nil {
			c.needs = append(c.needs, before)
		}
		h.last[at] = c
	}
	h.pending = append(h.pending, c)
	return c
}

func (h *history) rename(o op) {
	if o.dir == o.dir2 {
		h.change(o.dir, nil, put{o.name2, o.node}, put{o.name, gone})
		return
	}
	var needs []*change
	if before := h.last[place{o.dir, o.name}]; before != nil {
		needs = append(needs, before)
	}
	added := h.change(o.dir2, needs, put{o.name2, o.node})
	h.change(o.dir, []*change{added}, put{o.name, gone})
}

// syncDir makes every change of dir durable, and what they need.
func (h *history) syncDir(dir int) {
	for _, c := range h.pending {
		if c.dir == dir {
			h.settle(c)
		}
	}
	kept := h.pending[:0]
	for _, c := range h.pending {
		if !c.done {
			kept = append(kept, c)
		}
	}
	clear(h.pending[len(kept):])
	h.pending = kept
}

func (h *history) settle(c *change) {
	if c.done {
		return
	}
	for _, before := range c.needs {
		h.settle(before)
	}
	c.apply(h.names)
	c.done, c.needs = true, nil
	for _, p := range c.puts {
		if at := (place{c.dir, p.name}); h.last[at] == c {
			delete(h.last, at)
		}
	}
}

func (c *change) apply(names map[int]map[string]int) {
	for _, p := range c.puts {
		if p.node == gone {
			delete(names[c.dir], p.name)
		} else {
			names[c.dir][p.name] = p.node
		}
	}
}

// crashNames chooses which pending changes happened.
func (h *history) crashNames(rng *rand.Rand) map[int]map[string]int {
	names := make(map[int]map[string]int, len(h.names))
	for dir, entries := range h.names {
		names[dir] = maps.Clone(entries)
	}
	happened := make(map[*change]bool)
	chance := rng.IntN(5) // of 4: none, some, all
	for _, c := range h.pending {
		if rng.IntN(4) >= chance || !all(c.needs, happened) {
			continue
		}
		happened[c] = true
		c.apply(names)
	}
	return names
}

func all(needs []*change, happened map[*change]bool) bool {
	for _, c := range needs {
		if !c.done && !happened[c] {
			return false
		}
	}
	return true
}
