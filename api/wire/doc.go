// Package wire has what every HTTP answer of the gateway shares, whether it
// speaks Glance's API (package api) or our own (package api/platter): request
// ids, the identity of who asks, the policy's question, error bodies in three
// forms, JSON that is read with limits, a router that answers 404 and 405
// itself, and deadlines that tell a slow client from a dead one.
//
// A handler is a function that returns an error:
//
//	func(w http.ResponseWriter, r *http.Request) error
//
// It returns what went wrong and has then written nothing; [WriteError] turns
// the error into a status and a body. [Error] carries a status of its own; any
// other error gets the one that [StatusOf] knows for it.
//
// The order around a request, outermost first: [Recorder] (status and bytes
// for the log line), request id, identity, router. Who mounts a handler under
// package api gets all of these and needs only the router.
package wire
