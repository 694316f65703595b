package config

import (
	"strings"
)

// lineOf returns the line, from 1, on which a TOML text sets the value at a
// key path such as "stores.fast.pool", or that of its table, or 0. The parser
// does not keep positions, so this looks for headers and keys as people write
// them.
func lineOf(text, path string) int {
	table, header := "", 0
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, _, _ = strings.Cut(name, "]")
			table = strings.Trim(name, " \"")
			if table == path || strings.HasPrefix(path, table+".") {
				header = i + 1
			}
			if table == path {
				return header
			}
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if ok && join(table, strings.Trim(key, " \t\"")) == path {
			return i + 1
		}
	}
	return header
}

// didYouMean proposes the known key nearest to a mistyped one.
func didYouMean(key string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if d := distance(key, k); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return "; known here: " + strings.Join(known, ", ")
	}
	return "; did you mean " + best + "?"
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
