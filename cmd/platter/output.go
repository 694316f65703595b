package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// formatFlags are the flags of everything that prints records.
func formatFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "print as `FORMAT`: table, json, yaml or value"},
		&cli.StringSliceFlag{Name: "column", Aliases: []string{"c"}, Usage: "print only this `COLUMN`; may be repeated"},
	}
}

// A sheet is what a command prints: rows of named columns. Of a single record
// the table stands upright.
type sheet struct {
	columns []string
	rows    [][]any
	single  bool
}

// A cell with two faces: what programs read, and what people read.
type cell struct {
	value any
	text  string
}

// checkFormat refuses a format that there is not.
func checkFormat(c *cli.Context) error {
	switch format := c.String("format"); format {
	case "table", "value", "json", "yaml":
		return nil
	default:
		return usagef("there is no format %q; there are table, json, yaml and value", format)
	}
}

// show prints a sheet as the flags say.
func (p *program) show(c *cli.Context, s sheet) error {
	s, err := s.only(c.StringSlice("column"))
	if err != nil {
		return err
	}
	switch c.String("format") {
	case "value":
		return s.values(p.out)
	case "json":
		return s.json(p.out)
	case "yaml":
		return s.yaml(p.out)
	}
	return s.table(p.out)
}

// only keeps the columns that were asked for, in that order.
func (s sheet) only(names []string) (sheet, error) {
	if len(names) == 0 {
		return s, nil
	}
	var at []int
	out := sheet{single: s.single}
	for _, name := range names {
		i := slices.IndexFunc(s.columns, func(c string) bool {
			return strings.EqualFold(c, strings.ReplaceAll(name, " ", "_"))
		})
		if i < 0 {
			return s, usagef("there is no column %q; there are %s", name, strings.Join(s.columns, ", "))
		}
		at = append(at, i)
		out.columns = append(out.columns, s.columns[i])
	}
	for _, row := range s.rows {
		short := make([]any, 0, len(at))
		for _, i := range at {
			short = append(short, row[i])
		}
		out.rows = append(out.rows, short)
	}
	return out, nil
}

// value returns the face of a cell that programs read.
func value(v any) any {
	if c, ok := v.(cell); ok {
		return c.value
	}
	return v
}

// text returns the face of a cell that people read.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case cell:
		return v.text
	case string:
		return printable(v)
	case []string:
		return printable(strings.Join(v, ", "))
	case map[string]any, []any:
		out, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return printable(string(out))
	}
	return fmt.Sprint(v)
}

// printable keeps what somebody else named from driving the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '\uFFFD'
		}
		return r
	}, s)
}

func (s sheet) table(w io.Writer) error {
	grid := [][]string{}
	if s.single {
		for i, c := range s.columns {
			grid = append(grid, []string{c, text(s.rows[0][i])})
		}
	} else {
		if len(s.rows) == 0 {
			return nil // an empty list is an empty answer, as for ls
		}
		header := []string{}
		for _, c := range s.columns {
			header = append(header, strings.ToUpper(strings.ReplaceAll(c, "_", " ")))
		}
		grid = append(grid, header)
		for _, row := range s.rows {
			line := []string{}
			for _, v := range row {
				line = append(line, text(v))
			}
			grid = append(grid, line)
		}
	}
	return align(w, grid)
}

// values prints what a shell can read: one line per row, or of a single
// record one line per field.
func (s sheet) values(w io.Writer) error {
	between := " "
	if s.single {
		between = "\n"
	}
	var b strings.Builder
	for _, row := range s.rows {
		words := []string{}
		for _, v := range row {
			words = append(words, text(value(v)))
		}
		b.WriteString(strings.Join(words, between) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// A field is one entry of an object whose order is kept.
type field struct {
	name  string
	value any
}

// An object is a record for machines, its fields in the order of the columns.
type object []field

// MarshalJSON writes the fields in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		val, err := json.Marshal(f.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(val)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (s sheet) objects() []object {
	out := make([]object, 0, len(s.rows))
	for _, row := range s.rows {
		o := object{}
		for i, v := range row {
			o = append(o, field{s.columns[i], value(v)})
		}
		out = append(out, o)
	}
	return out
}

func (s sheet) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if s.single {
		return enc.Encode(s.objects()[0])
	}
	return enc.Encode(s.objects())
}

// human writes a number of bytes for people.
func human(n int64) string {
	if n < 0 {
		return ""
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < 5 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.4g %ciB", f, "KMGTPE"[unit])
}

// size is a cell for a number of bytes, -1 for none.
func size(n int64) any {
	if n < 0 {
		return cell{nil, ""}
	}
	return cell{n, human(n)}
}
