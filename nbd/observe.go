package nbd

import (
	"fmt"
	"time"
)

// An Observer is told what a Server does, for metrics.
type Observer interface {
	// Connected is called when a client has opened an export. What happens
	// on that connection is told to the Meter; nil means not to tell.
	Connected(info ConnInfo) Meter
}

// A Meter counts what happens on one connection. Request is called from
// several goroutines, once per request, and must be quick.
type Meter interface {
	// Request is called after each request: how many bytes it was about, 0
	// if it failed, how long it took from its arrival to its reply, and the
	// error that the client was told, 0 for none.
	Request(cmd Command, bytes int64, took time.Duration, errno Errno)

	// Closed is called once, at the end.
	Closed()
}

// A ConnInfo describes a live connection.
type ConnInfo struct {
	Client   Client
	Peer     string    // the common name in the client's certificate; empty without one
	Headers  string    // "simple", "structured" or "extended"; empty until an export is open
	Export   string    // the Export's Label; empty until one is open
	Writable bool      // the client may write
	Since    time.Time // when the connection was accepted
	InFlight int       // requests in the hands of workers
	Requests int64     // requests answered
	Read     int64     // bytes read by the client
	Written  int64     // bytes written by the client
	Errors   int64     // requests answered with an error
}

// A Command is a kind of request.
type Command uint16

// The commands, numbered as in the protocol.
const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisconnect  Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7
)

// String returns the command's name in lower case.
func (c Command) String() string {
	names := [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write-zeroes", "block-status"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("command(%d)", uint16(c))
}
