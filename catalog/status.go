package catalog

import "slices"

// A Status is where an image is in its life.
type Status string

// The statuses of the Image API.
const (
	StatusQueued        Status = "queued"
	StatusSaving        Status = "saving"
	StatusUploading     Status = "uploading"
	StatusImporting     Status = "importing"
	StatusActive        Status = "active"
	StatusDeactivated   Status = "deactivated"
	StatusKilled        Status = "killed"
	StatusPendingDelete Status = "pending_delete"
	StatusDeleted       Status = "deleted"
)

// next is the state machine: which statuses may follow which. No image is
// stored as deleted; it is the status in which DeleteImage returns it.
func next(from Status) []Status {
	switch from {
	case StatusQueued:
		return []Status{StatusSaving, StatusUploading, StatusImporting, StatusActive, StatusDeleted}
	case StatusSaving:
		return []Status{StatusActive, StatusKilled, StatusQueued, StatusDeleted}
	case StatusUploading:
		return []Status{StatusImporting, StatusQueued, StatusDeleted}
	case StatusImporting:
		return []Status{StatusActive, StatusQueued, StatusDeleted}
	case StatusActive:
		return []Status{StatusDeactivated, StatusPendingDelete, StatusDeleted}
	case StatusDeactivated:
		return []Status{StatusActive, StatusDeleted}
	case StatusPendingDelete:
		return []Status{StatusDeleted, StatusActive}
	case StatusKilled:
		return []Status{StatusDeleted}
	}
	return nil
}

// CanBecome tells whether an image may go from s to to. To stay is no move
// and always allowed.
func (s Status) CanBecome(to Status) bool {
	return s == to || slices.Contains(next(s), to)
}

// Valid tells whether s is one of the statuses.
func (s Status) Valid() bool {
	return s == StatusDeleted || next(s) != nil
}

// HasData tells whether an image in this status has bytes.
func (s Status) HasData() bool {
	return s == StatusActive || s == StatusDeactivated || s == StatusPendingDelete
}
