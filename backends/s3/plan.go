package s3

// S3's limits for multipart uploads.
const (
	maxParts   = 10_000
	maxObject  = 5 << 40
	flatParts  = 2_000 // parts of one unit each, when nobody knows the length
	growParts  = 98    // then, so many parts later, each is one unit longer
	unitsKnown = 0
)

// A plan says how long the parts of an upload are, in units of PartSize.
type plan struct {
	each int // units in every part, or unitsKnown if parts grow
}

// planFor returns the plan of an object of size bytes, or -1 if nobody knows.
// With the default unit of 16 MiB every part is one unit up to 156 GiB, when
// the size is known, and up to 31 GiB when not; after that parts grow so that
// maxParts of them hold maxObject.
func planFor(size, unit int64) plan {
	if size < 0 {
		return plan{}
	}
	units := (size + unit - 1) / unit
	return plan{each: int(max(1, (units+maxParts-1)/maxParts))}
}

// units returns how many units part number n (from 1) has.
func (p plan) units(n int) int {
	if p.each != unitsKnown {
		return p.each
	}
	return 1 + max(0, n-flatParts)/growParts
}
