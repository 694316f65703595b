package s3

import (
	"context"
	"slices"

	"github.com/seed-478a8fee/platter/backends"
)

// Abilities are what the server was seen to do.
type abilities struct {
	putNone, putMatch, completeNone bool // conditions that hold on writes
	crc32c, md5                     bool // refuses bytes with a wrong digest
	getMatch                        bool
	copy, copyPart                  bool
	metadata                        bool // keeps x-amz-meta-...
	told                            []backends.Capability
}

// Capabilities returns what the server was seen to do when it was opened.
func (s *Store) Capabilities() []backends.Capability { return slices.Clone(s.can.told) }

func (s *Store) probe(ctx context.Context) (abilities, error) { return abilities{}, nil }
