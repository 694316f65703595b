package journal

import (
	"fmt"
	"io"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// window is how much is read at once, unless a record is larger.
const window = 1 << 20

// A scanner reads the records of one file, one after the other.
type scanner struct {
	f     localfs.File
	salt  []byte
	base  int64 // the position where the file starts
	limit int64 // where it ends, or where what counts of it does
	at    int64 // where the record before ends

	buf   []byte
	bufAt int64 // the position of buf
}

func (j *Journal) scanner(f *file, from, limit int64) *scanner {
	base := f.head.seq * j.state.fileSize
	return &scanner{
		f: f.f, salt: f.head.salt[:], base: base,
		limit: min(limit, base+j.state.fileSize), at: from,
	}
}

// next returns the next record, whose Data is valid until the next call. false
// is that there is none: nothing, or something that does not hold together. An
// error is one of the disk.
func (s *scanner) next() (Record, recHeader, bool, error) {
	h, ok, err := s.header(s.at)
	if at := alignUp(s.at, pageSize); !ok && err == nil && at > s.at {
		// A Sync ended the page.
		h, ok, err = s.header(at)
	}
	if !ok || err != nil || h.prev != s.at {
		return Record{}, h, false, err
	}
	data, err := s.bytes(h.at+recHead, int64(h.size))
	if err != nil || dataSum(data) != h.sum {
		return Record{}, h, false, err
	}
	s.at = h.next()
	return h.record(data), h, true, nil
}

// header returns the header of a record at position at, if there is one.
func (s *scanner) header(at int64) (recHeader, bool, error) {
	if at+recHead > s.limit {
		return recHeader{}, false, nil
	}
	p, err := s.bytes(at, recHead)
	if err != nil {
		return recHeader{}, false, err
	}
	h, ok := decodeRecHeader(p, s.salt)
	return h, ok && h.at == at && h.next() <= s.limit, nil
}

// bytes returns the n bytes at position pos, which are before s.limit. What is
// behind the end of the file is zeros.
func (s *scanner) bytes(pos, n int64) ([]byte, error) {
	if pos < s.bufAt || pos+n > s.bufAt+int64(len(s.buf)) {
		size := min(max(n, window), s.base+(s.limit-s.base)-pos)
		if int64(cap(s.buf)) < size {
			s.buf = make([]byte, size)
		}
		s.buf, s.bufAt = s.buf[:size], pos
		if err := readFull(s.f, s.buf, pos-s.base); err != nil {
			s.buf = s.buf[:0]
			return nil, err
		}
	}
	return s.buf[pos-s.bufAt:][:n], nil
}

// lost looks in the rest of the file, behind where its records end, for one
// that tells how much was on stable storage when it was written. More than was
// found is proof that what ends the records is no loss of power.
func (s *scanner) lost() (synced int64, err error) {
	for at := alignUp(s.at, pageSize); at+recHead <= s.limit; {
		h, ok, err := s.header(at)
		if err != nil {
			return 0, err
		}
		if !ok {
			at = alignUp(at+1, pageSize)
			continue
		}
		synced = max(synced, h.synced)
		at = h.next()
	}
	return synced, nil
}

// readHead reads the header of the file named for seq. false is that it has
// none.
func (j *Journal) readHead(f localfs.File, seq int64) (fileHead, bool, error) {
	p := make([]byte, sectorSize)
	if err := readFull(f, p, 0); err != nil {
		return fileHead{}, false, fmt.Errorf("journal %s: read a file's header: %w", j.cfg.Dir, err)
	}
	h, ok := decodeFileHead(p, j.state)
	return h, ok && h.seq == seq, nil
}

// readFull reads p at off. What is behind the end of the file is zeros.
func readFull(f localfs.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if err == io.EOF {
		clear(p[n:])
		err = nil
	}
	return err
}
