// Package nbdtest is a small, strict NBD client for tests.
//
// It exists to find fault: whatever the protocol forbids a server to send is
// an error here, also where a friendlier client would not mind. It speaks both
// cooked ([Client.Go], [Client.Read], [Client.Do]: any number of goroutines)
// and raw ([Client.SendOption], [Client.Send], [Client.Receive]: byte for byte,
// also what is forbidden to a client). The two are not mixed while requests
// are in flight.
//
// The package shares no code with the server, so that one mistake is not made
// twice.
package nbdtest
