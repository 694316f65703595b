package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Records are JSON objects whose "v" is the version of their shape. A field
// may be added without a new version if a program that does not know it may
// lose it; anything else is a new version, which older programs refuse to
// touch. Samples of every version ever written are in testdata/records, and
// must be readable for ever.
const recordVersion = 1

// newerVersion is that of records that have a field of the second version, all
// of them added at the end. The others are written as before, so that older
// programs go on with them.
const newerVersion = 2

// newestVersion is the last one known of a kind of record.
func newestVersion(key string) int {
	switch kindOf(key) {
	case preImage, preOverlay, preUpload, preGarbage:
		return newerVersion
	}
	return recordVersion
}

// version returns that of a record, by whether it has newer fields.
func version(newer bool) int {
	if newer {
		return newerVersion
	}
	return recordVersion
}

type imageRecord struct {
	V               int               `json:"v"`
	Name            *string           `json:"name,omitempty"`
	Status          Status            `json:"status"`
	Visibility      Visibility        `json:"visibility"`
	Protected       bool              `json:"protected,omitempty"`
	Hidden          bool              `json:"hidden,omitempty"`
	Owner           string            `json:"owner,omitempty"`
	DiskFormat      string            `json:"disk_format,omitempty"`
	ContainerFormat string            `json:"container_format,omitempty"`
	MinDisk         int64             `json:"min_disk,omitempty"`
	MinRAM          int64             `json:"min_ram,omitempty"`
	Size            *int64            `json:"size,omitempty"`
	VirtualSize     *int64            `json:"virtual_size,omitempty"`
	Checksum        string            `json:"checksum,omitempty"`
	HashAlgo        string            `json:"hash_algo,omitempty"`
	HashValue       string            `json:"hash_value,omitempty"`
	Tags            []string          `json:"tags,omitempty"`
	Properties      map[string]string `json:"properties,omitempty"`
	Locations       []Location        `json:"locations,omitempty"`
	Parent          string            `json:"parent,omitempty"`
	CreatedAt       time.Time         `json:"created_at"`
	UpdatedAt       time.Time         `json:"updated_at"`
	Attempts        int               `json:"attempts,omitempty"`
}

func (i Image) record() imageRecord {
	return imageRecord{version(i.Attempts != 0), i.Name, i.Status, i.Visibility, i.Protected, i.Hidden, i.Owner,
		i.DiskFormat, i.ContainerFormat, i.MinDisk, i.MinRAM, i.Size, i.VirtualSize, i.Checksum,
		i.HashAlgo, i.HashValue, i.Tags, i.Properties, i.Locations, i.Parent, i.CreatedAt, i.UpdatedAt, i.Attempts}
}

func decodeImage(p Pair) (Image, error) {
	var r imageRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Image{}, err
	}
	if !r.Status.Valid() || !r.Visibility.Valid() {
		return Image{}, &RecordError{p.Key, fmt.Errorf("status %q or visibility %q is none", r.Status, r.Visibility)}
	}
	return Image{strings.TrimPrefix(p.Key, preImage), r.Name, r.Status, r.Visibility, r.Protected, r.Hidden,
		r.Owner, r.DiskFormat, r.ContainerFormat, r.MinDisk, r.MinRAM, r.Size, r.VirtualSize, r.Checksum,
		r.HashAlgo, r.HashValue, tagSet(r.Tags), r.Properties, r.Locations, r.Parent, r.Attempts,
		moment(r.CreatedAt), moment(r.UpdatedAt), p.Revision}, nil
}

type memberRecord struct {
	V         int          `json:"v"`
	Status    MemberStatus `json:"status"`
	CreatedAt time.Time    `json:"created_at"`
	UpdatedAt time.Time    `json:"updated_at"`
}

func (m Member) record() memberRecord {
	return memberRecord{recordVersion, m.Status, m.CreatedAt, m.UpdatedAt}
}

