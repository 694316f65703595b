// Package handover passes what a running gateway holds open, listening sockets
// and connections in the middle of their work, to the process that takes its
// place.
//
// The running gateway listens on the unix socket DIR/takeover.sock. Only
// processes of its own user, or of root, are heard. The two say:
//
//	new                              old
//	hello {protocol, version}    →
//	                             ←   welcome, or refused: why
//	                                 (it stops serving and closes everything;
//	                                 clients wait)
//	                             ←   items: kind, name, state, descriptor
//	                             ←   end {items, since}
//	(it opens everything)
//	taken                        →
//	                             ←   go
//	(it serves)                      (it exits)
//
// Before "go" the old process is the owner: should the new one die, say
// something else or take too long, the old one makes sure that it is gone and
// goes on by itself with what it still holds. After "go" the new one is. If
// the old process dies in between, whoever has all items goes on.
//
// A message is a byte that says what it is, a length of 32 bits, and so many
// bytes; descriptors come with the first byte of their message, as SCM_RIGHTS
// does it. Lengths and counts are bounded, and what does not fit is an error,
// never a guess.
package handover
