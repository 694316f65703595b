// Package client is the client's side of NBD, as far as this program needs
// one: [ParseURI] reads an NBD URI, [Connect] connects to what it names and
// goes through the handshake, and a [Conn] reads the disk, one request at a
// time and with simple replies. Package attach gives connections that are past
// the handshake to the kernel; platter bench measures with a Conn. Whoever
// wants a whole client has libnbd.
//
// # Errors
//
// They say the cause and what to do, and callers may ask with errors.Is:
//
//	ErrTLS                   the server wants TLS, and the client came without (also fs.ErrPermission)
//	errors.ErrUnsupported    what the server lacks, or wants beyond this client
//	fs.ErrNotExist           the server has no such export
//	fs.ErrPermission         the server refuses the client
//	syscall.ESHUTDOWN        the server is stopping: try again
//
// The name of an export may be a secret: it is in none of them.
//
// # Hostile servers
//
// What a server sends is not trusted. Every wait ends with its context. A
// reply of the handshake is at most 8 KiB, there are at most 32 of them to one
// option, and nothing is allocated because a header says so. Sizes that no
// disk has are refused.
package client
