package catalog

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrConflict is the error of a transaction whose conditions do not
	// hold, and of a change that lost to other writers too often.
	ErrConflict = errors.New("changed by somebody else meanwhile; try again")

	// ErrCompacted is the error of a watch from a revision whose changes are
	// no longer kept. Who needs them reads everything anew.
	ErrCompacted = errors.New("the changes since that revision are no longer kept; read everything anew")

	// ErrUnavailable is the error of a change while the KV cannot be
	// reached or cannot agree. The change may or may not have been made.
	ErrUnavailable = errors.New("the catalog's database is not available; try again later")

	// ErrGone is the error of finishing an upload whose image was deleted,
	// or whose upload was given up, meanwhile.
	ErrGone = errors.New("deleted meanwhile")

	// ErrNoData is the error of using the bytes of an image that has none, or
	// of an overlay that is not available.
	ErrNoData = errors.New("not available")

	// ErrMismatch is the error of a copy of an image that has other bytes.
	ErrMismatch = errors.New("these are not the bytes of the image")

	// ErrLastCopy is the error of taking away the only copy of an image.
	ErrLastCopy = errors.New("there is one copy only; delete the image instead")

	// ErrMarker is the error of a listing whose marker is not an image that
	// the viewer may see.
	ErrMarker = errors.New("unknown marker")

	// ErrTooBig is the error of a record or a transaction over the limits
	// of the KV. See MaxRecord and MaxOps.
	ErrTooBig = errors.New("too big for the catalog")

	// ErrFenced is the error of a change by an owner of an overlay that is not
	// its owner any more: a newer epoch was taken, or the overlay is gone. What
	// it has not committed will never be.
	ErrFenced = errors.New("another owner has taken the overlay since")

	// ErrClosed is the error of a call on a closed Catalog.
	ErrClosed = errors.New("the catalog is closed")
)

// A StatusError is a change of status that the table does not allow.
type StatusError struct {
	ID   string // of the image
	From Status
	To   Status
}

// Error names the image and both statuses.
func (e *StatusError) Error() string {
	return fmt.Sprintf("image %s is %s and cannot become %s", e.ID, e.From, e.To)
}

// An InUseError is a delete of something that others need.
type InUseError struct {
	Kind  string   // "image" or "overlay"
	ID    string   // what was to be deleted
	Users []string // who needs it, each "kind id", sorted
}

// Error names the object, its users and the remedy.
func (e *InUseError) Error() string {
	return fmt.Sprintf("%s %s is in use by %s; delete those first", e.Kind, e.ID, strings.Join(e.Users, ", "))
}

// A HeldError is an attachment that wants to write to an overlay that another
// one holds, or a gateway that wants to take one that another one owns.
type HeldError struct {
	Overlay string
	Holder  string // id of the attachment that may write; "": see Gateway
	Gateway string // id of the gateway that owns it; "": see Holder
}

// Error names the overlay and its holder.
func (e *HeldError) Error() string {
	if e.Gateway != "" {
		return fmt.Sprintf("overlay %s is in use on gateway %s; detach it there first", e.Overlay, e.Gateway)
	}
	return fmt.Sprintf("overlay %s is already attached for writing by attachment %s; detach that first", e.Overlay, e.Holder)
}

// A LossError is a gateway that wants to take an overlay whose last owner is
// gone, and with it the journal that alone has a part of what the overlay's
// users were told is safe.
type LossError struct {
	Overlay string
	Gateway string // the last owner
}

// Error names the overlay, who has its data, and the two ways on.
func (e *LossError) Error() string {
	return fmt.Sprintf("overlay %s has data that only the journal of gateway %s holds; start that gateway again, or accept the loss of it", e.Overlay, e.Gateway)
}

// A RecordError is a record that cannot be read: broken, or written by a
// newer platterd.
type RecordError struct {
	Key string
	Err error
}

// Error names the key and what is wrong with its record.
func (e *RecordError) Error() string { return fmt.Sprintf("catalog record %s: %v", e.Key, e.Err) }

// Unwrap returns what is wrong with the record.
func (e *RecordError) Unwrap() error { return e.Err }
