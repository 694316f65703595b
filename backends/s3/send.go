package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/http"

	"github.com/minio/minio-go/v7"
)

// A payload is the bytes of one request, with the digests that the server
// will check them by.
type payload struct {
	blocks [][]byte
	size   int64
	sha256 string // hexadecimal: part of the signature over plain HTTP
	md5    string // base64
	crc32c string // base64
}

// checksumHeader is where S3 wants the CRC32C.
const checksumHeader = "X-Amz-Checksum-Crc32c"

// payload computes the digests. Over plain HTTP the SHA-256 is part of what is
// signed, so that nobody on the way can change a byte. CRC32C costs next to
// nothing, and servers keep it with the object. MD5, the slowest by far, is
// left to servers that check neither.
func (s *Store) payload(blocks [][]byte) payload {
	p := payload{blocks: blocks}
	crc, sum, old := uint32(0), sha256.New(), md5.New()
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	signed := s.endpoint.Scheme == "http"
	useMD5 := s.can.md5 && !s.can.crc32c && !(signed && s.can.sha256)
	for _, b := range blocks {
		p.size += int64(len(b))
		if s.can.crc32c {
			crc = crc32.Update(crc, castagnoli, b)
		}
		if signed {
			sum.Write(b)
		}
		if useMD5 {
			old.Write(b)
		}
	}
	if s.can.crc32c {
		p.crc32c = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
	}
	if signed {
		p.sha256 = hex.EncodeToString(sum.Sum(nil))
	}
	if useMD5 {
		p.md5 = base64.StdEncoding.EncodeToString(old.Sum(nil))
	}
	return p
}

// A tally is a reader of the bytes that knows when it was read to its end.
type tally struct {
	r    io.Reader
	left int64
}

func (p payload) open() *tally {
	readers := make([]io.Reader, len(p.blocks))
	for i, b := range p.blocks {
		readers[i] = bytes.NewReader(b)
	}
	return &tally{r: io.MultiReader(readers...), left: p.size}
}

func (t *tally) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.left -= int64(n)
	return n, err
}

// send starts the multipart upload if need be and sends the part that is full
// on a goroutine of its own.
func (w *writer) send() error {
	if w.upload == "" {
		if err := w.begin(w.checksums()); err != nil {
			return err
		}
	}
	w.number++
	number, blocks := w.number, w.part
	w.part = nil
	w.mu.Lock()
	w.flying++
	w.mu.Unlock()
	w.going.Go(func() {
		done, clean, err := w.store.putPart(w.ctx, w.name, w.upload, number, blocks)
		if err != nil {
			w.cancel(fmt.Errorf("part %d: %w", number, err))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil {
			w.sent = append(w.sent, done)
		}
		if clean { // else a connection may still be reading them
			for _, b := range blocks {
				w.free = append(w.free, b[:0])
			}
		}
		w.flying--
		w.blocks -= len(blocks)
		w.change.Broadcast()
	})
	return nil
}

// checksums returns the algorithm of the parts' checksums, or "".
func (w *writer) checksums() string {
	if w.store.can.crc32c {
		return "CRC32C"
	}
	return ""
}

// begin starts the multipart upload.
func (w *writer) begin(checksums string) error {
	opts := w.store.options(w.id)
	if checksums != "" {
		opts.UserMetadata["X-Amz-Checksum-Algorithm"] = checksums
	}
	tries := 0
	err := w.store.again(w.ctx, w.store.writing(), "begin an upload of "+w.name, func(ctx context.Context) (err error) {
		tries++
		w.upload, err = w.store.core.NewMultipartUpload(ctx, w.store.cfg.Bucket, w.name, opts)
		return err
	})
	w.stray = tries > 1 || err != nil
	if err == nil && w.upload == "" {
		err = errors.New("the server gave no id to the upload")
	}
	return w.store.explain(err)
}

// options returns what is said of every object: nothing but the upload's id,
// so that it looks like one of Glance.
func (s *Store) options(id string) minio.PutObjectOptions {
	return minio.PutObjectOptions{
		UserMetadata:         map[string]string{uploadKey: id},
		DisableContentSha256: true, // no aws-chunked body; the SHA-256 is given beforehand
	}
}

// putPart sends one part. Clean says that the blocks were read once, to the
// end, so that no connection can still be reading them.
func (s *Store) putPart(ctx context.Context, name, upload string, number int, blocks [][]byte) (done minio.CompletePart, clean bool, err error) {
	p := s.payload(blocks)
	opts := minio.PutObjectPartOptions{Md5Base64: p.md5, Sha256Hex: p.sha256, DisableContentSha256: true}
	tries := 0
	err = s.again(ctx, s.writing(), fmt.Sprintf("send part %d of %s", number, name), func(ctx context.Context) error {
		opts.CustomHeader = make(http.Header)
		if p.crc32c != "" {
			opts.CustomHeader.Set(checksumHeader, p.crc32c)
		}
		body := p.open()
		part, err := s.core.PutObjectPart(ctx, s.cfg.Bucket, name, upload, number, body, p.size, opts)
		tries++
		clean = err == nil && tries == 1 && body.left == 0
		done = minio.CompletePart{PartNumber: number, ETag: part.ETag, ChecksumCRC32C: p.crc32c}
		return err
	})
	return done, clean, s.explain(err)
}

// putWhole sends a small object in one piece.
func (w *writer) putWhole(ctx context.Context) error {
	s := w.store
	p := s.payload(w.part)
	var etag string
	clean := true
	w.doubt = true
	err := s.again(ctx, s.writing(), "send "+w.name, func(ctx context.Context) error {
		opts := s.options(w.id)
		if err := w.unlessTaken(ctx, &opts, s.can.putNone); err != nil {
			return err
		}
		if p.crc32c != "" {
			opts.UserMetadata[checksumHeader] = p.crc32c
		}
		body := p.open()
		info, err := s.core.PutObject(ctx, s.cfg.Bucket, w.name, body, p.size, p.md5, p.sha256, opts)
		etag, clean = info.ETag, clean && err == nil && body.left == 0
		return err
	})
	if !clean {
		w.part = nil // a connection may still be reading it
	}
	if err == nil && (p.crc32c != "" || p.md5 != "" || p.sha256 != "" && s.can.sha256) {
		return nil // the server has compared the bytes with a digest of ours
	}
	return w.settle(ctx, etag, err)
}

// complete assembles the parts.
func (w *writer) complete(ctx context.Context) error {
	s := w.store
	parts := w.inOrder()
	var etag string
	w.doubt = true
	err := s.again(ctx, s.writing(), "assemble "+w.name, func(ctx context.Context) error {
		var opts minio.PutObjectOptions
		if err := w.unlessTaken(ctx, &opts, s.can.completeNone); err != nil {
			return err
		}
		info, err := s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, w.name, w.upload, parts, opts)
		etag = info.ETag
		return err
	})
	if err := w.settle(ctx, etag, err); err != nil {
		return err
	}
	if w.stray && s.can.listUploads {
		if err := s.abortAll(ctx, w.name); err != nil {
			s.cfg.Logger.WarnContext(ctx, "s3: an upload whose start was not heard of may be left in the bucket until its key is deleted",
				"bucket", s.cfg.Bucket, "name", w.name, "error", err)
		}
	}
	return nil
}

