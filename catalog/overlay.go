package catalog

import (
	"slices"
	"time"
)

// An OverlayStatus is where an overlay is in its life.
type OverlayStatus string

// The statuses of an overlay.
const (
	OverlayCreating  OverlayStatus = "creating"
	OverlayAvailable OverlayStatus = "available"
	OverlayDeleting  OverlayStatus = "deleting"
	OverlayError     OverlayStatus = "error"
)

// An Overlay is a writable disk on top of an image.
type Overlay struct {
	ID        string
	Name      string
	ImageID   string
	Owner     string // project; "": none
	Gateway   string // engine file: the only one that can open it; else its owner; "": none
	Engine    string // file, rbd, object-log
	Store     string
	Size      int64 // bytes of the disk
	Epoch     int64 // fencing token: grows each time somebody takes the overlay
	HeldSince int64 // the epoch since which no other gateway has owned it: an older journal is not to be replayed

	Durability  string       // of engine object-log: gateway, store; "": what is configured
	Parent      string       // key of the object that its data lies above; "": the image's own
	Dirty       bool         // the owner's journal has acknowledged data that nobody else has; not stored here: see OverlayHead
	Quarantined []Quarantine // journals that were left behind, the oldest first

	Snapshots []OverlaySnapshot
	Status    OverlayStatus
	Message   string // why Status is error
	CreatedAt time.Time
	UpdatedAt time.Time
	Revision  int64 // of the record; not stored
}

// An OverlaySnapshot is the state of an overlay at one moment.
type OverlaySnapshot struct {
	ID        string    `json:"id"`
	Name      string    `json:"name,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// A Quarantine is a journal whose loss was accepted when another gateway took
// the overlay. It must never be replayed.
type Quarantine struct {
	Gateway string    `json:"gateway"` // which has it
	Epoch   int64     `json:"epoch"`   // of the journal, or newer
	At      time.Time `json:"at"`
}

// Clone returns a copy that shares nothing with o.
func (o Overlay) Clone() Overlay {
	o.Snapshots = slices.Clone(o.Snapshots)
	o.Quarantined = slices.Clone(o.Quarantined)
	return o
}

// An OverlayQuery selects overlays; a zero field selects all.
type OverlayQuery struct {
	Owner   *string
	ImageID string
	Gateway string
	Name    string
}

// An AttachMode says what an attachment may do.
type AttachMode string

// The modes of an attachment.
const (
	AttachRO        AttachMode = "ro"
	AttachRW        AttachMode = "rw"
	AttachEphemeral AttachMode = "ephemeral"
)

// An Attachment is one client's right to one export.
type Attachment struct {
	ID        string
	ImageID   string // this or OverlayID
	OverlayID string
	Mode      AttachMode
	Transport string // unix, tcp, tls
	TokenHash string // of the bearer secret, which is stored nowhere
	Owner     string // project; "": none
	Gateway   string
	CreatedAt time.Time
	LastUsed  time.Time // zero: never
	ExpiresAt time.Time // zero: never
	Revision  int64     // of the record; not stored
}

// An AttachmentQuery selects attachments; a zero field selects all.
type AttachmentQuery struct {
	Owner     *string
	ImageID   string
	OverlayID string
	Gateway   string
}
