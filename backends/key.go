package backends

import (
	"fmt"
	"io/fs"
	"strings"
)

// maxKey is the longest key in bytes. Every store and every path can bear it.
const maxKey = 255

// CheckKey returns nil for a key as Store describes it, and otherwise an error
// that is fs.ErrInvalid.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("key of %d bytes, %d at most: %w", len(key), maxKey, fs.ErrInvalid)
	}
	for elem := range strings.SplitSeq(key, "/") {
		if elem == "" || elem == "." || elem == ".." || strings.IndexFunc(elem, notInKey) >= 0 {
			return fmt.Errorf("key %q: %w", key, fs.ErrInvalid)
		}
	}
	return nil
}

func notInKey(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return r != '.' && r != '_' && r != '-'
}
