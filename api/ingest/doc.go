// Package ingest brings bytes into a store and the fact of them into the
// catalog: bytes first, then the fact.
//
//	BeginUpload   queued → saving, with a record of the attempt
//	Create        under a fresh key: two attempts never meet (the first one has
//	              the image's id, as in Glance's own stores)
//	copy          body ─┬─▶ size limit, inspector   on the caller's goroutine
//	                    ├─▶ md5                     a lane of its own
//	                    ├─▶ sha512                  a lane of its own
//	                    └─▶ the store's Writer      a lane of its own
//	Commit        the bytes are durable; nobody points at them
//	Verify        the deep look at the metadata of the image file
//	FinishUpload  saving → active, in one transaction
//
// # What a crash leaves
//
// Before Commit: an unfinished object that nobody can open, and the record of
// the attempt. Between Commit and FinishUpload: an object that nobody points
// at, and the same record. After it: a good image. In no case is half an
// image visible, and in every case the record of the attempt, the queue of
// deleted locations, or the listing of the store leads [Ingest.Sweep] to what
// is left.
//
// An object is removed only by way of the catalog's queue, never directly
// because a call failed: when the answer of FinishUpload is lost, the image
// may be active. AbandonUpload and FinishUpload are transactions over the same
// record, so that one of them wins, and only an attempt that lost has its
// object queued.
//
// # Memory
//
// An upload holds at most [bufferChunks] chunks of [chunkSize] bytes, however
// large it is and however slow the store; with what the inspector and the
// store's Writer keep it stays well below 32 MiB.
package ingest

import "errors"

// The errors that a door translates. The others are those of the catalog, of
// package format, and of package syscall (ENOSPC for a full store).
var (
	// ErrTooBig is an upload that is larger than the gateway takes.
	ErrTooBig = errors.New("the image is too big")
	// ErrFormatsUnset is an upload to an image without disk_format or
	// container_format.
	ErrFormatsUnset = errors.New("disk_format and container_format must be set before data is uploaded")
	// ErrStore is a store that this gateway does not have.
	ErrStore = errors.New("no such store")
	// ErrAway is a store that could not take or give bytes, for a reason that
	// is not the caller's: it does not answer, or does not let us in.
	ErrAway = errors.New("the store cannot be used now")

	// ErrInUse is an image that others need in a way that only its store knows.
	ErrInUse = errors.New("the image cannot be deleted because it is in use through the backend store outside of this service")

	// ErrBody is a body that broke off, or is not as long as was announced.
	ErrBody = errors.New("the upload is incomplete")
)
