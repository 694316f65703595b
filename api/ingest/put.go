package ingest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/catalog"
)

const (
	// cleanupTime bounds what is done after a failure, when the client's
	// own context is over. What does not fit is left to Sweep.
	cleanupTime = 20 * time.Second

	// aliveEvery is how often an upload looks whether its image still exists.
	aliveEvery = time.Second

	// finishTries is how often the catalog is asked to make the image active
	// while it is away.
	finishTries = 5
)

// An upload is one attempt to give an image its bytes.
type upload struct {
	in        *Ingest
	img       catalog.Image
	rec       catalog.Upload
	store     backends.Store
	announced int64 // or -1
	inspector *format.Inspector
	checksum  hash.Hash
	strong    hash.Hash
	looked    time.Time
	seen      int64
}

// Put reads body to its end and makes it the data of the image id, which must
// be queued and is active afterwards. size is the number of bytes, or -1 if
// nobody knows; store may be "" for the default. After an error the image is
// queued again and no byte of body is kept.
func (in *Ingest) Put(ctx context.Context, id string, body io.Reader, size int64, store string) error {
	return in.bring(ctx, id, body, size, store, false)
}

// bring is Put, or Fill if it is a copy.
func (in *Ingest) bring(ctx context.Context, id string, body io.Reader, size int64, store string, isCopy bool) (err error) {
	u, err := in.prepare(ctx, id, size, store)
	if err != nil {
		return err
	}
	u.rec.Copy = isCopy
	in.begun(u.rec.ID)
	defer in.over(u.rec.ID)
	defer func() { in.observe(u, err) }()
	if err = u.begin(ctx); err == nil {
		err = u.run(ctx, body)
	}
	if err != nil {
		return u.fail(ctx, err)
	}
	return nil
}

