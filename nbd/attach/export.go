package attach

import (
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/nbd/client"
)

// kernelFlags are those that kernels know; the others are about replies and
// commands that no kernel uses.
const kernelFlags = client.FlagHasFlags | client.FlagReadOnly | client.FlagSendFlush | client.FlagSendFUA |
	client.FlagRotational | client.FlagSendTrim | client.FlagSendZeroes | client.FlagCanMultiConn

// Sizes in bytes.
const (
	sector        = 512
	maxSector     = 4096      // what every kernel takes
	kernelRequest = 128 << 10 // the largest request, if nobody changes the queue
)

// An export is what a device is made of.
type export client.Export

// sectorSize is the size of the device's sectors.
func (e export) sectorSize() int64 { return max(sector, int64(e.Minimum)) }

// bytes is the size of the device: whole sectors.
func (e export) bytes() int64 { return e.Size - e.Size%e.sectorSize() }

// replaces tells whether a device that was made of the export old can go on
// with this one: the kernel does not take other sizes and flags.
func (e export) replaces(old export) bool {
	const kept = kernelFlags &^ (client.FlagReadOnly | client.FlagRotational)
	return e.bytes() == old.bytes() && e.sectorSize() <= old.sectorSize() &&
		old.Flags&^e.Flags&kept == 0 && e.Flags&^old.Flags&client.FlagReadOnly == 0
}

// check refuses what no device can be made of.
func (e export) check() error {
	switch {
	case e.Minimum > maxSector:
		return fmt.Errorf("nbd: the export has blocks of %d bytes; the kernel takes at most %d: %w", e.Minimum, maxSector, errors.ErrUnsupported)
	case e.Maximum != 0 && e.Maximum < kernelRequest:
		return fmt.Errorf("nbd: the server takes requests of at most %d bytes; the kernel sends %d: %w", e.Maximum, kernelRequest, errors.ErrUnsupported)
	case e.bytes() == 0:
		return fmt.Errorf("nbd: the export has %d bytes, less than one sector: there is nothing to make a device of", e.Size)
	}
	return nil
}
