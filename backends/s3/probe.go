package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/backends"
)

// Abilities are what the server was seen to do.
type abilities struct {
	putNone, putMatch, completeNone bool // conditions that hold on writes
	sha256, crc32c, md5             bool // refuses bytes with a wrong digest
	getMatch                        bool
	copy, copyPart                  bool
	metadata                        bool // keeps x-amz-meta-...
	listUploads                     bool
	told                            []backends.Capability
}

// Capabilities returns what the server was seen to do when it was opened.
func (s *Store) Capabilities() []backends.Capability { return slices.Clone(s.can.told) }

const (
	// scratchName begins the names of the objects that are there for the
	// moment of a probe.
	scratchName = "platter-probe-"
	scratchText = "Platter tries what this server can do. This object can be deleted.\n"

	// tidyWithin is how long the deletion of scratch objects may take.
	tidyWithin = 30 * time.Second
)

// A prober tries one ability after the other on a scratch object, whose bytes
// are always scratchText.
type prober struct {
	s    *Store
	name string
	etag string
	can  abilities
}

// probe finds out what the server does. What a store cannot do without, to
// put, get a range and delete, is an error if it fails.
func (s *Store) probe(ctx context.Context) (can abilities, err error) {
	p := &prober{s: s, name: s.name(scratchName + strings.ToLower(rand.Text()))}
	if err := p.list(ctx); err != nil {
		return abilities{}, err
	}
	if err := p.put(ctx, nil); err != nil {
		return abilities{}, s.explain(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWithin)
		defer cancel()
		if left := p.tidy(ctx); left != nil && err == nil {
			err = fmt.Errorf("delete the scratch object %s: %w", p.name, left)
		}
	}()
	if err := p.look(ctx); err != nil {
		return abilities{}, err
	}
	p.writes(ctx)
	p.digests(ctx)
	if err := p.reads(ctx); err != nil {
		return abilities{}, err
	}
	p.parts(ctx)
	p.copies(ctx)
	return p.can, ctx.Err()
}

// tell records the outcome of one trial.
func (p *prober) tell(can *bool, name string, ok bool, detail string) {
	*can = ok
	if ok {
		detail = ""
	}
	p.can.told = append(p.can.told, backends.Capability{Name: name, OK: ok, Detail: detail})
}

// list asks the first question: it has no body, so that whoever answers can
// say all that is wrong. Only not to be allowed to ask it is bearable.
func (p *prober) list(ctx context.Context) error {
	err := p.s.again(ctx, p.s.reading(), "reach the bucket", func(ctx context.Context) error {
		_, err := p.s.core.ListMultipartUploads(ctx, p.s.cfg.Bucket, p.name, "", "", "", 10)
		return err
	})
	if _, answered := response(err); err != nil && (!answered || statusOf(err) == http.StatusBadRequest) {
		return p.s.explain(err)
	}
	p.tell(&p.can.listUploads, "list uploads", err == nil, did(err))
	return nil
}

