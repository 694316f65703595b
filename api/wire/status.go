package wire

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"syscall"
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
	for _, row := range statusTable() {
		if errors.Is(err, row.err) {
			return row.status
		}
	}
	return http.StatusInternalServerError
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
