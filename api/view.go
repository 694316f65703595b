package api

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/catalog"
)

// An encoder writes JSON objects. Lists of images are most of what this
// server says, and reflection would be most of their cost.
type encoder struct {
	b     []byte
	comma bool
}

func (e *encoder) key(k string) {
	if e.comma {
		e.b = append(e.b, ',')
	}
	e.comma = true
	e.b = append(appendString(e.b, k), ':')
}

func (e *encoder) open(c byte)  { e.b = append(e.b, c); e.comma = false }
func (e *encoder) close(c byte) { e.b = append(e.b, c); e.comma = true }

func (e *encoder) text(k, v string) {
	e.key(k)
	e.b = appendString(e.b, v)
}

// textOrNull writes null for "".
func (e *encoder) textOrNull(k, v string) {
	e.key(k)
	if v == "" {
		e.b = append(e.b, "null"...)
		return
	}
	e.b = appendString(e.b, v)
}

func (e *encoder) number(k string, v int64) {
	e.key(k)
	e.b = strconv.AppendInt(e.b, v, 10)
}

func (e *encoder) numberOrNull(k string, v *int64) {
	if v == nil {
		e.key(k)
		e.b = append(e.b, "null"...)
		return
	}
	e.number(k, *v)
}

func (e *encoder) boolean(k string, v bool) {
	e.key(k)
	e.b = strconv.AppendBool(e.b, v)
}

func (e *encoder) words(k string, list []string) {
	e.key(k)
	e.b = append(e.b, '[')
	for i, v := range list {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = appendString(e.b, v)
	}
	e.b = append(e.b, ']')
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == 0x7f {
			quoted, _ := json.Marshal(s) // strings always encode
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// timeText is how clients see a moment.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// isHidden tells whether a property is never shown.
func isHidden(key string) bool {
	return key == "os_glance_stage_host" || key == "os_glance_hash_op_host"
}

// appendImage writes an image as clients see it.
func (s *Server) appendImage(e *encoder, img catalog.Image, locations bool) {
	e.open('{')
	for k, v := range img.Properties {
		if !isHidden(k) {
			e.text(k, v)
		}
	}
	e.key("name")
	if img.Name == nil {
		e.b = append(e.b, "null"...)
	} else {
		e.b = appendString(e.b, *img.Name)
	}
	e.textOrNull("disk_format", img.DiskFormat)
	e.textOrNull("container_format", img.ContainerFormat)
	e.text("visibility", string(img.Visibility))
	e.numberOrNull("size", img.Size)
	e.numberOrNull("virtual_size", img.VirtualSize)
	e.text("status", string(img.Status))
	e.textOrNull("checksum", img.Checksum)
	e.boolean("protected", img.Protected)
	e.number("min_ram", img.MinRAM)
	e.number("min_disk", img.MinDisk)
	e.textOrNull("owner", img.Owner)
	e.boolean("os_hidden", img.Hidden)
	e.textOrNull("os_hash_algo", img.HashAlgo)
	e.textOrNull("os_hash_value", img.HashValue)
	e.text("id", img.ID)
	e.text("created_at", timeText(img.CreatedAt))
	e.text("updated_at", timeText(img.UpdatedAt))
	e.words("tags", img.Tags)
	e.text("self", imageURL(img.ID))
	e.text("file", imageURL(img.ID)+"/file")
	e.text("schema", "/v2/schemas/image")
	stores := storesOf(img)
	s.appendLocations(e, &img, locations)
	if s.manyStores() && len(stores) > 0 {
		e.text("stores", strings.Join(stores, ","))
	}
	e.close('}')
}

func imageURL(id string) string { return "/v2/images/" + id }

// storesOf names the stores that have the image's bytes, each once.
func storesOf(img catalog.Image) []string {
	var names []string
	for _, l := range img.Locations {
		if !slices.Contains(names, l.Store) {
			names = append(names, l.Store)
		}
	}
	return names
}

// Record returns an image as GET shows it: what image.json holds.
func (s *Server) Record(img catalog.Image) []byte {
	var e encoder
	s.appendImage(&e, img, true)
	return e.b
}
