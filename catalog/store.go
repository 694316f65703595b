package catalog

import (
	"context"
	"strings"
	"sync"
)

// A store is the state and what guards it.
//
// The watch brings the changes in order. A change that this process made is
// brought in as soon as its transaction has returned, which may be before the
// watch has delivered it, or even changes before it. Such a key is noted in
// ahead, so that the watch, when it catches up, does not put older records
// over it.
type store struct {
	mu      sync.RWMutex
	s       *state
	ahead   map[string]decoded // changes applied before the watch brought them
	arrived chan struct{}      // closed, and replaced, whenever s.rev grows
}

func newStore(s *state) *store {
	return &store{s: s, ahead: map[string]decoded{}, arrived: make(chan struct{})}
}

// read calls f with the state, which must not leave f.
func (st *store) read(f func(*state)) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	f(st.s)
}

// revision returns up to where every change is in.
func (st *store) revision() int64 {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.s.rev
}

// follow brings in what the watch delivered: all changes of some revisions,
// the last of which is rev.
func (st *store) follow(changes []decoded, rev int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, d := range changes {
		if a, ok := st.ahead[d.key]; ok {
			if a.rev >= d.rev {
				continue
			}
			delete(st.ahead, d.key)
		}
		st.s.apply(d)
	}
	st.arrive(rev)
}

// committed brings in what a transaction of this process changed, at rev.
func (st *store) committed(ops []Op, rev int64) {
	changes := make([]decoded, len(ops))
	for i, op := range ops {
		changes[i] = decodeEvent(Event{Key: op.Key, Value: op.Value, Revision: rev, Deleted: op.Delete})
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if rev <= st.s.rev {
		return // the watch was faster
	}
	for i, op := range ops {
		if !op.Prefix {
			st.hurry(changes[i])
			continue
		}
		for _, key := range st.s.keysUnder(op.Key) {
			st.hurry(decoded{key: key, rev: rev, deleted: true})
		}
	}
}

// hurry applies a change that the watch has not brought yet.
func (st *store) hurry(d decoded) {
	if a, ok := st.ahead[d.key]; ok && a.rev >= d.rev {
		return
	}
	st.ahead[d.key] = d
	st.s.apply(d)
}

// newest returns the highest revision of any change that is in.
func (st *store) newest() int64 {
	st.mu.RLock()
	defer st.mu.RUnlock()
	rev := st.s.rev
	for _, d := range st.ahead {
		rev = max(rev, d.rev)
	}
	return rev
}

// swap replaces the whole state by one that was read anew, after newest
// returned before. What was applied ahead of the watch stays applied, unless
// the KV has gone back to a past without it: then it is at a revision before
// that.
func (st *store) swap(s *state, before int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.schema != st.s.schema || s.rev < before {
		clear(st.ahead)
	}
	st.s = s
	for key, d := range st.ahead {
		if d.rev > s.rev {
			s.apply(d)
		} else {
			delete(st.ahead, key)
		}
	}
	st.arrive(s.rev)
}

// arrive notes that every change up to rev is in.
func (st *store) arrive(rev int64) {
	st.s.rev = rev
	for key, d := range st.ahead {
		if d.rev <= rev {
			delete(st.ahead, key)
		}
	}
	close(st.arrived)
	st.arrived = make(chan struct{})
}

// wait returns when every change up to rev is in.
func (st *store) wait(ctx context.Context, rev int64) error {
	for {
		st.mu.RLock()
		have, arrived := st.s.rev, st.arrived
		st.mu.RUnlock()
		if have >= rev {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-arrived:
		}
	}
}

// keysUnder returns the keys of the members of an image: no other records are
// ever deleted by prefix.
func (s *state) keysUnder(prefix string) []string {
	var keys []string
	image, _ := cutMember(prefix)
	for project := range s.images.members[image] {
		if key := memberKey(image, project); strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}