// prepare checks everything that can be known before the first byte.
func (in *Ingest) prepare(ctx context.Context, id string, size int64, store string) (*upload, error) {
	if store == "" {
		store = in.cfg.DefaultStore
	}
	s := in.cfg.Stores[store]
	if s == nil {
		return nil, fmt.Errorf("store %.64q: %w; name one of: %s", store, ErrStore, in.cfg.names())
	}
	if err := in.checkSize(size); err != nil {
		return nil, err
	}
	img, err := in.cfg.Catalog.Image(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := checkFormats(img); err != nil {
		return nil, err
	}
	strong, err := newHash(in.cfg.HashAlgo)
	if err != nil {
		return nil, err
	}
	return &upload{
		in: in, img: img, store: s, announced: size,
		checksum: newChecksum(), strong: strong, looked: in.cfg.Now(),
		rec: catalog.Upload{ID: uuid.NewString(), Image: id, Gateway: in.cfg.GatewayID, Store: store, StartedAt: in.cfg.Now()},
	}, nil
}

// begin takes the image for this attempt and chooses the key: the image's id
// the first time, as Glance does. In a store that is shared with others that
// name may be somebody else's; whoever gives this attempt up removes what the
// record names, so such a key must not even be in the record.
func (u *upload) begin(ctx context.Context) (err error) {
	if u.img.Attempts == 0 {
		if r, err := u.store.Open(ctx, catalog.UploadKey(u.img.ID, u.rec.ID, 1)); err == nil {
			r.Close()
			u.rec.Key = u.ownKey()
		}
	}
	begin := u.in.cfg.Catalog.BeginUpload
	if u.rec.Copy {
		begin = u.in.cfg.Catalog.BeginCopy
	}
	if u.img, err = begin(ctx, u.rec); err == nil {
		u.named()
	}
	return err
}

// named fills in the key that the catalog has given to this attempt.
func (u *upload) named() {
	if u.rec.Key == "" {
		u.rec.Key = catalog.UploadKey(u.img.ID, u.rec.ID, u.img.Attempts)
	}
}

// ownKey is a key that nobody else can have.
func (u *upload) ownKey() string { return catalog.UploadKey(u.rec.Image, u.rec.ID, 2) }

// move gives this attempt a key of its own, after the first one turned out to
// be somebody else's, whose object stays as it is.
func (u *upload) move(ctx context.Context) error {
	u.in.log.WarnContext(ctx, "an object that is not ours has the name of an image; the image gets another",
		"store", u.rec.Store, "key", u.rec.Key, "instead", u.ownKey())
	if err := u.in.cfg.Catalog.MoveUpload(ctx, u.rec, u.ownKey()); err != nil {
		return err
	}
	u.rec.Key = u.ownKey()
	return nil
}

// create begins the object, under another key if the first is taken.
func (u *upload) create(ctx context.Context) (backends.Writer, error) {
	w, err := u.store.Create(ctx, u.rec.Key, u.announced)
	if errors.Is(err, fs.ErrExist) && u.rec.Key != u.ownKey() {
		if err := u.move(ctx); err != nil {
			return nil, err
		}
		w, err = u.store.Create(ctx, u.rec.Key, u.announced)
	}
	if err != nil {
		return nil, storeError(u.rec.Store, err)
	}
	return w, nil
}

// commit makes the object durable. One of the same name that came meanwhile is
// not ours: it must not be removed with this attempt.
func (u *upload) commit(ctx context.Context, w backends.Writer) error {
	err := w.Commit(ctx)
	if err == nil {
		return nil
	}
	err = storeError(u.rec.Store, fmt.Errorf("commit: %w", err))
	if errors.Is(err, fs.ErrExist) && u.rec.Key != u.ownKey() {
		err = errors.Join(err, u.move(context.WithoutCancel(ctx)))
	}
	return err
}

func checkFormats(img catalog.Image) error {
	if img.DiskFormat == "" || img.ContainerFormat == "" {
		return fmt.Errorf("image %s: %w", img.ID, ErrFormatsUnset)
	}
	return nil
}

// watch begins to inspect for the formats that the image has now: until
// BeginUpload anybody could change them, and from then on nobody can.
func (u *upload) watch() error {
	u.inspector = format.NewInspector(format.InspectorConfig{
		Declared: u.img.DiskFormat, Container: u.img.ContainerFormat,
		RequireMatch: *u.in.cfg.RequireFormatMatch, Strict: u.in.cfg.Strict,
	})
	return checkFormats(u.img)
}

func (in *Ingest) checkSize(n int64) error {
	if in.cfg.SizeCap > 0 && n > in.cfg.SizeCap {
		return fmt.Errorf("%w: an image may have %d bytes here", ErrTooBig, in.cfg.SizeCap)
	}
	return nil
}

// run brings the bytes into the store and then the fact into the catalog.
func (u *upload) run(ctx context.Context, body io.Reader) error {
	if err := u.watch(); err != nil {
		return err
	}
	w, err := u.create(ctx)
	if err != nil {
		return err
	}
	defer w.Abort()
	size, verdict, err := u.receive(ctx, w, body)
	if err != nil {
		return err
	}
	if err := u.commit(ctx, w); err != nil {
		return err
	}
	if size > 0 {
		if err := u.verify(ctx); err != nil {
			return err
		}
	}
	return u.finish(ctx, size, verdict)
}

// A storeSink is a Writer whose errors say whose they are.
type storeSink struct {
	w     io.Writer
	store string
}

// Write writes.
func (s storeSink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		err = storeError(s.store, err)
	}
	return n, err
}

// receive copies body to the store and the hashes.
func (u *upload) receive(ctx context.Context, w io.Writer, body io.Reader) (int64, format.Verdict, error) {
	lanes := newStream(&u.in.bufs, u.announced,
		&lane{name: "md5", sink: u.checksum},
		&lane{name: u.in.cfg.HashAlgo, sink: u.strong},
		&lane{name: "keep the bytes", sink: storeSink{w, u.rec.Store}},
	)
	size, err := lanes.copy(ctx, body, func(p []byte) error { return u.check(ctx, p) })
	if err != nil {
		return 0, format.Verdict{}, err
	}
	if u.announced >= 0 && size != u.announced {
		return 0, format.Verdict{}, fmt.Errorf("%w: %d bytes came of %d that were announced", ErrBody, size, u.announced)
	}
	verdict, err := u.inspector.Finish()
	if size == 0 && u.img.DiskFormat != "raw" {
		// Nothing is of no format, but the Image API takes it as any.
		return 0, format.Verdict{Format: u.img.DiskFormat, VirtualSize: -1}, nil
	}
	return size, verdict, err
}

// check looks at the next piece of the body before it goes anywhere.
func (u *upload) check(ctx context.Context, p []byte) error {
	u.seen += int64(len(p))
	if u.announced >= 0 && u.seen > u.announced {
		return fmt.Errorf("%w: more bytes came than the %d that were announced", ErrBody, u.announced)
	}
	if err := u.in.checkSize(u.seen); err != nil {
		return err
	}
	if now := u.in.cfg.Now(); now.Sub(u.looked) >= aliveEvery {
		u.looked = now
		if err := u.alive(ctx); err != nil {
			return err
		}
	}
	_, err := u.inspector.Write(p)
	return err
}

