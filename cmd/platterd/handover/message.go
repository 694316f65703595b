package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocol is the version of what the two processes say. A process refuses
// another one that speaks a different one.
const Protocol = 1

// The messages.
const (
	msgHello   byte = 'h'
	msgWelcome byte = 'w'
	msgRefused byte = 'r'
	msgItems   byte = 'i'
	msgEnd     byte = 'e'
	msgTaken   byte = 't'
	msgGo      byte = 'g'
)

const (
	headSize = 5

	// maxMessage is the most bytes of a message: an item's state may hold a
	// write of 32 MiB that has come in part.
	maxMessage = 80 << 20

	// maxFiles is the most descriptors of a message; the kernel takes 253.
	maxFiles = 128

	// batchBytes is when a batch of items is sent.
	batchBytes = 1 << 20

	maxName = 4096
)

// errMalformed is the error of a message that cannot be understood.
var errMalformed = errors.New("handover: the other process does not keep to the protocol")

// putHead begins a message.
func putHead(kind byte, n int) []byte {
	b := make([]byte, headSize, headSize+min(n, batchBytes))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(n))
	return b
}

// parseHead reads the beginning of a message.
func parseHead(b []byte) (kind byte, n int, err error) {
	size := binary.BigEndian.Uint32(b[1:headSize])
	if size > maxMessage {
		return 0, 0, fmt.Errorf("%w: a message of %d bytes; at most %d", errMalformed, size, maxMessage)
	}
	return b[0], int(size), nil
}

// appendItem adds an item to the body of a message, without its descriptor.
func appendItem(b []byte, kind Kind, name string, state []byte) []byte {
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(state)))
	return append(b, state...)
}

// itemSize is what appendItem adds.
func itemSize(name string, state []byte) int { return 1 + 2 + len(name) + 4 + len(state) }

// parseItems reads the body of a message of items. The states are parts of b.
func parseItems(b []byte) ([]Item, error) {
	var items []Item
	for len(b) > 0 {
		if len(items) == maxFiles {
			return nil, fmt.Errorf("%w: more than %d items in a message", errMalformed, maxFiles)
		}
		i := Item{FD: -1}
		i.Kind, b = Kind(b[0]), b[1:]
		name, rest, ok := cut(b, 2)
		if !ok || len(name) > maxName {
			return nil, fmt.Errorf("%w: an item's name does not fit", errMalformed)
		}
		state, rest, ok := cut(rest, 4)
		if !ok {
			return nil, fmt.Errorf("%w: an item's state does not fit", errMalformed)
		}
		i.Name, i.State, b = string(name), state, rest
		items = append(items, i)
	}
	return items, nil
}

// cut takes a length of so many bytes, and what it is the length of, from b.
func cut(b []byte, width int) (field, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	var n uint64
	for _, c := range b[:width] {
		n = n<<8 | uint64(c)
	}
	b = b[width:]
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
