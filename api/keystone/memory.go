package keystone

import (
	"container/list"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A memory keeps identities until they are stale. Of more than max, those go
// that nobody asked for longest. Its owner holds a lock.
type memory struct {
	max     int
	entries map[key]*list.Element
	order   *list.List // of *entry, the one used last in front
}

type entry struct {
	id    key
	who   wire.Identity
	until time.Time
}

func newMemory(max int) *memory {
	return &memory{max: max, entries: map[key]*list.Element{}, order: list.New()}
}

// get returns what is known at now.
func (m *memory) get(id key, now time.Time) (wire.Identity, bool) {
	at, ok := m.entries[id]
	if !ok {
		return wire.Identity{}, false
	}
	e := at.Value.(*entry)
	if !now.Before(e.until) {
		m.drop(at)
		return wire.Identity{}, false
	}
	m.order.MoveToFront(at)
	return e.who, true
}

// put keeps who under id until a time.
func (m *memory) put(id key, who wire.Identity, until time.Time) {
	if at, ok := m.entries[id]; ok {
		m.drop(at)
	}
	m.entries[id] = m.order.PushFront(&entry{id, who, until})
	for m.order.Len() > m.max {
		m.drop(m.order.Back())
	}
}

func (m *memory) drop(at *list.Element) {
	delete(m.entries, at.Value.(*entry).id)
	m.order.Remove(at)
}

// tidy drops what is stale at now.
func (m *memory) tidy(now time.Time) {
	for at := m.order.Back(); at != nil; {
		before := at.Prev()
		if !now.Before(at.Value.(*entry).until) {
			m.drop(at)
		}
		at = before
	}
}
