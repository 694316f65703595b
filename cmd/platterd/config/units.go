package config

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes, written as 4096, "512MiB", "50 GiB" or "1TB".
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"PiB", 1 << 50},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"PB", 1e15},
	{"B", 1}, {"", 1},
}

// UnmarshalText reads a Size.
func (s *Size) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(word, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<63-1)/u.bytes {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is no size: write bytes or a number with KiB, MiB, GiB or TiB", word)
}

// UnmarshalTOML reads a Size that is a bare number or a text.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("a size cannot be negative (%d)", v)
		}
		*s = Size(v)
		return nil
	case string:
		return s.UnmarshalText([]byte(v))
	}
	return fmt.Errorf("a size is a number of bytes or a text such as \"50GiB\"")
}

// A Duration is a span of time, written as "90s", "1h30m".
type Duration time.Duration

// UnmarshalText reads a Duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no span of time: write for example \"30s\" or \"1h\"", text)
	}
	*d = Duration(v)
	return nil
}

// A Mode is who may use a file, written in octal digits as "0660".
type Mode fs.FileMode

// UnmarshalText reads a Mode.
func (m *Mode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || v == 0 || v > 0o777 {
		return fmt.Errorf("%q is no mode of a file: write three or four octal digits, such as \"0660\"", text)
	}
	*m = Mode(v)
	return nil
}

// UnmarshalTOML reads a Mode that is a text. A bare number is refused: one
// could mean 660 and would get 01224.
func (m *Mode) UnmarshalTOML(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("%v is no mode of a file: write it in quotes, such as \"0660\"", v)
	}
	return m.UnmarshalText([]byte(text))
}
