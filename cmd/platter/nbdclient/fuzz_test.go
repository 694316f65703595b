package nbdclient

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// FuzzServer says anything at all to a client, first in the handshake and then
// in answer to a read: neither may do more than fail.
func FuzzServer(f *testing.F) {
	hello := "NBDMAGICIHAVEOPT\x00\x03"
	ack := "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"
	size := "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01"
	f.Add([]byte(hello + size + ack + "\x67\x44\x66\x98\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + string(make([]byte, 512))))
	f.Add([]byte(hello + size + ack + "\x67\x44\x66\x98\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte(hello + ack))
	f.Add([]byte(hello + "\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x80\x00\x00\x06\x00\x00\x00\x03abc"))
	f.Fuzz(func(t *testing.T, says []byte) {
		c := &Conn{nc: &script{Reader: bytes.NewReader(says)}}
		if err := c.negotiate(Target{Export: "x"}, nil); err != nil {
			return
		}
		if c.size < 0 {
			t.Errorf("size %d", c.size)
		}
		p := make([]byte, min(512, c.size))
		first := c.ReadAt(t.Context(), p, 0)
		if second := c.ReadAt(t.Context(), p, 0); c.broken != nil && first != nil && second == nil {
			t.Errorf("after %v a read works", first)
		}
	})
}

// A script is a connection to somebody who has said all they will say.
type script struct {
	net.Conn // nil: nothing else is called without a deadline
	io.Reader
}

func (s *script) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *script) Write(p []byte) (int, error) { return len(p), nil }
