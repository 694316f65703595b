package catalog

import (
	"maps"
	"slices"
	"time"
)

// A Visibility says who besides the owner may see an image.
type Visibility string

// The visibilities of the Image API, and All, which only a Query has.
const (
	VisibilityPublic    Visibility = "public"
	VisibilityCommunity Visibility = "community"
	VisibilityShared    Visibility = "shared"
	VisibilityPrivate   Visibility = "private"
	VisibilityAll       Visibility = "all"
)

// Valid tells whether an image can have this visibility.
func (v Visibility) Valid() bool {
	switch v {
	case VisibilityPublic, VisibilityCommunity, VisibilityShared, VisibilityPrivate:
		return true
	}
	return false
}

// An Image is all that is known of one image. Values returned by a Catalog
// belong to the caller.
type Image struct {
	ID         string
	Name       *string // nil: none
	Status     Status
	Visibility Visibility
	Protected  bool   // cannot be deleted
	Hidden     bool   // not in default listings
	Owner      string // project; "": none

	DiskFormat      string // "": not yet known
	ContainerFormat string // "": not yet known
	MinDisk         int64  // GiB
	MinRAM          int64  // MiB

	Size        *int64 // bytes as stored; nil: no data yet
	VirtualSize *int64 // bytes that a guest sees; nil: unknown
	Checksum    string // MD5 in hex; "": none
	HashAlgo    string // name of the hash in HashValue; "": none
	HashValue   string // in hex; "": none

	Tags       []string // sorted, each once
	Properties map[string]string
	Locations  []Location // in order of preference
	Parent     string     // id of the image this was captured from; "": none
	Attempts   int        // uploads that were begun

	CreatedAt time.Time // to the microsecond, UTC
	UpdatedAt time.Time // to the microsecond, UTC

	Revision int64 // of the record; not stored
}

// A Location is one copy of an image's bytes.
type Location struct {
	Store      string            `json:"store"`
	Key        string            `json:"key"`
	Generation string            `json:"generation,omitempty"` // id of the upload: tells two objects of one key apart
	Size       int64             `json:"size"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// Clone returns a copy that shares nothing with i.
func (i Image) Clone() Image {
	i.Name = clone(i.Name)
	i.Size = clone(i.Size)
	i.VirtualSize = clone(i.VirtualSize)
	i.Tags = slices.Clone(i.Tags)
	i.Properties = maps.Clone(i.Properties)
	i.Locations = slices.Clone(i.Locations)
	for n := range i.Locations {
		i.Locations[n].Metadata = maps.Clone(i.Locations[n].Metadata)
	}
	return i
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// A MemberStatus is what a project thinks of an image shared with it.
type MemberStatus string

// The member statuses of the Image API, and All, which only a Query has.
const (
	MemberPending  MemberStatus = "pending"
	MemberAccepted MemberStatus = "accepted"
	MemberRejected MemberStatus = "rejected"
	MemberAll      MemberStatus = "all"
)

// Valid tells whether a member can have this status.
func (s MemberStatus) Valid() bool {
	return s == MemberPending || s == MemberAccepted || s == MemberRejected
}

// A Member is a project that an image is shared with.
type Member struct {
	Image     string
	Project   string
	Status    MemberStatus
	CreatedAt time.Time
	UpdatedAt time.Time
	Revision  int64 // of the record; not stored
}

// A Viewer is who asks: what they may see follows from it.
type Viewer struct {
	Project string // "": none
	Admin   bool   // sees everything
}

// An Upload is the attempt to fill one image with data, or to bring a copy of
// it into one more store.
type Upload struct {
	ID        string // of the attempt, never used twice
	Image     string
	Copy      bool   // of an image that has data, or of one that is imported; one at a time for each store
	Gateway   string // which runs it; default: the Catalog's own
	Store     string
	Key       string // of the object being written
	StartedAt time.Time
	Lease     int64 // of the gateway; 0: it has none, and ends its uploads itself
}
