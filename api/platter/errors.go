package platter

import (
	"fmt"
	"net/http"

	"github.com/seed-478a8fee/platter/api/wire"
)

// notFound is the answer for what is not there and for what may not be seen.
func notFound(kind, id string) error {
	return wire.Errorf(http.StatusNotFound, "There is no %s %.64q that you can see; list them to find the one that you mean.", kind, id)
}

func badRequest(format string, args ...any) error {
	return wire.Errorf(http.StatusBadRequest, "%s", fmt.Sprintf(format, args...))
}

func conflict(format string, args ...any) error {
	return wire.Errorf(http.StatusConflict, "%s", fmt.Sprintf(format, args...))
}
