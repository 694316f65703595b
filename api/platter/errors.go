package platter

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/format"
)

// translate gives the errors of formats and of ingest their status. Package
// wire knows those of the catalog and of the standard library.
func translate(err error) error {
	var own *wire.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if status := statusOf(err); status != 0 {
		return wire.Errorf(status, "%w", err)
	}
	return err
}

// statusOf returns the status of an error that package wire does not know, or
// 0.
func statusOf(err error) int {
	var refusal *format.Refusal
	switch {
	case errors.As(err, &refusal):
		return http.StatusUnsupportedMediaType
	case errors.Is(err, ingest.ErrTooBig):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, ingest.ErrStore), errors.Is(err, ingest.ErrFormatsUnset), errors.Is(err, ingest.ErrBody):
		return http.StatusBadRequest
	}
	return 0
}

// notFound is the answer for what is not there and for what may not be seen.
func notFound(kind, id string) error {
	return wire.Errorf(http.StatusNotFound, "There is no %s %.64q that you can see.", kind, id)
}

func badRequest(format string, args ...any) error {
	return wire.Errorf(http.StatusBadRequest, "%s", fmt.Sprintf(format, args...))
}

func conflict(format string, args ...any) error {
	return wire.Errorf(http.StatusConflict, "%s", fmt.Sprintf(format, args...))
}
