package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/backends/block"
)

// An Errno is an error number of the protocol. 0 is none.
type Errno uint32

// The error numbers. There are no others on the wire.
const (
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// String returns the number's name.
func (e Errno) String() string {
	switch e {
	case 0:
		return "ok"
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return fmt.Sprintf("errno(%d)", uint32(e))
}

// Why a connection ends that the client did not end.
var (
	errKicked   = errors.New("cut off by the operator")
	errCutOff   = errors.New("the server shut down before the connection had ended")
	errStalled  = errors.New("it took no replies, or sent no payload, while others waited for that")
	errCrowded  = errors.New("the limit of connections was reached and its handshake had lasted longest")
	errDrained  = errors.New("the server is shutting down")
	errHanded   = errors.New("another server goes on with it")
	errTimeout  = errors.New("the handshake took too long")
	errProtocol = errors.New("protocol error")
)

// A refusal is a request or option that we do not carry out, and why.
type refusal struct {
	code Errno
	text string
}

// Error returns the text for the client.
func (r *refusal) Error() string { return r.text }

func refuse(code Errno, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// errno maps the error of a request to its number: the only place.
func errno(err error) Errno {
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	for _, row := range [...]struct {
		is   error
		code Errno
	}{
		{syscall.ENOSPC, ENOSPC},
		{syscall.EDQUOT, ENOSPC},
		{syscall.EFBIG, ENOSPC},
		{fs.ErrPermission, EPERM}, // EACCES and EPERM too
		{syscall.EROFS, EPERM},
		{syscall.ENOMEM, ENOMEM},
		{syscall.EOVERFLOW, EOVERFLOW},
		{errors.ErrUnsupported, ENOTSUP}, // EOPNOTSUPP and ENOSYS too
		{block.ErrBounds, EINVAL},
		{fs.ErrInvalid, EINVAL},
		{syscall.EINVAL, EINVAL},
		{syscall.ESHUTDOWN, ESHUTDOWN},
		{context.Canceled, ESHUTDOWN}, // only the end of the connection cancels
	} {
		if errors.Is(err, row.is) {
			return row.code
		}
	}
	return EIO
}

// repErrno maps the error of Exports to the reply that refuses an option of
// this client.
func (c *conn) repErrno(opt uint32, err error) repError {
	if errors.Is(err, ErrTLSRequired) {
		// The protocol has this reply for these two only, and not where TLS
		// cannot be started.
		if (opt == optInfo || opt == optGo) && c.secure == nil && c.s.tls != nil && c.fixed {
			return repErrTLSReqd
		}
		return repErrPolicy
	}
	return repErrno(err)
}

// repErrno maps the error of Exports to the reply that refuses an option.
func repErrno(err error) repError {
	for _, row := range [...]struct {
		is   error
		code repError
	}{
		{fs.ErrNotExist, repErrUnknown},
		{fs.ErrPermission, repErrPolicy},
		{syscall.EBUSY, repErrPolicy},
		{fs.ErrInvalid, repErrInvalid},
		{errDrained, repErrShutdown},
		{context.Canceled, repErrShutdown},
		{syscall.ESHUTDOWN, repErrShutdown},
	} {
		if errors.Is(err, row.is) {
			return row.code
		}
	}
	return repErrPlatform
}

// clip makes text fit to be sent: valid UTF-8 without NUL, at most limit bytes.
func clip(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
