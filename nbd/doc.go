// Package nbd serves block devices over the NBD protocol, fixed newstyle.
//
// A [Server] is given an [Exports], which opens disks by name, and listeners.
// A disk is a block.Reader; if it is a block.Device, clients may write. What
// else it can do (tell where its holes are, zero, discard, prefetch) is used
// through package block, so a disk that cannot is slower, never wrong.
//
// # Handshake
//
// We offer the flags FIXED_NEWSTYLE and NO_ZEROES. A client that sets another
// is cut off, and so is one that has not finished after
// Config.HandshakeTimeout, not counting the time that Exports takes. Names and
// texts are UTF-8 without NUL, at most 4096 bytes.
//
//	option                   our answer                                              proof
//	EXPORT_NAME (1)          size, flags, 124 zeros unless NO_ZEROES; unknown,       TestExportName
//	                         malformed, over TLS only or after EXTENDED_HEADERS:     TestExtendedHeaders
//	                         close, there is no way to say it
//	ABORT (2)                ACK, also with data; close                              TestAbort
//	LIST (3)                 a SERVER reply each, with description; ACK              TestList
//	4                        ERR_UNSUP; withdrawn from the protocol                  TestMalformedOptions
//	STARTTLS (5)             ACK and TLS; ERR_UNSUP without Config.TLS               TestTLS
//	INFO (6), GO (7)         EXPORT always; NAME, DESCRIPTION and BLOCK_SIZE if      TestInfoAndGo
//	                         asked for; unknown types are ignored. What INFO opened
//	                         stays open for a GO to the same name
//	STRUCTURED_REPLY (8)     ACK; ERR_EXT_HEADER_REQD after EXTENDED_HEADERS         TestTransmissionFlags
//	LIST_META_CONTEXT (9)    the contexts below; no query lists all, "base:",        TestMetaContexts
//	                         "qemu:" and "qemu:dirty-bitmap:" what begins so
//	SET_META_CONTEXT (10)    those named in full, up to 64; replaces what was set,   TestMetaContexts,
//	                         also when it fails; holds for the same name only        TestContextsHold
//	EXTENDED_HEADERS (11)    ACK; wins over structured replies                       TestExtendedHeaders
//	any other                ERR_UNSUP, its data read away                           TestMalformedOptions
//
// Refusals carry a text with the cause and what to do:
//
//	ERR_UNKNOWN     there is no such export (fs.ErrNotExist)
//	ERR_POLICY      the client may not, or somebody else has it (fs.ErrPermission, EBUSY)
//	ERR_INVALID     data where none belongs, lengths that do not add up, bytes behind
//	                the last field, names that are no text, contexts without structured replies
//	                or extended headers
//	ERR_TOO_BIG     more than 64 KiB of data (above 1 MiB we close), 256 queries or 64 contexts
//	ERR_TLS_REQD    start TLS first (see below)
//	ERR_SHUTDOWN    the server is shutting down
//	ERR_PLATFORM    Exports failed for another reason; the text has it
//
// # TLS
//
// Versions 1.2 and 1.3, on any kind of socket. What was agreed on before is
// forgotten and what was open is closed (TestTLSForgets); bytes without TLS
// behind the request to start it end the connection (TestTLSInjection), and so
// does a handshake that fails or outlasts Config.HandshakeTimeout
// (TestTLSTimeout). A second STARTTLS is ERR_INVALID; one of a client without
// FIXED_NEWSTYLE is ERR_POLICY. Certificates are Config.TLS's business: a
// GetConfigForClient changes them without a restart, and there are no tickets
// with which a client could come back without showing its own
// (TestTLSCertificates). Exports.Open sees it in Client.TLS.
//
// With Config.TLSRequired a client on a network socket gets ERR_TLS_REQD for
// all but STARTTLS and ABORT, and EXPORT_NAME closes (TestTLSRequired). Without
// it an export may ask for TLS by ErrTLSRequired, which is ERR_TLS_REQD to INFO
// and GO, ERR_POLICY to others; EXPORT_NAME closes (TestTLSOnly).
//
// Replies are gathered to full records and large writes (TestTLSWrites). At the
// end we say close_notify, and after the client's own we answer what it has
// asked for (TestTLSEnds).
//
// # Metadata contexts
//
//	base:allocation          bit 0 hole, bit 1 zero. Absent is both. Zero is both on a      TestStatus
//	                         read-only export, zero alone on one that can be written,
//	                         where NO_HOLE may have asked for space
//	qemu:allocation-depth    from which layer of the disk, 1 the topmost; 0 from none.      TestStatusOfContexts
//	                         Where a block comes from several, the topmost                  TestDepthAligned
//	qemu:dirty-bitmap:NAME   for each of Export.Bitmaps: bit 0 where its Changed has Data.  TestStatusOfContexts
//	                         One that has gone since it was chosen: all has changed         TestContextFails
//
// # Transmission flags
//
//	HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_CACHE     always
//	READ_ONLY                                       the disk is no block.Device
//	SEND_TRIM, SEND_WRITE_ZEROES, SEND_FAST_ZERO    it is one
//	SEND_DF                                         after STRUCTURED_REPLY or EXTENDED_HEADERS
//	BLOCK_STATUS_PAYLOAD                            after EXTENDED_HEADERS, with contexts chosen
//	CAN_MULTI_CONN                                  where the Export says so
//	ROTATIONAL, SEND_RESIZE                         never
//
// Block sizes are the Export's, else 1, 4096 and Config.MaxRequest (32 MiB).
// They bind a client that asked for them; one that did not may send any offset
// and length, and payloads up to Config.MaxRequest.
//
// # Commands
//
// Requests are answered in any order; several are carried out at once. FUA is
// accepted on every command; a write, trim or zeroing with it is flushed
// before its reply. Once structured replies are agreed on, READ and
// BLOCK_STATUS are always answered so, and every error, with a text; success
// of anything else is a simple reply. With extended headers there are no simple
// replies, lengths have 64 bits, and a payload is announced by PAYLOAD_LEN: on a
// command that takes none it is read away and EINVAL, above the maximum we
// close (TestExtendedPayloads, TestExtendedLengths).
//
//	command             our answer
//	READ (0)            up to the maximum, else EINVAL. Structured: one chunk, or from 16 KiB on
//	                    data and hole chunks as the disk's extents are, at most 16, none
//	                    overlapping, borders at 512. DF: one chunk. An error comes instead of
//	                    all data, never behind some. Length 0 succeeds
//	WRITE (1)           the payload is read whatever we answer. Length 0 succeeds. With extended
//	                    headers PAYLOAD_LEN may be left out, as QEMU 8.2 to 10 do
//	DISC (2)            what is in flight is done and answered, then we close; the same if the
//	                    client closes its half. Who has seen us close finds the export free
//	FLUSH (3)           every write answered before is on stable storage; range is ignored
//	TRIM (4)            block.Discard; any length
//	CACHE (5)           block.Prefetch; succeeds whatever comes of it; any length
//	WRITE_ZEROES (6)    block.ZeroAt; NO_HOLE keeps the space; FAST_ZERO is ENOTSUP at once where
//	                    it would be slow; both together where the disk can do that; any length
//	BLOCK_STATUS (7)    a chunk for each context chosen, or for those that a payload names (an
//	                    unknown one or one named twice: EINVAL). Neighbours merged, inside the
//	                    request, at most 8192 extents in all (one a chunk with REQ_ONE), borders at
//	                    512 or the agreed block size. Without a context, or of 0 bytes: EINVAL
//	any other           EINVAL
//
// TestReadWrite, TestReadHoles, TestStatus, TestErrors, TestSlowZeroes,
// TestFlushAndFUA, TestDisconnectFinishes and TestModel are the proof; integration/interop has
// nbdinfo, nbdcopy, nbdsh, qemu-img, qemu-io, qemu-nbd and fio agree, those of Debian 13 with
// extended headers.
//
// # Errors
//
// Only these are sent; file errno.go has the table:
//
//	EPERM        a write to a read-only export; what the disk forbids (EACCES, EROFS)
//	EINVAL       unknown command or flag, READ, TRIM, CACHE or BLOCK_STATUS beyond the end, too long, not aligned
//	ENOSPC       WRITE or WRITE_ZEROES beyond the end; disk or quota full (EDQUOT, EFBIG)
//	ENOTSUP      FAST_ZERO that would be slow; never without that flag
//	ENOMEM, EOVERFLOW    as the disk says
//	ESHUTDOWN    the export was taken from the client
//	EIO          whatever else the disk says, and a panic in it
//
// A wrong magic ends the connection: nobody knows where the next request is.
//
// # Hostile clients
//
// Nothing is allocated because a header says so: what a request may hold is
// bounded by Config.MaxRequest, per connection by Config.MaxInFlightBytes and
// in all by Config.MaxInFlightTotal; beside that a connection costs, while it
// is busy, a 64 KiB buffer and about 1 MiB of small replies; one that waits
// costs about 15 KiB (TestIdleConnections). A client that
// does not read its replies stops being read from. It keeps no worker and no
// lock that others need; a connection may always hold 512 KiB, and when one
// that wants more waits for memory, clients that moved less than 1 MiB of
// theirs within Config.StallTimeout are cut off. Connections are limited in
// number, in all and by network address; at the limit the oldest handshake
// gives way, so that saying nothing locks nobody out. The log has one line
// about what a client did wrong, not one for each packet. Names of exports may
// be secrets and are not logged; Export.Label is. A network client whose
// machine is gone is noticed within two minutes (TestKeepAlive).
//
// # Shutdown
//
// [Server.Shutdown] lets requests in flight end and takes up no new ones
// (options are answered with ERR_SHUTDOWN), then closes our half, waits a moment
// for the client to do the same, and closes. What was not answered a client
// repeats when it has connected again, as QEMU does with reconnect-delay; the
// error ESHUTDOWN would reach its guest. A client that takes no replies
// for 2 s is cut off. [Server.Kick] cuts connections off at once.
//
// # Hand-over
//
// [Server.Suspend] is a shutdown that leaves plain connections open, for
// [Server.Resume] in another process to go on with (TestHandOver). It stops
// each between two requests: what was taken up is done, flushed and answered;
// what was only read, if need be the first half of a write, goes along as State
// (TestHandOverWithinRequests). So it waits for disks, and for clients to take
// replies, but not for clients to send. The other server opens the export
// anew. It must be what the client was told: size, flags, block sizes; contexts
// keep their ids (TestHandOverOfContexts, TestResumeRefuses). Not handed over,
// but closed as in a shutdown, are connections with TLS, whose keys stay here,
// those whose disk is Transient, and those still in the handshake
// (TestHandOverOfOthers).
//
// # Inside
//
// One goroutine reads a connection's requests, serves small ones itself while
// the disk is fast, and hands others to workers; DESIGN.md has the reasons.
// Locks are never held while another is taken, except that Server.mu may be
// held while a connection is cut off.
package nbd
