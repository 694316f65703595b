// Package house checks the rules that this repository keeps about itself: who
// may import whom, that everything has words, that nothing grows too large.
// A rule that is only written down is a wish; these are tests.
package house
