//go:build integration

package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A report is the tables of a run.
type report struct {
	mu     sync.Mutex
	tables []*table
}

// A table is printed as one of Markdown's, for people and for the README.
type table struct {
	title string
	rows  [][]string
}

// table begins a table with its title and the names of its columns.
func (r *report) table(title string, columns ...string) *table {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &table{title: title, rows: [][]string{columns}}
	r.tables = append(r.tables, t)
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", t.title)
	line := func(cells []string, fill string) {
		for i, w := range widths {
			cell := ""
			if i < len(cells) {
				cell = cells[i]
			}
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(fill, w-utf8.RuneCountInString(cell)))
		}
		b.WriteString("|\n")
	}
	line(t.rows[0], " ")
	line(nil, "-")
	for _, row := range t.rows[1:] {
		line(row, " ")
	}
	return b.String()
}

// write prints all tables and keeps them in a file.
func (r *report) write(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tables) == 0 {
		return nil
	}
	var all bytes.Buffer
	for _, t := range r.tables {
		fmt.Fprintf(&all, "\n%s", t)
	}
	fmt.Print(all.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, all.Bytes(), 0o644)
}

// quantile returns the value below which a share q of the values are.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// median is the middle of the values, or of the two there.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n > 0 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return quantile(s, 0.5)
}

// ratio is the median of the ratios of two series of the same rounds.
func ratio(a, b []float64) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		if b[i] > 0 {
			all = append(all, a[i]/b[i])
		}
	}
	return median(all)
}

// verdict says what came of an aim. 0 is no aim.
func verdict(got, aim float64, least bool) string {
	switch {
	case aim == 0:
		return ""
	case least && got >= aim, !least && got <= aim:
		return "met"
	}
	return "MISSED"
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
