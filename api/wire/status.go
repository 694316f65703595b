package wire

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"syscall"

	"github.com/seed-478a8fee/platter/catalog"
)

// StatusOf returns the HTTP status of an error. It is the only place that
// knows; what is unknown is 500.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	if status := statusOfType(err); status != 0 {
		return status
	}
	for _, row := range statusTable() {
		if errors.Is(err, row.err) {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// statusOfType knows the errors that are types.
func statusOfType(err error) int {
	var (
		status *catalog.StatusError
		inUse  *catalog.InUseError
		held   *catalog.HeldError
		record *catalog.RecordError
	)
	switch {
	case errors.As(err, &status), errors.As(err, &inUse), errors.As(err, &held):
		return http.StatusConflict
	case errors.As(err, &record):
		return http.StatusInternalServerError
	}
	return 0
}

// statusClientGone is what logs show for a client that hung up. Nobody
// receives it.
const statusClientGone = 499

type statusRow struct {
	err    error
	status int
}

// statusTable is read from the top: the first error that matches decides.
func statusTable() []statusRow {
	return []statusRow{
		{catalog.ErrGone, http.StatusGone},
		{catalog.ErrMarker, http.StatusBadRequest},
		{catalog.ErrConflict, http.StatusConflict},
		{catalog.ErrCompacted, http.StatusGone},
		{catalog.ErrTooBig, http.StatusRequestEntityTooLarge},
		{catalog.ErrUnavailable, http.StatusServiceUnavailable},
		{catalog.ErrClosed, http.StatusServiceUnavailable},
		{fs.ErrNotExist, http.StatusNotFound},
		{fs.ErrExist, http.StatusConflict},
		{fs.ErrPermission, http.StatusForbidden},
		{fs.ErrInvalid, http.StatusBadRequest},
		{syscall.ENOSPC, http.StatusRequestEntityTooLarge},
		{syscall.EDQUOT, http.StatusRequestEntityTooLarge},
		{errors.ErrUnsupported, http.StatusNotImplemented},
		{context.Canceled, statusClientGone},
		{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
		{context.DeadlineExceeded, http.StatusServiceUnavailable},
	}
}
