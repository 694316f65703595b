package config

import (
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/cmd/spelling"
)

// lineOf returns the line, from 1, on which a TOML text sets the value at a
// key path such as "stores.fast.pool" or "nbd.clients[2].mode", or that of its
// table, or 0. The parser does not keep positions, so this looks for headers
// and keys as people write them.
func lineOf(text, path string) int {
	table, header := "", 0
	lists := map[string]int{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, inList := strings.CutPrefix(name, "[")
			name, _, _ = strings.Cut(name, "]")
			table = strings.Trim(name, " \"")
			if inList {
				if table == path {
					return i + 1
				}
				lists[table]++
				table = entry(table, lists[table])
			}
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

// entry returns the path of the n-th table, from 1, of a list of tables.
func entry(list string, n int) string { return list + "[" + strconv.Itoa(n) + "]" }

// didYouMean proposes the known key nearest to a mistyped one.
func didYouMean(key string, known []string) string {
	best := spelling.Nearest(key, known)
	if best == "" {
		return "; known here: " + strings.Join(known, ", ")
	}
	return "; did you mean " + best + "?"
}
