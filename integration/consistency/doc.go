// Package consistency checks what several NBD connections to one disk, with
// many requests in flight on each, see of one another's writes, and what is
// left of them after a crash.
//
// Nothing orders the requests but their answers, and ranges overlap at will.
// Every write is of a value that no other write has, in each of its sectors,
// so that whoever reads a sector can tell whose write it is. A [History]
// decides whether the disk could have shown it: with each sector a register
// that is read and written at some moment between a request and its answer.
package consistency