func decodeMember(p Pair) (Member, error) {
	var r memberRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Member{}, err
	}
	image, project := cutMember(p.Key)
	return Member{image, project, r.Status, moment(r.CreatedAt), moment(r.UpdatedAt), p.Revision}, nil
}

type uploadRecord struct {
	V         int       `json:"v"`
	ID        string    `json:"id"`
	Gateway   string    `json:"gateway,omitempty"`
	Store     string    `json:"store"`
	Key       string    `json:"key"`
	StartedAt time.Time `json:"started_at"`
	Lease     int64     `json:"lease,omitempty"`
}

func (u Upload) record() uploadRecord {
	return uploadRecord{version(u.Lease != 0), u.ID, u.Gateway, u.Store, u.Key, u.StartedAt, u.Lease}
}

func decodeUpload(p Pair) (Upload, error) {
	var r uploadRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Upload{}, err
	}
	image, store, isCopy := strings.Cut(strings.TrimPrefix(p.Key, preUpload), "/")
	if isCopy && store != r.Store {
		return Upload{}, &RecordError{p.Key, fmt.Errorf("it is of store %q", r.Store)}
	}
	return Upload{r.ID, image, isCopy, r.Gateway, r.Store, r.Key, moment(r.StartedAt), r.Lease}, nil
}

type overlayRecord struct {
	V         int               `json:"v"`
	Name      string            `json:"name,omitempty"`
	ImageID   string            `json:"image_id"`
	Owner     string            `json:"owner,omitempty"`
	Gateway   string            `json:"gateway,omitempty"`
	Engine    string            `json:"engine"`
	Store     string            `json:"store,omitempty"`
	Size      int64             `json:"size"`
	Epoch     int64             `json:"epoch,omitempty"`
	Snapshots []OverlaySnapshot `json:"snapshots,omitempty"`
	Status    OverlayStatus     `json:"status"`
	Message   string            `json:"message,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`

	HeldSince   int64        `json:"held_since,omitempty"`
	Durability  string       `json:"durability,omitempty"`
	Parent      string       `json:"parent,omitempty"`
	Quarantined []Quarantine `json:"quarantined,omitempty"`
}

func (o Overlay) record() overlayRecord {
	newer := o.HeldSince != 0 || o.Durability != "" || o.Parent != "" || len(o.Quarantined) > 0
	return overlayRecord{version(newer), o.Name, o.ImageID, o.Owner, o.Gateway, o.Engine, o.Store, o.Size,
		o.Epoch, o.Snapshots, o.Status, o.Message, o.CreatedAt, o.UpdatedAt,
		o.HeldSince, o.Durability, o.Parent, o.Quarantined}
}

func decodeOverlay(p Pair) (Overlay, error) {
	var r overlayRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Overlay{}, err
	}
	return Overlay{strings.TrimPrefix(p.Key, preOverlay), r.Name, r.ImageID, r.Owner, r.Gateway, r.Engine,
		r.Store, r.Size, r.Epoch, r.HeldSince, r.Durability, r.Parent, false, r.Quarantined, r.Snapshots, r.Status,
		r.Message, moment(r.CreatedAt), moment(r.UpdatedAt), p.Revision}, nil
}

