package catalog

import "time"

// A Query says which images to list, in which order. Its zero value lists the
// images that a caller without a project sees by default.
//
// Filters are joined by "and". A field that is nil or empty filters nothing.
type Query struct {
	Viewer       Viewer
	Visibility   Visibility   // "": the default list; VisibilityAll: no filter
	MemberStatus MemberStatus // of images shared with the viewer; "": accepted
	Hidden       HiddenFilter

	ID              []string // one of these
	Name            []string // one of these
	Status          []Status // one of these
	DiskFormat      []string // one of these
	ContainerFormat []string // one of these

	Owner      *string
	Checksum   *string
	HashAlgo   *string
	HashValue  *string
	Protected  *bool
	Tags       []string // all of these
	Properties map[string]string
	Ranges     []Range
	Times      []TimeCond

	Sort   []SortKey // default: created_at, descending
	OneDir bool      // one direction was given for all keys: the tie-breakers take it too
	Marker string    // id of the last image seen; "": from the start
	Limit  int       // at most so many; 0: all
}

// A HiddenFilter says what becomes of hidden images.
type HiddenFilter uint8

// What a listing does with hidden images.
const (
	HiddenNo   HiddenFilter = iota // leaves them out
	HiddenOnly                     // has only them
	HiddenAny                      // does not care
)

// A Column is a field that can be compared or sorted by. Its text is the name
// in the Image API.
type Column string

// The columns. The first eight can be sorted by, the numbers ranged over.
const (
	ColumnName            Column = "name"
	ColumnStatus          Column = "status"
	ColumnContainerFormat Column = "container_format"
	ColumnDiskFormat      Column = "disk_format"
	ColumnSize            Column = "size"
	ColumnID              Column = "id"
	ColumnCreatedAt       Column = "created_at"
	ColumnUpdatedAt       Column = "updated_at"
	ColumnVirtualSize     Column = "virtual_size"
	ColumnMinDisk         Column = "min_disk"
	ColumnMinRAM          Column = "min_ram"
)

// A Range holds images whose column is a number in [Min, Max]. Null is in no
// range.
type Range struct {
	Column Column // size, virtual_size, min_disk, min_ram
	Min    *int64
	Max    *int64
}

// An Operator compares times.
type Operator string

// The operators of the Image API.
const (
	OpEQ  Operator = "eq"
	OpNEQ Operator = "neq"
	OpGT  Operator = "gt"
	OpGTE Operator = "gte"
	OpLT  Operator = "lt"
	OpLTE Operator = "lte"
)

// A TimeCond compares created_at or updated_at with a moment, both cut to the
// second, which is what clients see of them.
type TimeCond struct {
	Column Column // created_at, updated_at
	Op     Operator
	Time   time.Time
}

// A SortKey is one column to sort by. Null comes before everything else, and
// so last in a descending list. After all keys of a Query come created_at and
// id, if not among them, so that the order is total.
type SortKey struct {
	Column Column
	Desc   bool
}
