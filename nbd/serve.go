package nbd

import (
	"context"
	"errors"

	"github.com/seed-478a8fee/platter/backends/block"
)

// check says why q is not to be carried out at all, or nil.
func (c *conn) check(q *request) error {
	if err := c.checkFlags(q); err != nil {
		return err
	}
	writes := q.cmd == CmdWrite || q.cmd == CmdTrim || q.cmd == CmdWriteZeroes
	if writes && c.dev == nil {
		return refuse(EPERM, "the export is read-only: %s is not possible; write to an overlay of the image instead", q.cmd)
	}
	if (q.cmd == CmdRead || q.cmd == CmdWrite) && q.n > uint64(c.maxPayload) {
		return refuse(EINVAL, "%s of %d bytes; the limit is %d: use several requests", q.cmd, q.n, c.maxPayload)
	}
	if q.cmd == CmdFlush {
		return nil
	}
	return c.checkRange(q)
}

// checkFlags refuses commands that we do not know and flags that do not
// belong to the command.
func (c *conn) checkFlags(q *request) error {
	known := uint16(cmdFlagFUA)
	switch q.cmd {
	case CmdRead:
		if c.headers != headersSimple {
			known |= cmdFlagDF
		}
	case CmdWrite:
		if c.headers == headersExtended {
			known |= cmdFlagPayload
		}
	case CmdWriteZeroes:
		known |= cmdFlagNoHole | cmdFlagFastZero
	case CmdBlockStatus:
		known |= cmdFlagReqOne
		if c.headers == headersExtended {
			known |= cmdFlagPayload
		}
		if len(c.contexts) == 0 {
			return refuse(EINVAL, "block-status needs a metadata context, and none was chosen for this export")
		}
		if q.n == 0 {
			return refuse(EINVAL, "block-status of 0 bytes; ask for at least 1")
		}
	case CmdFlush, CmdTrim, CmdCache:
	default:
		return refuse(EINVAL, "command %d is not known to this server", uint16(q.cmd))
	}
	if extra := q.flags &^ known; extra != 0 {
		return refuse(EINVAL, "flags %#x are not possible with %s here", extra, q.cmd)
	}
	return nil
}

// checkRange refuses what is not inside the export or not aligned as agreed.
func (c *conn) checkRange(q *request) error {
	size := uint64(c.size)
	if q.off > size || q.n > size-q.off {
		code := EINVAL
		if q.cmd == CmdWrite || q.cmd == CmdWriteZeroes {
			code = ENOSPC
		}
		return refuse(code, "%s of %d bytes at %d reaches past the end of the export at %d", q.cmd, q.n, q.off, size)
	}
	least := uint64(c.minBlock)
	end := q.off + q.n
	if q.off%least != 0 || end%least != 0 && end != size {
		return refuse(EINVAL, "%s of %d bytes at %d is not aligned to the agreed block size %d", q.cmd, q.n, q.off, least)
	}
	return nil
}

// perform carries out q and appends its reply to b. After an error the reply
// is the error alone.
func (c *conn) perform(q *request, b *buffer) {
	at := len(b.data)
	err := c.carryOut(q, b)
	if err != nil {
		c.fail(q, b, at, err)
		c.trouble(q, err)
	}
	c.account(q, c.errnoOf(q, err))
}

// carryOut does what q asks and appends the reply of success to b. A panic
// below us is an error.
func (c *conn) carryOut(q *request, b *buffer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(q.cmd.String(), p)
		}
	}()
	switch q.cmd {
	case CmdRead:
		return c.read(q, b)
	case CmdBlockStatus:
		return c.blockStatus(q, b)
	case CmdWrite:
		start := c.s.clock()
		err = c.dev.WriteAt(c.ctx, q.payload, int64(q.off))
		c.writes.took(scaled(c.s.clock()-start, q.n))
	case CmdFlush:
		if c.dev != nil {
			err = c.dev.Flush(c.ctx)
		}
	case CmdTrim:
		err = block.Discard(c.ctx, c.dev, int64(q.off), int64(q.n))
	case CmdWriteZeroes:
		err = c.zero(q)
	case CmdCache:
		// An error says only that it did not help.
		_ = block.Prefetch(c.ctx, c.export.Disk, int64(q.off), int64(q.n))
	}
	if err == nil && q.has(cmdFlagFUA) && c.dev != nil && q.cmd != CmdFlush && q.cmd != CmdCache {
		err = c.dev.Flush(c.ctx)
	}
	if err == nil {
		c.succeed(q, b)
	}
	return err
}

// succeed makes a reply of q that carries nothing.
func (c *conn) succeed(q *request, b *buffer) {
	if c.headers == headersExtended {
		q.addChunk(b, c.headers, chunkDone, chunkNone, 0)
		return
	}
	q.addSimple(b, 0, 0)
}

// zero carries out a WRITE_ZEROES.
func (c *conn) zero(q *request) error {
	mode := block.ZeroAny
	switch {
	case q.has(cmdFlagFastZero) && q.has(cmdFlagNoHole):
		mode = block.ZeroFastAllocated
	case q.has(cmdFlagFastZero):
		mode = block.ZeroFast
	case q.has(cmdFlagNoHole):
		mode = block.ZeroAllocated
	}
	return block.ZeroAt(c.ctx, c.dev, int64(q.off), int64(q.n), mode)
}

// errnoOf is errno with what depends on the request.
func (c *conn) errnoOf(q *request, err error) Errno {
	code := errno(err)
	if code == ENOTSUP && !q.has(cmdFlagFastZero) {
		return EINVAL // a client that did not ask for speed would not know what to do
	}
	return code
}

// fail makes the reply of q, which begins at b.data[at:], the error err.
func (c *conn) fail(q *request, b *buffer, at int, err error) {
	b.data = b.data[:at]
	code := c.errnoOf(q, err)
	if c.headers == headersSimple {
		q.addSimple(b, code, 0)
		return
	}
	q.addError(b, c.headers, code, clip(err.Error(), headRoom/4))
}

// trouble logs the first error of a connection that is not the client's own.
func (c *conn) trouble(q *request, err error) {
	if _, own := errors.AsType[*refusal](err); own || errors.Is(err, errors.ErrUnsupported) ||
		errors.Is(err, context.Canceled) || c.troubled.Swap(true) {
		return
	}
	c.s.log.Error("nbd: a request failed; further ones on this connection are only counted",
		c.attr("command", q.cmd.String(), "offset", q.off, "length", q.n, "told", errno(err).String(), "error", err)...)
}
