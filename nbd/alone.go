package nbd

import (
	"errors"
	"syscall"
	"time"
)

const (
	// aloneAfter is how many requests must have come with nothing else in
	// flight before one is served where it was read.
	aloneAfter = 32

	// aloneMost is how long that may take before another goroutine reads on:
	// the handoff that was saved is nothing then.
	aloneMost = 2 * time.Millisecond
)

// errRelieved ends a goroutine that read from the client: another does now.
var errRelieved = errors.New("another goroutine reads from the client")

// An alone tells whether a client waits for each reply before it asks again.
// Such a client has nothing that could go on while a worker is at it, so its
// requests are served where they are read even if the disk is slow. It
// belongs to who reads.
type alone struct {
	streak int
	relief *time.Timer // has somebody else read on when a request takes long
}

// next reports whether to serve q, the next request, where it was read.
func (c *conn) next(q *request) bool {
	if c.unanswered.Load() > 0 || uint64(c.in.buffered()) > q.burden || c.in.raw == nil || c.secure != nil {
		c.alone.streak = 0
		return false
	}
	c.alone.streak++
	return c.alone.streak > aloneAfter && (q.cmd == CmdRead || q.cmd == CmdWrite)
}

// brief reports whether q is a write, too long for the input, that will take no
// longer than what it takes to have a worker do it.
func (c *conn) brief(q *request) bool {
	return q.cmd == CmdWrite && q.n <= writeMax && q.flags&cmdFlagFUA == 0 && c.writes.near()
}

// serveAlone is what a worker does with r. If the client has asked for more
// meanwhile, it is not one that waits. After errRelieved the caller is not the
// one who reads any more.
func (c *conn) serveAlone(r *request) error {
	if c.alone.relief == nil {
		c.alone.relief = time.AfterFunc(time.Hour, c.relieve)
	}
	relief := c.alone.relief
	relief.Reset(aloneMost) // from here on c.alone may be somebody else's
	c.perform(r, r.reply)
	if !relief.Stop() {
		c.deliver(r)
		return errRelieved
	}
	if c.alone.streak > aloneAfter && c.in.poll() {
		c.alone.streak = 0
	}
	c.deliver(r)
	return nil
}

// relieve reads on in place of a goroutine that is busy with a request, to the
// end of the connection.
func (c *conn) relieve() {
	c.alone = alone{} // the other one still looks at its timer
	c.run(c.readOn)
}

// poll reports whether there is input, without waiting for it.
func (in *input) poll() bool {
	if in.buffered() > 0 {
		return true
	}
	if in.held != nil {
		in.giveBack()
	}
	if in.glance == nil {
		in.glance = func(fd uintptr) bool {
			in.r, in.w = 0, 0
			if n, err := syscall.Read(int(fd), in.own); err == nil && n > 0 {
				in.w = n
			}
			return true
		}
	}
	// An end or an error is there for the next read too.
	_ = in.raw.Read(in.glance)
	return in.w > in.r
}