// alive stops an upload whose image was deleted: the rest of the bytes would
// be sent for nothing. A catalog that is away stops nobody here.
func (u *upload) alive(ctx context.Context) error {
	_, err := u.in.cfg.Catalog.Image(ctx, u.rec.Image)
	if isGone(err) {
		return fmt.Errorf("image %s was deleted during the upload: %w", u.rec.Image, catalog.ErrGone)
	}
	return nil
}

// verify walks the metadata of the file that was stored, as a reader of it
// would. Only what is decoded here needs it.
func (u *upload) verify(ctx context.Context) error {
	name := u.img.DiskFormat
	if _, decoded := format.ByName(name); !decoded || u.img.ContainerFormat != "bare" {
		return nil
	}
	r, err := u.store.Open(ctx, u.rec.Key)
	if err != nil {
		return fmt.Errorf("store %s: read back: %w", u.rec.Store, err)
	}
	defer r.Close()
	if err := format.Verify(ctx, name, r); err != nil {
		return fmt.Errorf("image %s: %w", u.rec.Image, err)
	}
	return nil
}

// finish makes the image active.
func (u *upload) finish(ctx context.Context, size int64, verdict format.Verdict) error {
	var virtual *int64
	if verdict.VirtualSize >= 0 {
		virtual = &verdict.VirtualSize
	}
	loc := catalog.Location{
		Store: u.rec.Store, Key: u.rec.Key, Generation: u.rec.ID, Size: size,
		Metadata: map[string]string{"store": u.rec.Store},
	}
	checksum, strong := hex.EncodeToString(u.checksum.Sum(nil)), hex.EncodeToString(u.strong.Sum(nil))
	// The client has done its part: that it hangs up now, or that the catalog
	// is away for a moment, is no reason to throw the bytes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	for try := 1; ; try++ {
		err := u.tell(ctx, loc, catalog.Facts{
			Size: size, VirtualSize: virtual, Checksum: checksum, HashAlgo: u.in.cfg.HashAlgo, HashValue: strong,
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, catalog.ErrUnavailable) || try == finishTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(u.in.cfg.RetryPause):
		}
	}
}

// tell tells the catalog that the bytes are there.
func (u *upload) tell(ctx context.Context, loc catalog.Location, f catalog.Facts) error {
	if u.rec.Copy {
		_, err := u.in.cfg.Catalog.FinishCopy(ctx, u.rec, loc, f)
		return err
	}
	img, err := u.in.cfg.Catalog.FinishUpload(ctx, u.rec.ID, u.rec.Image, loc, f.Size, f.VirtualSize, f.Checksum, f.HashAlgo, f.HashValue)
	if err == nil {
		u.activated(ctx, img)
	}
	return err
}

func (u *upload) activated(ctx context.Context, img catalog.Image) {
	if u.in.cfg.Activated != nil {
		u.in.cfg.Activated(ctx, img)
	}
}

// fail undoes an attempt that cause ended, and returns the error for the
// client. The answer of a call may have been lost, so the catalog decides
// what became of it: if the image has our bytes, all is well.
func (u *upload) fail(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	err := u.in.cfg.Catalog.AbandonUpload(ctx, u.rec)
	if err != nil {
		u.in.log.WarnContext(ctx, "the record of a failed upload could not be removed; the sweeper tries again",
			"image", u.rec.Image, "upload", u.rec.ID, "err", err)
		return cause
	}
	img, err := u.in.cfg.Catalog.Image(ctx, u.rec.Image)
	switch {
	case err == nil && u.landed(img):
		if !u.rec.Copy {
			u.activated(ctx, img)
		}
		return nil
	case err == nil:
		u.img = img
		u.named()
	case isGone(err) && !isGone(cause):
		cause = fmt.Errorf("image %s was deleted during the upload: %w", u.rec.Image, catalog.ErrGone)
	}
	u.in.removeNow(ctx, u.rec)
	return cause
}

// landed tells whether the image has the bytes of this attempt.
func (u *upload) landed(img catalog.Image) bool {
	return slices.ContainsFunc(img.Locations, func(l catalog.Location) bool {
		return l.Store == u.rec.Store && l.Generation == u.rec.ID
	})
}

func (in *Ingest) observe(u *upload, err error) {
	if in.cfg.Observe != nil {
		in.cfg.Observe(Attempt{
			Image: u.rec.Image, Upload: u.rec.ID, Store: u.rec.Store,
			Bytes: u.seen, Took: in.cfg.Now().Sub(u.rec.StartedAt), Err: err,
		})
	}
}
