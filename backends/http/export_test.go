package http

import "time"

// Impatient gives a store that is open another Timeout.
func (s *Store) Impatient(timeout time.Duration) { s.watch.limit = timeout }
