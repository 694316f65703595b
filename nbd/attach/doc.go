// Package attach connects an export to a kernel /dev/nbd device.
//
// [Connect] does the handshake with the server, by package client, one
// connection after the other, and hands the sockets to the kernel's nbd module
// by generic netlink. From then on the kernel speaks to the server; this
// process moves no data. What is left to it is [Device.Keep]: when a connection
// breaks, because the server is restarted for example, the kernel holds the
// requests back, and Keep opens a new connection and gives it to the kernel,
// which repeats them. Who uses the device sees a pause and no error, if the
// server is back within Config.DeadConnTimeout. Without Keep a broken
// connection stays broken.
//
// # What the kernel does
//
// A request that was on a connection when it broke is repeated once it is
// Config.Timeout old: the kernel has no other moment for it. So that is the
// longest pause after a restart, and a request that the server works on for
// longer breaks its connection and is repeated, too. Requests that come while
// there is no connection wait for at most Config.DeadConnTimeout and then
// fail. Both are whole seconds to the kernel.
//
// The kernel speaks NBD without TLS, with simple replies, and asks for at most
// 128 KiB at a time (max_sectors_kb of the queue changes that). It takes
// sectors of 512 bytes, or the server's minimum where that is larger; what is
// behind the last whole sector of a disk cannot be seen.
//
// # Errors
//
// They say the cause and what to do, and callers may ask with errors.Is:
//
//	errors.ErrUnsupported    no nbd module; TLS; what a server or kernel lacks
//	fs.ErrNotExist           the server has no such export; the device is not connected
//	fs.ErrPermission         not root; the server refuses the client
//	syscall.EBUSY            the device, or the export, is in use
//	syscall.ESHUTDOWN        the server is stopping: try again
//
// # Hostile servers
//
// A handshake ends within Config.HandshakeTimeout, whatever the server does.
// A reply is at most 8 KiB, there are at most 32 of them, and nothing is
// allocated because a header says so. Sizes that no disk has, and connections
// that contradict each other, are refused before the kernel hears of them.
//
// The name of an export may be a secret: it is in no log line, no error and no
// name of the device. The kernel is told a digest of it, so that nobody else
// connects another export to the device by mistake.
package attach
