package s3

import "time"

// CopyBy lets tests copy in parts what is not huge.
func (s *Store) CopyBy(whole, part int64) { s.copying = copying{whole: whole, part: part} }

// Hurry makes tests wait less between tries.
func (s *Store) Hurry() { s.pace = time.Millisecond }
