// Package nbdclient reads a disk over NBD: one request at a time, simple
// replies, nothing that a measurement would have to explain. It is for platter
// bench; whoever wants a whole client has libnbd.
//
// What a server sends is not trusted: lengths are bounded, and every wait ends
// with its context.
package nbdclient
