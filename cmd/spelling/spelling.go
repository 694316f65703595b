// Package spelling guesses which word somebody meant to type: a verb of the
// command line, a key of the configuration.
package spelling

// Nearest returns the word of known that is at most two letters away from
// word, or "" if none is.
func Nearest(word string, known []string) string {
	best, bound := "", 3
	for _, k := range known {
		if d := distance(word, k); d < bound {
			best, bound = k, d
		}
	}
	return best
}

// distance counts the letters to change, add or drop (Levenshtein, 1966).
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
