package block

import (
	"context"
	"syscall"
)

// A Place is where bytes lie in an open file of this machine.
type Place struct {
	File syscall.Conn // open at least as long as the Reader that named it
	Off  int64        // where in the file they begin
	Len  int64        // how many they are
}

// A Placer is a Reader that can name the file that its bytes lie in, so that
// the kernel can be asked to send them without anybody reading them first.
// Callers use PlaceAt.
type Placer interface {
	// Place names where the n bytes at off lie one after the other, exactly
	// as ReadAt would return them, for as long as the Reader is open; false if
	// they do not, or nobody knows. Nobody ever writes to that place. The range
	// is inside [0, Size) and n is at least 1.
	Place(ctx context.Context, off, n int64) (Place, bool)
}

// PlaceAt names where the n bytes of r at off lie in a file, as Placer says.
// It is false of a Reader that is no Placer, and of a range that is empty or
// outside: reading tells what is wrong.
func PlaceAt(ctx context.Context, r Reader, off, n int64) (Place, bool) {
	p, ok := r.(Placer)
	if !ok || n < 1 || CheckRange(off, n, r.Size()) != nil {
		return Place{}, false
	}
	return p.Place(ctx, off, n)
}
