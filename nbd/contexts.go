package nbd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A contextKind is what a metadata context tells of bytes.
type contextKind uint8

const (
	kindAllocation contextKind = iota
	kindDepth
	kindBitmap
)

// A metaContext is one thing that block status can tell.
type metaContext struct {
	name    string
	kind    contextKind
	id      uint32       // how replies name it
	changed block.Mapper // of a bitmap; nil if it is there no more, then all has changed
}

// contexts returns what block status can tell of e. Ids are unique.
func (e *Export) contexts() []metaContext {
	all := make([]metaContext, 0, 2+len(e.Bitmaps))
	all = append(all, metaContext{name: contextAllocation, kind: kindAllocation}, metaContext{name: contextDepth, kind: kindDepth})
	for _, m := range e.Bitmaps {
		if name := contextBitmap + m.Name; m.Name != "" && checkName(name) == nil {
			all = append(all, metaContext{name: name, kind: kindBitmap, changed: m.Changed})
		}
	}
	for i := range all {
		all[i].id = uint32(i + 1)
	}
	return all
}

// everyContext returns the places of all contexts that were chosen.
func (c *conn) everyContext() uint64 { return 1<<len(c.contexts) - 1 }

// contextOf returns the place of the context with an id, or -1.
func (c *conn) contextOf(id uint32) int {
	return slices.IndexFunc(c.contexts, func(m metaContext) bool { return m.id == id })
}

// renew looks the chosen contexts up in the export that is open now, which may
// have been opened anew since. A bitmap that is gone is told as all changed,
// which is never wrong.
func (c *conn) renew() {
	now := c.export.contexts()
	for i := range c.contexts {
		m := &c.contexts[i]
		m.changed = nil
		if k := slices.IndexFunc(now, func(n metaContext) bool { return n.name == m.name }); k >= 0 {
			m.changed = now[k].changed
		}
	}
}

// metaContext answers NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
func (c *conn) metaContext(opt uint32, data []byte) error {
	set := opt == optSetMetaContext
	if set {
		c.contexts = nil // also when it fails
	}
	if c.headers == headersSimple {
		return c.deny(opt, repErrInvalid, "ask for structured replies or extended headers first: block status needs them")
	}
	name, queries, err := parseQueries(data)
	if err != nil {
		return c.deny(opt, repErrInvalid, "%v", err)
	}
	if len(queries) > maxQueries {
		return c.deny(opt, repErrTooBig, "%d queries; the limit is %d: use several requests", len(queries), maxQueries)
	}
	if err := c.open(name); err != nil {
		return c.deny(opt, c.repErrno(opt, err), "%v", err)
	}
	found := c.export.contexts()
	if set || len(queries) > 0 {
		found = slices.DeleteFunc(found, func(m metaContext) bool {
			return !slices.ContainsFunc(queries, func(q string) bool { return m.matches(q, set) })
		})
	}
	if set && len(found) > maxContexts {
		return c.deny(opt, repErrTooBig, "%d contexts; the limit is %d", len(found), maxContexts)
	}
	for _, m := range found {
		p := make([]byte, 4, 4+len(m.name))
		if set {
			be.PutUint32(p, m.id)
		}
		c.answer(opt, repMetaContext, append(p, m.name...))
	}
	if set {
		c.contexts, c.metaExport = found, name
	}
	c.answer(opt, repAck, nil)
	return nil
}

// matches reports whether a query finds the context. What ends with a colon
// is a wildcard that lists all behind it, and selects nothing.
func (m *metaContext) matches(query string, set bool) bool {
	if query == m.name {
		return true
	}
	return !set && (query == "base:" || query == "qemu:" || query == contextBitmap) && strings.HasPrefix(m.name, query)
}

// parseQueries takes a meta context option apart.
func parseQueries(data []byte) (name string, queries []string, err error) {
	f := fields{rest: data}
	name = f.text()
	for n := f.uint32(); n > 0 && !f.bad; n-- {
		queries = append(queries, f.text())
	}
	if f.bad || len(f.rest) > 0 {
		return "", nil, fmt.Errorf("the lengths in the request do not add up to its %d bytes", len(data))
	}
	return name, queries, checkName(name)
}
