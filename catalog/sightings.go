package catalog

import (
	"sync"
	"time"
)

// sightings remembers since when something has been seen in every round of
// looking.
type sightings struct {
	mu    sync.Mutex
	first map[string]time.Duration
}

// A round is one time of looking at all there is.
type round struct {
	s     *sightings
	clock func() time.Duration
	seen  map[string]time.Duration
}

// round begins one. Others may begin theirs meanwhile.
func (s *sightings) round(clock func() time.Duration) *round {
	return &round{s, clock, map[string]time.Duration{}}
}

// since notes that name is there, and returns for how long it has been.
func (r *round) since(name string) time.Duration {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	now := r.clock()
	first, ok := r.s.first[name]
	if !ok {
		first = now
	}
	r.seen[name] = first
	return now - first
}

// end forgets what was not there.
func (r *round) end() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.first = r.seen
}