type attachRecord struct {
	V         int        `json:"v"`
	ImageID   string     `json:"image_id,omitempty"`
	OverlayID string     `json:"overlay_id,omitempty"`
	Mode      AttachMode `json:"mode"`
	Transport string     `json:"transport,omitempty"`
	TokenHash string     `json:"token_hash,omitempty"`
	Owner     string     `json:"owner,omitempty"`
	Gateway   string     `json:"gateway,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	LastUsed  time.Time  `json:"last_used,omitzero"`
	ExpiresAt time.Time  `json:"expires_at,omitzero"`
}

func (a Attachment) record() attachRecord {
	return attachRecord{recordVersion, a.ImageID, a.OverlayID, a.Mode, a.Transport, a.TokenHash, a.Owner,
		a.Gateway, a.CreatedAt, a.LastUsed, a.ExpiresAt}
}

func decodeAttachment(p Pair) (Attachment, error) {
	var r attachRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Attachment{}, err
	}
	return Attachment{strings.TrimPrefix(p.Key, preAttach), r.ImageID, r.OverlayID, r.Mode, r.Transport,
		r.TokenHash, r.Owner, r.Gateway, moment(r.CreatedAt), moment(r.LastUsed), moment(r.ExpiresAt), p.Revision}, nil
}

type taskRecord struct {
	V         int            `json:"v"`
	Type      string         `json:"type"`
	Status    TaskStatus     `json:"status"`
	Owner     string         `json:"owner,omitempty"`
	ImageID   string         `json:"image_id,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
	UserID    string         `json:"user_id,omitempty"`
	Gateway   string         `json:"gateway,omitempty"`
	Message   string         `json:"message,omitempty"`
	Input     map[string]any `json:"input,omitempty"`
	Result    map[string]any `json:"result,omitempty"`
	Progress  Progress       `json:"progress,omitzero"`
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	ExpiresAt time.Time      `json:"expires_at,omitzero"`
}

func (t Task) record() taskRecord {
	return taskRecord{recordVersion, t.Type, t.Status, t.Owner, t.ImageID, t.RequestID, t.UserID, t.Gateway,
		t.Message, t.Input, t.Result, t.Progress, t.CreatedAt, t.UpdatedAt, t.ExpiresAt}
}

func decodeTask(p Pair) (Task, error) {
	var r taskRecord
	if err := decode(p, &r, &r.V); err != nil {
		return Task{}, err
	}
	return Task{strings.TrimPrefix(p.Key, preTask), r.Type, r.Status, r.Owner, r.ImageID, r.RequestID,
		r.UserID, r.Gateway, r.Message, r.Input, r.Result, r.Progress, moment(r.CreatedAt), moment(r.UpdatedAt),
		moment(r.ExpiresAt), p.Revision}, nil
}

// A markRecord is the record of a key that matters by being there: a
// tombstone, a reference, a hold.
type markRecord struct {
	V  int       `json:"v"`
	By string    `json:"by,omitempty"` // the holder, in a hold
	At time.Time `json:"at,omitzero"`
}

// A schemaRecord says what a KV holds.
type schemaRecord struct {
	V       int       `json:"v"`
	Catalog string    `json:"catalog"` // identity: another one means that the KV was filled anew
	Created time.Time `json:"created"`
}

// encode returns the record of a key, refusing what the KV could not bear.
func encode(key string, record any) ([]byte, error) {
	b, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("catalog: encode %s: %w", key, err)
	}
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("catalog: the record of %s would be %d bytes, %d are allowed: %w", key, len(b), MaxRecord, ErrTooBig)
	}
	return b, nil
}

// decode fills *record, whose version lands in *v.
func decode(p Pair, record any, v *int) error {
	if len(p.Value) > MaxRecord {
		return &RecordError{p.Key, fmt.Errorf("%d bytes: %w", len(p.Value), ErrTooBig)}
	}
	return decodeAll(p, record, v)
}

// decodeAll is decode for a record of any size.
func decodeAll(p Pair, record any, v *int) error {
	err := json.Unmarshal(p.Value, record)
	switch {
	case *v > newestVersion(p.Key):
		// Asked first: a newer shape may well not fit ours.
		return &RecordError{p.Key, fmt.Errorf("its version is %d, and this program knows versions up to %d: run a newer platterd", *v, newestVersion(p.Key))}
	case err != nil:
		return &RecordError{p.Key, err}
	case *v < 1:
		return &RecordError{p.Key, errors.New("it has no version")}
	}
	return nil
}

// moment cuts a time to what all parts of a Catalog agree on: microseconds,
// UTC. The zero time stays zero.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// tagSet sorts tags and drops what is there twice; none is nil.
func tagSet(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags)
}
