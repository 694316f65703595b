package fusefs

import (
	"context"
	"iter"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Library is the images that a Tree shows. Its owner provides it. It holds
// only images whose bytes are there. Any number of goroutines may use it at
// once. An image that is not there is fs.ErrNotExist.
type Library interface {
	// Image returns the image with this id.
	Image(ctx context.Context, id string) (Image, error)

	// Named returns the images whose name is exactly this, in order of id;
	// none is no error. It is called once for every entry of a listing by
	// name, so it must be answered from an index.
	Named(ctx context.Context, name string) ([]Image, error)

	// Images yields the images whose id is greater than after, in order of
	// id. A Tree stops early and continues later with the last id it saw.
	Images(ctx context.Context, after string) iter.Seq2[Image, error]

	// Open opens one file of an image. ctx covers the opening only. The
	// Reader must go on working after the image is deleted, until it is
	// closed. A Disk in a format that cannot be decoded is
	// errors.ErrUnsupported, and is then not shown.
	Open(ctx context.Context, id string, file File) (block.ReadCloser, error)
}

// A File is one of the files that every image has.
type File uint8

// The files of an image.
const (
	Disk   File = iota // disk.raw: what a guest sees
	Native             // native.EXT: the bytes as uploaded
	Record             // image.json: the record as the API shows it
)

// String returns the file's part in names and messages.
func (f File) String() string {
	switch f {
	case Disk:
		return "disk"
	case Native:
		return "native"
	}
	return "record"
}

// An Image is what the tree needs to know of one image.
type Image struct {
	ID   string
	Name string // "" is not shown by name

	// DiskSize and NativeSize are the sizes in bytes of the two data files,
	// or -1 if the record does not say and the file must be opened to know.
	DiskSize, NativeSize int64

	Created, Updated time.Time

	// The rest is shown as extended attributes; DiskFormat also names the
	// native file.
	Status, Visibility, Owner     string
	DiskFormat, ContainerFormat   string
	Checksum, HashAlgo, HashValue string
}
