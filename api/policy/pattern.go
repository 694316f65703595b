package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A pattern is the right side of a check: texts and attributes in turn.
type pattern []piece

// A piece is an attribute of the target, or the text before the next one.
type piece struct {
	text string // the text, or the name of the attribute
	get  func(*wire.Target) (string, bool)
}

var errConversion = errors.New("after a % there must be (ATTRIBUTE)s, or another % for a percent sign")

// parsePattern reads the right side of a check.
func parsePattern(s string) (pattern, error) {
	var p pattern
	var text strings.Builder
	for s != "" {
		plain, rest, found := strings.Cut(s, "%")
		text.WriteString(plain)
		if !found {
			break
		}
		if strings.HasPrefix(rest, "%") {
			text.WriteByte('%')
			s = rest[1:]
			continue
		}
		name, after, ok := strings.Cut(rest, ")")
		if !ok || !strings.HasPrefix(name, "(") || !strings.HasPrefix(after, "s") {
			return nil, fmt.Errorf("%.60q does not fit: %w", "%"+rest, errConversion)
		}
		if text.Len() > 0 {
			p = append(p, piece{text: text.String()})
			text.Reset()
		}
		p = append(p, piece{text: name[1:], get: attribute(name[1:])})
		s = after[1:]
	}
	if text.Len() > 0 || len(p) == 0 {
		p = append(p, piece{text: text.String()})
	}
	return p, nil
}

// expand puts the attributes of t in. It is false if t lacks one.
func (p pattern) expand(t *wire.Target) (string, bool) {
	if len(p) == 1 {
		if p[0].get == nil {
			return p[0].text, true
		}
		return p[0].get(t)
	}
	var out strings.Builder
	for _, piece := range p {
		text := piece.text
		if piece.get != nil {
			var ok bool
			if text, ok = piece.get(t); !ok {
				return "", false
			}
		}
		out.WriteString(text)
	}
	return out.String(), true
}