// put writes the scratch object; change, unless nil, adds a header or spoils a
// digest.
// What the server refuses is the outcome and not tried again.
func (p *prober) put(ctx context.Context, change func(opts *minio.PutObjectOptions, md5, sha256 *string)) (outcome error) {
	err := p.s.again(ctx, p.s.reading(), "try what the server can do", func(ctx context.Context) error {
		opts, old, sum := p.s.options(p.name), "", hexSum(scratchText)
		if p.s.endpoint.Scheme != "http" {
			sum = ""
		}
		if change != nil {
			change(&opts, &old, &sum)
		}
		_, err := p.s.core.PutObject(ctx, p.s.cfg.Bucket, p.name, strings.NewReader(scratchText), int64(len(scratchText)), old, sum, opts)
		if denied(err) {
			outcome, err = err, nil
		}
		return err
	})
	if outcome != nil {
		return outcome
	}
	return err
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// look finds the object and whether it has kept its metadata.
func (p *prober) look(ctx context.Context) error {
	st, err := p.s.head(ctx, p.s.reading(), p.name)
	if err != nil {
		return err
	}
	p.etag = st.etag
	p.tell(&p.can.metadata, "user metadata", st.upload == p.name, "the server does not keep it")
	return nil
}

// did tells what came of something that should have been refused.
func did(err error) string {
	if err == nil {
		return "ignored: the request was carried out"
	}
	if r, ok := response(err); ok {
		return fmt.Sprintf("answered %d %s", r.StatusCode, said(r))
	}
	return err.Error()
}

func (p *prober) writes(ctx context.Context) {
	err := p.put(ctx, func(opts *minio.PutObjectOptions, _, _ *string) { opts.SetMatchETagExcept("*") })
	p.tell(&p.can.putNone, "if-none-match on put", refused(err), did(err))

	err = p.put(ctx, func(opts *minio.PutObjectOptions, _, _ *string) { opts.SetMatchETag(strings.Repeat("0", 32)) })
	ok, detail := refused(err), did(err)
	if ok {
		err = p.put(ctx, func(opts *minio.PutObjectOptions, _, _ *string) { opts.SetMatchETag(p.etag) })
		ok, detail = err == nil, "refuses the right ETag as well"
	}
	p.tell(&p.can.putMatch, "if-match on put", ok, detail)
}

// digests spoils each digest. A right one must be taken.
func (p *prober) digests(ctx context.Context) {
	wrong := "of these bytes, not of those"
	wrongMD5 := md5.Sum([]byte(wrong))
	if p.s.endpoint.Scheme == "http" { // the others were taken already
		err := p.put(ctx, func(_ *minio.PutObjectOptions, _, sum *string) { *sum = hexSum(wrong) })
		p.tell(&p.can.sha256, "sha-256 in the signature", denied(err), did(err))
	}
	for _, d := range []struct {
		can         *bool
		name        string
		wrong, fine func(opts *minio.PutObjectOptions, md5, sha256 *string)
	}{
		{&p.can.crc32c, "crc32c",
			func(o *minio.PutObjectOptions, _, _ *string) { o.UserMetadata[checksumHeader] = crc32cOf(wrong) },
			func(o *minio.PutObjectOptions, _, _ *string) { o.UserMetadata[checksumHeader] = crc32cOf(scratchText) }},
		{&p.can.md5, "content-md5",
			func(_ *minio.PutObjectOptions, old, _ *string) { *old = base64.StdEncoding.EncodeToString(wrongMD5[:]) },
			func(_ *minio.PutObjectOptions, old, _ *string) {
				sum := md5.Sum([]byte(scratchText))
				*old = base64.StdEncoding.EncodeToString(sum[:])
			}},
	} {
		err := p.put(ctx, d.wrong)
		ok, detail := denied(err), did(err)
		if ok {
			err = p.put(ctx, d.fine)
			ok, detail = err == nil, "refuses the right one as well: "+did(err)
		}
		p.tell(d.can, d.name, ok, detail)
	}
}

func crc32cOf(text string) string {
	return minio.ChecksumCRC32C.EncodeToString([]byte(text))
}

// denied says that the server found a request to be wrong.
func denied(err error) bool {
	s := statusOf(err)
	return s >= 400 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
}

// reads tries the reading of a range, which there is no store without.
func (p *prober) reads(ctx context.Context) error {
	st, err := p.s.head(ctx, p.s.reading(), p.name) // the writes may have changed the ETag
	if err != nil {
		return err
	}
	p.etag = st.etag
	o := &object{store: p.s, name: p.name, state: st}
	got, want := make([]byte, 20), []byte(scratchText[8:28])
	if err := o.read(ctx, got, 8); err != nil {
		return fmt.Errorf("ranges of objects cannot be read, which images need: %w", err)
	}
	ok := bytes.Equal(got, want)
	p.tell(&ok, "range on get", ok, "")
	if !ok {
		return errors.New("a range of an object has other bytes than were written")
	}
	o.state.etag = strings.Repeat("0", 32)
	_, err = o.get(ctx, got, 8)
	// The reader compares the ETag as well, and is then not refused.
	p.tell(&p.can.getMatch, "if-match on get", statusOf(err) == http.StatusPreconditionFailed, "ignored: the object was sent")
	return nil
}

// parts tries a multipart upload over the scratch object that is there.
func (p *prober) parts(ctx context.Context) {
	s := p.s
	err := p.assemble(ctx, p.name, func(id string) (minio.CompletePart, error) {
		done, _, err := s.putPart(ctx, p.name, id, 1, [][]byte{[]byte(scratchText)})
		return done, err
	}, func(opts *minio.PutObjectOptions) { opts.SetMatchETagExcept("*") })
	p.tell(&p.can.completeNone, "if-none-match on complete", refused(err), did(err))
}

// assemble makes an object of one part.
func (p *prober) assemble(ctx context.Context, name string, part func(id string) (minio.CompletePart, error), change func(*minio.PutObjectOptions)) error {
	s := p.s
	id, err := s.core.NewMultipartUpload(ctx, s.cfg.Bucket, name, s.options(p.name))
	if err != nil {
		return err
	}
	done, err := part(id)
	var opts minio.PutObjectOptions
	change(&opts)
	if err == nil {
		_, err = s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, name, id, []minio.CompletePart{done}, opts)
	}
	if err != nil {
		// The error is the outcome; what is left is freed here or by tidy.
		_ = s.abort(ctx, name, id)
	}
	return err
}

