// Package format recognizes disk image files, opens them, and says no to
// those that nobody should open.
//
// A format is given bytes and gives back bytes. It has no way to open a file,
// a URL or another image, whatever a header says; this package and those
// beneath it import neither os nor net, and a test of the house keeps it so.
//
// A stranger's file passes three gates: the [Inspector] watches the upload go
// by and refuses as early as it can, [Verify] walks all metadata when the
// file is whole, and the reader of the format checks again whatever it uses.
// The format of an image is decided at the upload, stored, and never guessed
// again.
//
// There is no format "raw": a raw image is the Reader that the store gave us.
package format

import (
	"context"
	"errors"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/decode"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// ErrCorrupt is the error of an image file that contradicts itself or its
// format.
var ErrCorrupt = decode.ErrCorrupt

// ErrUnsupported is the error of an image file that may be good but asks for
// what this program does not do.
var ErrUnsupported = errors.ErrUnsupported

// A Format is one kind of disk image file. It is given bytes and gives back
// bytes: it cannot open anything, whatever an image may say.
type Format struct {
	// Name is the disk_format of the Image API.
	Name string

	// Probe reports whether a file that begins with head, its first 512
	// bytes or all of it, is of this format. Nobody asks it about an image
	// whose format is known.
	Probe func(head []byte) bool

	// Open reads the header of the image file r. The Image reads from r as
	// long as it is used, and never closes it.
	Open func(ctx context.Context, r block.Reader) (Image, error)
}

// An Image is the virtual disk inside an image file. Bytes that it leaves to
// a backing file, or never stored, are Absent.
type Image interface {
	block.Reader
	block.Mapper

	// Backing returns what the file claims lies beneath it, or "". It is
	// text from a stranger, not a name to open.
	Backing() string

	// Close ends what the Image does unasked, and waits for it. Nobody may
	// read any more. It does not close the image file.
	Close() error
}

// A Config says what opened images share. The zero Config works.
type Config struct {
	// Clusters keeps decoded clusters of all images opened with this Config,
	// in one bounded cache. nil: a cache of its own for each.
	Clusters *decode.Cache

	// Name tells Clusters which file is opened: one of the same name has the
	// same bytes, always. "": what is kept of it is forgotten with it.
	Name string

	// Ahead is how many bytes are decoded ahead of each who reads in order, at
	// most. 0: none. An Image that has it must be closed.
	Ahead int64
}

// List returns all formats that can be opened.
func (c Config) List() []Format {
	return []Format{
		{Name: "qcow2", Probe: qcow2.Probe, Open: c.openQcow2},
	}
}

// ByName returns the format whose disk_format is name.
func (c Config) ByName(name string) (Format, bool) {
	for _, f := range c.List() {
		if f.Name == name {
			return f, true
		}
	}
	return Format{}, false
}

// List returns all formats that can be opened, with a zero Config.
func List() []Format { return Config{}.List() }

// ByName returns the format whose disk_format is name, with a zero Config.
func ByName(name string) (Format, bool) { return Config{}.ByName(name) }

func (c Config) openQcow2(ctx context.Context, r block.Reader) (Image, error) {
	im, err := qcow2.Config{Clusters: c.Clusters, Name: c.Name, Ahead: c.Ahead}.Open(ctx, r)
	if err != nil {
		return nil, err // not im: a nil pointer in an Image is no nil Image
	}
	return im, nil
}
