package wire

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"syscall"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends/format"
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
	if status, found := typed(err); found != nil {
		return status
	}
	for _, row := range statusTable() {
		if errors.Is(err, row.err) {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// typed finds the errors that are types, with the status that each has.
func typed(err error) (status int, found error) {
	var (
		refusal *format.Refusal
		move    *catalog.StatusError
		inUse   *catalog.InUseError
		held    *catalog.HeldError
		loss    *catalog.LossError
		record  *catalog.RecordError
	)
	switch {
	case errors.As(err, &refusal):
		return http.StatusUnsupportedMediaType, refusal
	case errors.As(err, &move):
		return http.StatusConflict, move
	case errors.As(err, &inUse):
		return http.StatusConflict, inUse
	case errors.As(err, &held):
		return http.StatusConflict, held
	case errors.As(err, &loss):
		return http.StatusConflict, loss
	case errors.As(err, &record):
		return http.StatusInternalServerError, record
	}
	return 0, nil
}

// textOfType returns the text of such an error without what was wrapped
// around it, or "".
func textOfType(err error) string {
	if _, found := typed(err); found != nil {
		return found.Error()
	}
	return ""
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
		{catalog.ErrNoData, http.StatusConflict},
		{catalog.ErrMarker, http.StatusBadRequest},
		{catalog.ErrConflict, http.StatusConflict},
		{catalog.ErrFenced, http.StatusConflict},
		{catalog.ErrLeaseGone, http.StatusServiceUnavailable},
		{catalog.ErrCompacted, http.StatusGone},
		{catalog.ErrTooBig, http.StatusRequestEntityTooLarge},
		{catalog.ErrUnavailable, http.StatusServiceUnavailable},
		{catalog.ErrClosed, http.StatusServiceUnavailable},
		{ingest.ErrTooBig, http.StatusRequestEntityTooLarge},
		{ingest.ErrFormatsUnset, http.StatusBadRequest},
		{ingest.ErrStore, http.StatusBadRequest},
		{ingest.ErrBody, http.StatusBadRequest},
		{ingest.ErrInUse, http.StatusConflict},
		{ingest.ErrAway, http.StatusServiceUnavailable},
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
