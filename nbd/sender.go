package nbd

import (
	"net"
	"slices"
	"sync"
)

// maxQueued is how much memory may be on its way to a client, beside that of
// large replies, before its requests wait.
const maxQueued = 1 << 20

// A sender writes replies to the socket, in the order they come. Whoever
// brings a reply while nobody writes becomes the writer, for what others
// bring meanwhile too, so replies gather while the socket is slow and no
// goroutine is needed for them.
type sender struct {
	conn *conn

	mu     sync.Mutex
	idle   sync.Cond // busy has become false, or queued smaller
	queue  []*buffer
	spare  []*buffer // the queue's other half
	queued int       // memory on its way that is not counted as in flight
	busy   bool
	err    error

	vec    net.Buffers // the writer's, as the next
	kernel kernelSender
}

// send takes b over. After an error it drops it: the connection is ending.
func (s *sender) send(b *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		b.release()
		return
	}
	s.queue = append(s.queue, b)
	s.queued += b.uncounted()
	if s.busy {
		return
	}
	s.busy = true
	for len(s.queue) > 0 {
		s.drain()
	}
	s.busy = false
	s.idle.Broadcast()
}

// drain writes what is queued. The caller holds s.mu, which is let go
// meanwhile.
func (s *sender) drain() {
	batch, err := s.queue, s.err
	s.queue = s.spare[:0]
	s.mu.Unlock()
	sum := 0
	for _, b := range batch {
		sum += b.uncounted()
	}
	if err == nil {
		err = s.write(batch)
	}
	for i, b := range batch {
		b.release()
		batch[i] = nil
	}
	s.mu.Lock()
	s.spare = batch
	s.queued -= sum
	if err != nil && s.err == nil {
		s.err = err
		s.conn.cut(err)
	}
	s.idle.Broadcast()
}

// write writes all of batch, with few calls where the system can.
func (s *sender) write(batch []*buffer) error {
	defer s.conn.unread.Store(0)
	for len(batch) > 0 {
		n := slices.IndexFunc(batch, (*buffer).isPlaced)
		if n < 0 {
			n = len(batch)
		}
		var err error
		if n == 0 {
			n, err = 1, s.writePlaced(batch[0])
		} else {
			err = s.writeAll(batch[:n])
		}
		if err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// writeAll writes buffers that hold all of their bytes.
func (s *sender) writeAll(batch []*buffer) error {
	rest := batch[0].data
	for k := 0; k < len(batch); {
		s.conn.unread.Store(s.conn.s.clock())
		vec := s.vec[:0]
		for room := progress + headRoom; room > 0 && k < len(batch); {
			n := min(len(rest), room)
			vec = append(vec, rest[:n])
			room -= n
			if rest = rest[n:]; len(rest) > 0 {
				break
			}
			if k++; k < len(batch) {
				rest = batch[k].data
			}
		}
		if err := s.writeVec(vec); err != nil {
			return err
		}
	}
	return nil
}

// writeVec writes the parts of vec.
func (s *sender) writeVec(vec net.Buffers) error {
	if t := s.conn.secure; t != nil {
		err := t.write(vec)
		clear(vec)
		s.vec = vec[:0]
		return err
	}
	if len(vec) == 1 {
		_, err := s.conn.nc.Write(vec[0])
		vec[0] = nil
		s.vec = vec[:0]
		return err
	}
	s.vec = vec
	_, err := s.vec.WriteTo(s.conn.nc)
	s.vec = vec[:0] // WriteTo eats its slice; this is where it began
	return err
}

// wait waits until little memory is on its way, so that a client which does
// not read makes us stop reading. It returns the error that ended sending.
func (s *sender) wait() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queued > maxQueued && s.err == nil {
		s.idle.Wait()
	}
	return s.err
}

// settle waits until everything is sent and returns the error that ended
// sending, if any.
func (s *sender) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy {
		s.idle.Wait()
	}
	return s.err
}
