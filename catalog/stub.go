package catalog

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"time"
)

// A Config says how a Catalog works. The zero value is fine.
type Config struct {
	GatewayID string           // of this process, in uploads it begins
	Logger    *slog.Logger     // nil: silent
	Now       func() time.Time // nil: time.Now
}

// A Catalog answers questions about images and changes what is known of them.
// Any number of goroutines may use it at once.
type Catalog struct{}

// A Change is one change of one record.
type Change struct {
	Revision int64
	Kind     string // image, member, overlay, attachment, task
	ID       string // of the record; IMAGE/PROJECT for a member
	Deleted  bool
}

// Usage is what one owner has.
type Usage struct {
	Images    int   // all of them
	Uploading int   // whose data is on its way
	Bytes     int64 // stored
}

var errTODO = errors.ErrUnsupported

func Open(ctx context.Context, kv KV, cfg Config) (*Catalog, error)              { return nil, errTODO }
func Restore(ctx context.Context, kv KV, r io.Reader) error                      { return errTODO }
func (c *Catalog) Close() error                                                  { return errTODO }
func (c *Catalog) Ready() error                                                  { return errTODO }
func (c *Catalog) Revision() int64                                               { return 0 }
func (c *Catalog) Backup(ctx context.Context, w io.Writer) error                 { return errTODO }
func (c *Catalog) Watch(ctx context.Context, rev int64) iter.Seq2[Change, error] { return nil }
func (c *Catalog) CreateImage(ctx context.Context, img Image) (Image, error)     { return Image{}, errTODO }
func (c *Catalog) Image(ctx context.Context, id string) (Image, error)           { return Image{}, errTODO }
func (c *Catalog) UpdateImage(ctx context.Context, id string, f func(*Image) error) (Image, error) {
	return Image{}, errTODO
}
func (c *Catalog) DeleteImage(ctx context.Context, id string) (Image, error) { return Image{}, errTODO }
func (c *Catalog) Images(ctx context.Context, q Query) ([]Image, error)      { return nil, errTODO }
func (c *Catalog) Usage(ctx context.Context, owner string) (Usage, error)    { return Usage{}, errTODO }
func (c *Catalog) CanSee(v Viewer, img Image) bool                           { return false }
func (c *Catalog) Member(ctx context.Context, image, project string) (Member, error) {
	return Member{}, errTODO
}
func (c *Catalog) Members(ctx context.Context, image string) ([]Member, error) { return nil, errTODO }
func (c *Catalog) CreateMember(ctx context.Context, m Member) (Member, error) {
	return Member{}, errTODO
}
func (c *Catalog) PutMember(ctx context.Context, m Member) (Member, error)       { return Member{}, errTODO }
func (c *Catalog) DeleteMember(ctx context.Context, image, project string) error { return errTODO }
func (c *Catalog) BeginUpload(ctx context.Context, u Upload) (Image, error)      { return Image{}, errTODO }
func (c *Catalog) FinishUpload(ctx context.Context, uploadID, imageID string, loc Location, size int64, virtualSize *int64, checksum, algo, hash string) (Image, error) {
	return Image{}, errTODO
}
func (c *Catalog) AbandonUpload(ctx context.Context, imageID, uploadID string) error { return errTODO }
func (c *Catalog) Uploads(ctx context.Context) ([]Upload, error)                     { return nil, errTODO }

// Objects returns every object of a store that a record needs, with who needs it ("image ID" or "upload ID").
func (c *Catalog) Objects(ctx context.Context, store string) (map[string]string, error) {
	return nil, errTODO
}
func (c *Catalog) Garbage(ctx context.Context) ([]Garbage, error)            { return nil, errTODO }
func (c *Catalog) QueueGarbage(ctx context.Context, store, key string) error { return errTODO }
func (c *Catalog) Collected(ctx context.Context, g Garbage) error            { return errTODO }
func (c *Catalog) CreateTask(ctx context.Context, t Task) (Task, error)      { return Task{}, errTODO }
func (c *Catalog) Task(ctx context.Context, id string) (Task, error)         { return Task{}, errTODO }
func (c *Catalog) UpdateTask(ctx context.Context, id string, f func(*Task) error) (Task, error) {
	return Task{}, errTODO
}
func (c *Catalog) DeleteTask(ctx context.Context, id string) error        { return errTODO }
func (c *Catalog) Tasks(ctx context.Context, q TaskQuery) ([]Task, error) { return nil, errTODO }
func (c *Catalog) CreateOverlay(ctx context.Context, o Overlay) (Overlay, error) {
	return Overlay{}, errTODO
}
func (c *Catalog) Overlay(ctx context.Context, id string) (Overlay, error) { return Overlay{}, errTODO }
func (c *Catalog) UpdateOverlay(ctx context.Context, id string, f func(*Overlay) error) (Overlay, error) {
	return Overlay{}, errTODO
}
func (c *Catalog) DeleteOverlay(ctx context.Context, id string) error { return errTODO }
func (c *Catalog) Overlays(ctx context.Context, q OverlayQuery) ([]Overlay, error) {
	return nil, errTODO
}
func (c *Catalog) CreateAttachment(ctx context.Context, a Attachment) (Attachment, error) {
	return Attachment{}, errTODO
}
func (c *Catalog) Attachment(ctx context.Context, id string) (Attachment, error) {
	return Attachment{}, errTODO
}
func (c *Catalog) AttachmentByToken(ctx context.Context, hash string) (Attachment, error) {
	return Attachment{}, errTODO
}
func (c *Catalog) UpdateAttachment(ctx context.Context, id string, f func(*Attachment) error) (Attachment, error) {
	return Attachment{}, errTODO
}
func (c *Catalog) DeleteAttachment(ctx context.Context, id string) error { return errTODO }
func (c *Catalog) Attachments(ctx context.Context, q AttachmentQuery) ([]Attachment, error) {
	return nil, errTODO
}
