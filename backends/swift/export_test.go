package swift

import "time"

// Impatient gives a store that is open other limits.
func (s *Store) Impatient(timeout, retry time.Duration) {
	s.watch.limit, s.cfg.Retry = timeout, retry
}
