// Package exports joins the catalog and the bytes: it knows what the names of
// NBD exports mean, which layers make up an image, where an overlay's file is,
// and who has what open.
//
//	IMAGE_ID             disk bytes, read-only
//	IMAGE_ID/native      native bytes, read-only
//	ephemeral/IMAGE_ID   disk bytes, writable, gone with the connection
//	overlay/OVERLAY_ID   a persistent overlay, one owner at a time
//	attach/TOKEN         what an attachment gives
//
// An [Exports] is the nbd.Exports and the fusefs.Library of the daemon, and
// what package api/platter asks for overlays, attachments and disks.
//
// # Disks and sessions
//
// A writable disk (an overlay, or the delta of an ephemeral attachment) is
// opened once and shared by all that use it: connections, snapshots, captures.
// So a flush on one connection covers the writes of all of them. The last one
// to let go flushes and closes it.
//
// A session is one connection's use of a disk. It has an owner: an
// attachment, a process at the other end of the unix socket, or, over TCP,
// the connection itself. A disk has sessions that write of one owner only.
// Ending a session first turns away new requests, then waits for those in
// flight, so that whoever is told that a session is over can rely on it.
//
// # Who may open what
//
// On the socket: whoever the mode and group of its file let in. Over TLS with
// client certificates: what a [Rule] says, if there are any; a client that may
// only read gets a read-only disk, and no writer makes way for it. A token is
// taken on loopback, on the socket and over TLS, on the transport that its
// attachment is for.
//
// # What a crash leaves
//
// An overlay's record is there before its file and goes after it, with the
// status creating or deleting meanwhile; Recover ends what was begun. Deltas
// of ephemeral attachments without a record are removed. A capture that did
// not finish is a failed task, its image is removed, its snapshot forgotten.
// Every overlay's file is opened once, which repairs it.
//
// An overlay in a shared store stays this gateway's until settle, or a client
// that is faster, has opened it and brought over what its journal holds.
// Whoever opens one that was not closed well, another gateway included, makes
// its record say which snapshots there are. What cannot be opened is given
// back, unless somebody left it unclean. A journal whose overlay has no record
// any more stays for a day.
//
// # Locks
//
// In this order: an overlay's keyed lock (create, attach, detach, delete), then
// Exports.mu. Exports.mu guards maps and counters only; nothing waits while it
// is held.
package exports
