package config

import (
	"strings"

	"github.com/seed-478a8fee/platter/cmd/spelling"
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
	best := spelling.Nearest(key, known)
	if best == "" {
		return "; known here: " + strings.Join(known, ", ")
	}
	return "; did you mean " + best + "?"
}
