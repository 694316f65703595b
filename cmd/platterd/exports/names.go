package exports

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/uuid"
)

// A kind is what an export name asks for.
type kind uint8

const (
	kindDisk kind = iota
	kindNative
	kindEphemeral
	kindOverlay
	kindToken
)

// maxID is longer than any id or token.
const maxID = 128

// parseName takes an export name apart. An error is fs.ErrNotExist and does
// not repeat what may be a secret: a token in the wrong place is one, too.
func parseName(name string) (kind, string, error) {
	k, id := kindDisk, name
	if rest, ok := strings.CutPrefix(name, "attach/"); ok {
		k, id = kindToken, rest
	} else if rest, ok := strings.CutPrefix(name, "overlay/"); ok {
		k, id = kindOverlay, rest
	} else if rest, ok := strings.CutPrefix(name, "ephemeral/"); ok {
		k, id = kindEphemeral, rest
	} else if rest, ok := strings.CutSuffix(name, "/native"); ok {
		k, id = kindNative, rest
	}
	if id == "" || len(id) > maxID || !plain(id) || k != kindToken && uuid.Validate(id) != nil {
		return 0, "", fmt.Errorf("there is no export of that name; names are IMAGE_ID, IMAGE_ID/native, ephemeral/IMAGE_ID, overlay/OVERLAY_ID and attach/TOKEN: %w", fs.ErrNotExist)
	}
	return k, id, nil
}

// plain tells whether id has only what ids and tokens are made of.
func plain(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
