package fusefs

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxName  = 255 // bytes of a directory entry
	shortLen = 8   // characters of an id that tell images of one name apart
	fullLen  = 36  // characters of an id
)

// escape writes a name as a directory entry. No two names have one escape.
func escape(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	mark := markAt(name)
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < 0x20 || c == 0x7f || c == '/' || c == '%' || i == mark {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape is the inverse of escape. It is not ok for what escape never
// writes, so that a name has one entry only.
func unescape(entry string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(entry); i++ {
		if entry[i] != '%' {
			b.WriteByte(entry[i])
			continue
		}
		if i+2 >= len(entry) {
			return "", false
		}
		c, err := strconv.ParseUint(entry[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	name = b.String()
	return name, escape(name) == entry
}

// markAt returns where the '~' stands that begins a mark of the form
// ~SHORTID or ~ID at the end of s, or -1.
func markAt(s string) int {
	i := strings.LastIndexByte(s, '~')
	if i < 0 {
		return -1
	}
	if n := len(s) - i - 1; n != shortLen && n != fullLen {
		return -1
	}
	for _, c := range []byte(s[i+1:]) {
		if !strings.ContainsRune("0123456789abcdefABCDEF-", rune(c)) {
			return -1
		}
	}
	return i
}

// short returns the mark that tells id apart from the other images of its
// name: its beginning, or all of it where beginnings are equal.
func short(id string, namesakes []Image) string {
	if len(id) <= shortLen || markAt("~"+id[:shortLen]) < 0 {
		return id
	}
	for _, other := range namesakes {
		if other.ID != id && strings.HasPrefix(other.ID, id[:shortLen]) {
			return id
		}
	}
	return id[:shortLen]
}

// entryName returns the entry of img in by-name, given all images of its name.
func entryName(img Image, namesakes []Image) string {
	entry := escape(img.Name)
	if len(namesakes) > 1 {
		entry += "~" + short(img.ID, namesakes)
	}
	if len(entry) > maxName {
		entry = cut(entry, maxName-1-len(img.ID)) + "~" + img.ID
	}
	return entry
}

// cut shortens s to at most n bytes without splitting a character or an
// escape.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	s = s[:n]
	if i := strings.LastIndexByte(s, '%'); i >= 0 && i > len(s)-3 {
		s = s[:i]
	}
	return s
}

// nativeName returns the name of the native file of img.
func nativeName(img Image) string {
	ext := img.DiskFormat
	if ext == "" || strings.ContainsAny(ext, "/%\x00") || len(ext) > 32 {
		ext = "img"
	}
	return "native." + ext
}
