package client

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// ErrTLS marks the refusal of a server that wants TLS.
var ErrTLS = errors.New("it wants TLS: use nbds://")

// A refusal is a reply that says no.
type refusal struct {
	option uint32 // that it is about
	code   uint32
	text   string // the server's words
}

func (r *refusal) Error() string {
	why := fmt.Sprintf("error 2^31+%d", r.code&^(1<<31))
	switch r.code {
	case repErrUnsup:
		why = "it does not know the option GO; use a newer server, or nbd-client with -no-optgo"
		if r.option == optStartTLS {
			why = "it has none"
		}
	case repErrPolicy:
		why = "not allowed, or in use by somebody else"
	case repErrTLSReqd:
		why = ErrTLS.Error()
	case repErrUnknown:
		why = "there is no such export"
	case repErrShutdown:
		why = "it is stopping; try again"
	}
	if r.text != "" {
		why += fmt.Sprintf(" (the server says %q)", r.text)
	}
	what := "the export"
	if r.option == optStartTLS {
		what = "TLS"
	}
	return "nbd: the server refuses " + what + ": " + why
}

// Unwrap returns what callers ask for.
func (r *refusal) Unwrap() []error {
	switch r.code {
	case repErrTLSReqd:
		return []error{ErrTLS, fs.ErrPermission}
	case repErrUnsup, repErrBlockSizeReqd:
		return []error{errors.ErrUnsupported}
	case repErrPolicy:
		return []error{fs.ErrPermission}
	case repErrUnknown:
		return []error{fs.ErrNotExist}
	case repErrShutdown:
		return []error{syscall.ESHUTDOWN}
	case repErrInvalid, repErrPlatform:
		return []error{syscall.EINVAL}
	}
	return nil
}