// unlessTaken makes a request fail if there is an object, be it one of an
// earlier try: by a condition if the server honours it, else by looking now.
func (w *writer) unlessTaken(ctx context.Context, opts *minio.PutObjectOptions, honoured bool) error {
	if honoured {
		opts.SetMatchETagExcept("*")
		return nil
	}
	switch _, err := w.store.head(ctx, w.store.reading(), w.name); {
	case err == nil:
		return errOccupied
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

// settle finds out what became of the request that should have made the
// object: err is what it came back with, and etag what the server called the
// object. An answer that was lost, or one that says that there is an object or
// that the upload is gone, can follow a request that did its work, so what
// counts is what is there.
func (w *writer) settle(ctx context.Context, etag string, err error) error {
	if err != nil && !refused(err) && codeOf(err) != minio.NoSuchUpload && statusOf(err) != http.StatusNotFound && !passing(err) {
		w.doubt = statusOf(err) == 0
		return w.conflict(err)
	}
	st, lost := w.result(ctx, err == nil)
	switch {
	case errors.Is(lost, errNotYet):
		return fmt.Errorf("%w: %w", lost, io.ErrUnexpectedEOF)
	case errors.Is(lost, fs.ErrNotExist):
		return w.conflict(err)
	case lost != nil && err == nil:
		return fmt.Errorf("the object cannot be looked at: %w", lost)
	case lost != nil:
		return w.conflict(err)
	case !w.ours(st, etag):
		w.doubt = false
		return taken()
	case st.size != w.off || etag != "" && st.etag != etag:
		return fmt.Errorf("the object has %d bytes and ETag %s, want %d and %s: %w", st.size, st.etag, w.off, etag, io.ErrUnexpectedEOF)
	}
	return nil
}

// errNotYet is an object that the server says it made.
var errNotYet = errors.New("the server says that it made the object, and that there is none")

// result looks at what is there. One that was promised gets time to appear:
// versitygw, asked a second time to assemble an object, says at once that it
// did, be the first time still going on, or ended by a kill.
func (w *writer) result(ctx context.Context, promised bool) (st state, err error) {
	if !promised {
		return w.store.head(ctx, w.store.reading(), w.name)
	}
	err = w.store.again(ctx, w.store.writing(), "find "+w.name, func(ctx context.Context) (err error) {
		st, err = w.store.head(ctx, w.store.reading(), w.name)
		if errors.Is(err, fs.ErrNotExist) {
			return errNotYet
		}
		return err
	})
	return st, err
}

// ours says whether what is there is of this upload. On a server that keeps no
// metadata only the ETag of the answer can tell.
func (w *writer) ours(st state, etag string) bool {
	if w.store.can.metadata {
		return st.upload == w.id
	}
	return etag != "" && st.etag == etag
}

// conflict explains an error; versitygw refuses a key beneath another object,
// or above others, since its objects are files and folders.
func (w *writer) conflict(err error) error {
	switch codeOf(err) {
	case "ObjectParentIsFile", "ExistingObjectIsDirectory":
		return fmt.Errorf("a part of the key is an object, or the key a part of others': %w: %w", fs.ErrExist, err)
	}
	return w.store.explain(err)
}