// copies tries the copies inside the server, and looks at what came of them.
func (p *prober) copies(ctx context.Context) {
	s, to := p.s, p.name+".copy"
	src := minio.CopySrcOptions{Bucket: s.cfg.Bucket, Object: p.name}
	_, err := s.core.Client.CopyObject(ctx, minio.CopyDestOptions{Bucket: s.cfg.Bucket, Object: to}, src)
	if err == nil {
		err = p.same(ctx, to)
	}
	p.tell(&p.can.copy, "copy", err == nil, did(err))
	// A copy must not be taken for that of the trial before.
	if err := s.remove(ctx, to); err != nil {
		p.tell(&p.can.copyPart, "copy of a part", false, did(err))
		return
	}
	err = p.assemble(ctx, to, func(id string) (minio.CompletePart, error) {
		return s.core.CopyObjectPart(ctx, s.cfg.Bucket, p.name, s.cfg.Bucket, to, id, 1, 0, int64(len(scratchText)), nil)
	}, func(*minio.PutObjectOptions) {})
	if err == nil {
		err = p.same(ctx, to)
	}
	p.tell(&p.can.copyPart, "copy of a part", err == nil, did(err))
}

// same returns an error unless an object holds scratchText.
func (p *prober) same(ctx context.Context, name string) error {
	st, err := p.s.head(ctx, p.s.reading(), name)
	if err != nil {
		return err
	}
	got := make([]byte, len(scratchText))
	if st.size != int64(len(got)) {
		return fmt.Errorf("made an object of %d bytes", st.size)
	}
	o := &object{store: p.s, name: name, state: st}
	if err := o.read(ctx, got, 0); err != nil {
		return err
	}
	if string(got) != scratchText {
		return errors.New("made an object of other bytes")
	}
	return nil
}

// tidy deletes what the trials made.
func (p *prober) tidy(ctx context.Context) error {
	copied := p.name + ".copy"
	err := errors.Join(p.s.remove(ctx, p.name), p.s.remove(ctx, copied))
	if p.can.listUploads {
		err = errors.Join(err, p.s.abortAll(ctx, p.name), p.s.abortAll(ctx, copied))
	}
	return err
}
