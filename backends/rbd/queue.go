//go:build rbd

package rbd

/*
#cgo LDFLAGS: -lrbd -lrados
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// A queue has the requests of one connection that are with librbd: no more
// than its slots. One goroutine takes what has ended, many at a time.
type queue struct {
	c      *C.platter_queue
	free   chan uint32
	ended  []chan int64 // by slot
	events *os.File
	wait   sync.WaitGroup
}

func newQueue(slots int) (*queue, error) {
	q := &queue{c: C.queue_new(C.uint32_t(slots)), free: make(chan uint32, slots), ended: make([]chan int64, slots)}
	if q.c == nil {
		return nil, fmt.Errorf("rbd: make a queue of requests: %w", syscall.ENOMEM)
	}
	for i := range q.ended {
		q.ended[i] = make(chan int64, 1)
		q.free <- uint32(i)
	}
	q.events = os.NewFile(uintptr(q.c.fd), "rbd requests")
	q.wait.Go(q.run)
	return q, nil
}

// run tells the callers of requests what became of them, until close.
func (q *queue) run() {
	var count [8]byte
	slots, results := make([]C.uint32_t, len(q.ended)), make([]C.int64_t, len(q.ended))
	for {
		if _, err := q.events.Read(count[:]); err != nil {
			return // closed
		}
		n := int(C.queue_take(q.c, &slots[0], &results[0]))
		for i := range n {
			q.ended[slots[i]] <- int64(results[i])
		}
	}
}

// close ends the queue. No request may be in it, and librbd's threads must be
// gone: they may still be in op_done after the last one was told.
func (q *queue) close() {
	q.events.Close()
	q.wait.Wait()
	C.free(unsafe.Pointer(q.c))
}

// do hands one request to librbd and waits for its end. A context that ends
// before there is a free slot ends the wait; after that librbd has p, and
// answers at the latest after the Timeout.
func (q *queue) do(ctx context.Context, h C.rbd_image_t, kind C.int, off, n int64, p []byte) (int64, error) {
	var slot uint32
	select {
	case slot = <-q.free:
	default:
		select {
		case slot = <-q.free:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer func() { q.free <- slot }()
	var pin runtime.Pinner
	defer pin.Unpin()
	var first *C.char
	if len(p) > 0 {
		pin.Pin(&p[0])
		first = (*C.char)(unsafe.Pointer(&p[0]))
	}
	if len(q.free) == cap(q.free)-1 { // alone: nothing is gained by telling many at a time
		return told(int64(C.op_wait(h, kind, C.uint64_t(off), C.uint64_t(n), first)))
	}
	if r := C.op_start(q.c, C.uint32_t(slot), h, kind, C.uint64_t(off), C.uint64_t(n), first); r < 0 {
		return 0, meaning(syscall.Errno(-r))
	}
	return told(<-q.ended[slot])
}

// told returns what came of a request.
func told(r int64) (int64, error) {
	if r < 0 {
		return 0, meaning(syscall.Errno(-r))
	}
	return r, nil
}

// explain returns the system's error for what librados and librbd say, so
// that errors.Is knows it.
func explain(err error) error {
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) || coded.ErrorCode() == 0 {
		return err
	}
	return meaning(syscall.Errno(max(coded.ErrorCode(), -coded.ErrorCode())))
}

// result returns the error of a call of librbd that is not negative if it
// worked.
func result(r C.int) error {
	if r >= 0 {
		return nil
	}
	return meaning(syscall.Errno(-r))
}

// meaning returns what an error of the cluster is to us.
func meaning(code syscall.Errno) error {
	switch code {
	case syscall.ESHUTDOWN:
		return fmt.Errorf("%w (the cluster has blocklisted this client)", ErrFenced)
	case syscall.EDQUOT:
		return fmt.Errorf("the pool's quota: %w", syscall.ENOSPC)
	}
	return code
}
