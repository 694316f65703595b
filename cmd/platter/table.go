package main

import (
	"io"
	"strings"
	"unicode"
)

// widest is how far one cell may push the columns behind it away. A longer
// one sticks out of its own line only.
const widest = 48

// align prints columns as wide as their widest cell.
func align(w io.Writer, grid [][]string) error {
	width := map[int]int{}
	for _, row := range grid {
		for i, s := range row {
			width[i] = max(width[i], min(columns(s), widest))
		}
	}
	var b strings.Builder
	for _, row := range grid {
		line := ""
		for i, s := range row {
			line += s + strings.Repeat(" ", max(width[i]-columns(s), 0)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// columns counts what s takes of a terminal's line: letters of East Asia two
// columns, marks that join the letter before none.
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana),
			r >= 0x3000 && r <= 0x303f, r >= 0xff00 && r <= 0xff60, r >= 0x1f300 && r <= 0x1faff:
			n += 2
		default:
			n++
		}
	}
	return n
}
