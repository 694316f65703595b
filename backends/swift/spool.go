package swift

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// spoolMemory is how much of a segment is kept in memory. What is longer goes
// to a file.
const spoolMemory = 8 << 20

// A spool holds the bytes of one request until the server has them, so that
// they can be sent again, and so that their digest can go before them. It is
// written first and read afterwards.
type spool struct {
	dir   string
	guard localfs.Guard
	mem   []byte
	file  *os.File // nameless; nil while all fits into mem
	size  int64
	sum   hash.Hash
}

func newSpool(dir string, guard localfs.Guard) *spool {
	return &spool{dir: dir, guard: guard, sum: md5.New()}
}

// spoolOf returns a spool that holds p.
func spoolOf(p []byte) *spool {
	s := newSpool("", nil)
	s.mem, s.size = p, int64(len(p))
	s.sum.Write(p)
	return s
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.size+int64(len(p)) > spoolMemory {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	if s.file == nil {
		s.mem = append(s.mem, p...)
	} else if err := s.put(p); err != nil {
		return 0, err
	}
	s.size += int64(len(p))
	s.sum.Write(p)
	return len(p), nil
}

// spill moves the bytes from memory to a file.
func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "platter-segment-*")
	if err != nil {
		return fmt.Errorf("keep a segment until it is sent: %w", err)
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil { // it goes with the last that has it open
		return fmt.Errorf("keep a segment until it is sent: %w", err)
	}
	mem := s.mem
	s.mem, s.size = nil, 0
	err = s.put(mem)
	s.size = int64(len(mem))
	return err
}

func (s *spool) put(p []byte) error {
	if s.guard != nil {
		if err := s.guard.Take(int64(len(p))); err != nil {
			return fmt.Errorf("keep a segment until it is sent: %w", err)
		}
	}
	if _, err := s.file.WriteAt(p, s.size); err != nil {
		return fmt.Errorf("keep a segment until it is sent: %w", err)
	}
	return nil
}

// open returns a reader of all bytes. There may be several at once.
func (s *spool) open() io.ReadCloser {
	if s.file == nil {
		return io.NopCloser(bytes.NewReader(s.mem))
	}
	return io.NopCloser(io.NewSectionReader(s.file, 0, s.size))
}

// md5 returns the digest in hexadecimal digits.
func (s *spool) md5() string { return hex.EncodeToString(s.sum.Sum(nil)) }

// close frees the bytes. Requests that still read get an error at most.
func (s *spool) close() {
	if s.file != nil {
		// There is nothing in it that anybody still wants.
		_ = s.file.Close()
	}
}
