package nbdtest

import (
	"errors"
	"fmt"
	"slices"
)

// A Reply is the whole answer to a request.
type Reply struct {
	Data    []byte
	Chunks  int                 // how many data and hole chunks
	Holes   int                 // how many of them were holes
	Extents []Extent            // of base:allocation
	Status  map[uint32][]Extent // of each context, by id
}

// Do sends a request and waits for the whole answer. Any number of goroutines
// may have requests in flight. The cookie is chosen here.
func (c *Client) Do(q Request) (Reply, error) {
	w, err := c.Begin(q)
	if err != nil {
		return Reply{}, err
	}
	return w()
}

// Begin sends a request and returns what waits for its answer.
func (c *Client) Begin(q Request) (wait func() (Reply, error), err error) {
	if q.Cmd == CmdWrite && q.Len == 0 {
		q.Len = uint64(len(q.Payload))
		if c.Extended {
			q.Flags |= PayloadLen
		}
	}
	w := &call{q: q, due: c.due(q), main: c.Contexts["base:allocation"], done: make(chan struct{})}
	s := &c.calls
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, s.err
	}
	if s.waiting == nil {
		s.waiting = map[uint64]*call{}
	}
	s.last++
	w.q.Cookie = s.last * 0x9e3779b97f4a7c15 // cookies are opaque: use all bits
	s.waiting[w.q.Cookie] = w
	if !s.reading {
		s.reading = true
		go c.receive() // ends with the last call in flight, or with the connection
	}
	s.mu.Unlock()
	s.sending.Lock()
	err = c.Send(w.q)
	s.sending.Unlock()
	return func() (Reply, error) { <-w.done; return w.reply, w.err }, err
}

// due returns the contexts that a status chunk must come for.
func (c *Client) due(q Request) map[uint32]bool {
	due := map[uint32]bool{}
	if q.Cmd != CmdBlockStatus {
		return due
	}
	if q.Flags&PayloadLen != 0 && len(q.Payload) >= 8 {
		for p := q.Payload[8:]; len(p) >= 4; p = p[4:] {
			due[be.Uint32(p)] = true
		}
		return due
	}
	for _, id := range c.Contexts {
		due[id] = true
	}
	return due
}

// receive reads replies until no call waits for one.
func (c *Client) receive() {
	s := &c.calls
	for {
		k, err := c.Receive(s.lookup)
		s.mu.Lock()
		if err != nil {
			s.err = err
			for cookie, w := range s.waiting {
				w.err = err
				close(w.done)
				delete(s.waiting, cookie)
			}
			s.mu.Unlock()
			return
		}
		w := s.waiting[k.Cookie]
		w.take(k)
		if k.Last {
			w.finish()
			close(w.done)
			delete(s.waiting, k.Cookie)
		}
		if len(s.waiting) == 0 {
			s.reading = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

func (s *calls) lookup(cookie uint64) (Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[cookie]
	if !ok {
		return Request{}, false
	}
	return w.q, true
}

// take adds a chunk to the call's reply.
func (w *call) take(k Chunk) {
	if k.Errno != 0 && w.err == nil {
		w.err = &Error{k.Errno, k.Text}
	}
	if k.Extents != nil {
		if !w.due[k.ID] && w.err == nil {
			w.err = fmt.Errorf("two block status chunks for context %d, or one that was not asked for", k.ID)
		}
		delete(w.due, k.ID)
		if w.reply.Status == nil {
			w.reply.Status = map[uint32][]Extent{}
		}
		w.reply.Status[k.ID] = k.Extents
		if k.ID == w.main {
			w.reply.Extents = k.Extents
		}
	}
	n := len(k.Data) + int(k.Hole)
	if n == 0 {
		return
	}
	if w.reply.Data == nil {
		w.reply.Data = make([]byte, w.q.Len)
		w.covered = make([]bool, w.q.Len)
	}
	at := int(k.Off - w.q.Off)
	if slices.Contains(w.covered[at:at+n], true) && w.err == nil {
		w.err = fmt.Errorf("chunk at %d of %d bytes overlaps another", k.Off, n)
	}
	for i := range n {
		w.covered[at+i] = true
	}
	copy(w.reply.Data[at:], k.Data)
	w.reply.Chunks++
	if k.Hole > 0 {
		w.reply.Holes++
	}
}

// finish looks whether the reply is whole.
func (w *call) finish() {
	switch {
	case w.err != nil:
	case w.q.Cmd == CmdRead && w.q.Len > 0 && (w.covered == nil || slices.Contains(w.covered, false)):
		w.err = errors.New("the read is not covered by its chunks")
	case w.q.Cmd == CmdRead && w.q.Flags&DF != 0 && w.reply.Chunks > 1:
		w.err = fmt.Errorf("DF, and %d chunks", w.reply.Chunks)
	case len(w.due) > 0:
		w.err = fmt.Errorf("block status without the contexts %v", w.due)
	}
}

// Read reads n bytes at off.
func (c *Client) Read(off uint64, n int, flags uint16) ([]byte, error) {
	r, err := c.Do(Request{Cmd: CmdRead, Flags: flags, Off: off, Len: uint64(n)})
	if r.Data == nil && n == 0 {
		r.Data = []byte{}
	}
	return r.Data, err
}

// WriteAt writes p at off.
func (c *Client) WriteAt(p []byte, off uint64, flags uint16) error {
	_, err := c.Do(Request{Cmd: CmdWrite, Flags: flags, Off: off, Payload: p})
	return err
}

// Flush flushes.
func (c *Client) Flush() error {
	_, err := c.Do(Request{Cmd: CmdFlush})
	return err
}

// Trim trims n bytes at off.
func (c *Client) Trim(off, n uint64, flags uint16) error {
	_, err := c.Do(Request{Cmd: CmdTrim, Flags: flags, Off: off, Len: n})
	return err
}

// Zero makes n bytes at off zero.
func (c *Client) Zero(off, n uint64, flags uint16) error {
	_, err := c.Do(Request{Cmd: CmdWriteZeroes, Flags: flags, Off: off, Len: n})
	return err
}

// Cache asks the server to bring n bytes at off nearer.
func (c *Client) Cache(off, n uint64) error {
	_, err := c.Do(Request{Cmd: CmdCache, Off: off, Len: n})
	return err
}

// Status returns the block status of n bytes from off.
func (c *Client) Status(off, n uint64, flags uint16) ([]Extent, error) {
	r, err := c.Do(Request{Cmd: CmdBlockStatus, Flags: flags, Off: off, Len: n})
	return r.Extents, err
}

// Disconnect says goodbye; the server must close without another word.
func (c *Client) Disconnect() error {
	if err := c.Send(Request{Cmd: CmdDisc}); err != nil {
		return err
	}
	return c.Ended()
}

// Close closes the socket.
func (c *Client) Close() error { return c.Conn.Close() }
