package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// An OverlayHead is what an engine that writes into a shared store knows of
// the last thing that it has committed there. It is written by the owner of
// the overlay alone.
type OverlayHead struct {
	Epoch    int64  // of the owner
	Sequence int64  // grows with each commit, across epochs
	Dirty    bool   // the owner's journal has acknowledged data that the store lacks
	Data     []byte // the engine's own, at most MaxData bytes
	Revision int64  // of the record; not stored
}

func headKind() kind[OverlayHead] {
	// Never from memory: heads are written often, and read when it matters.
	return kind[OverlayHead]{"head of overlay", preHead, decodeHead, func(*state, string) (OverlayHead, int64, bool) {
		return OverlayHead{}, 0, false
	}}
}

// OverlayHead returns the head of an overlay from the KV itself, or
// fs.ErrNotExist. Overlays of engine file have none.
func (c *Catalog) OverlayHead(ctx context.Context, id string) (OverlayHead, error) {
	h, _, err := fresh(ctx, c, headKind(), id)
	if err != nil {
		return OverlayHead{}, fmt.Errorf("catalog: %w", err)
	}
	return h, nil
}

// CommitHead replaces the head of an overlay by h, and queues as garbage what
// the new head does not need any more, in one transaction: Store and Key of
// each, not to be removed before twice the time of a lease, unless NotBefore
// says later. It is ErrFenced, and nothing has changed, when an epoch newer
// than h.Epoch was taken, or the overlay deleted.
//
// Who got ErrUnavailable does not know whether it was done, and calls again
// with the same head: to commit what is committed is fine. A head whose
// sequence is behind is fs.ErrInvalid. More than MaxGarbage entries are
// ErrTooBig.
func (c *Catalog) CommitHead(ctx context.Context, id string, h OverlayHead, garbage []Garbage) error {
	unlock, err := c.locks.lock(ctx, preHead+id)
	if err == nil {
		defer unlock()
		err = c.retry(ctx, func(int) error { return c.commitHead(ctx, id, h, garbage) })
	}
	if err != nil {
		return fmt.Errorf("catalog: commit head %d of overlay %s in epoch %d: %w", h.Sequence, id, h.Epoch, err)
	}
	return nil
}

func (c *Catalog) commitHead(ctx context.Context, id string, h OverlayHead, garbage []Garbage) error {
	now, seen, err := fresh(ctx, c, headKind(), id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it is gone: %w", ErrFenced)
	case err != nil:
		return err
	case now.Epoch > h.Epoch:
		return fmt.Errorf("epoch %d was taken: %w", now.Epoch, ErrFenced)
	case now.Epoch < h.Epoch:
		return fmt.Errorf("epoch %d was never taken: the newest is %d: %w", h.Epoch, now.Epoch, fs.ErrInvalid)
	case now.Sequence > h.Sequence:
		return fmt.Errorf("head %d is committed: %w", now.Sequence, fs.ErrInvalid)
	}
	txn := Txn{If: []Cond{{Key: preHead + id, Revision: seen}}}
	if !now.same(h) {
		if txn.Then, err = h.ops(id, now.Dirty, c); err != nil {
			return err
		}
	}
	// If it is committed, so may be the garbage; an object that is removed
	// twice does no harm, and one that is forgotten stays for ever.
	more, err := c.discardAll(garbage, 2*c.leaseTime())
	if err != nil {
		return err
	}
	if txn.Then = append(txn.Then, more...); len(txn.Then) == 0 {
		return nil
	}
	_, err = c.commit(ctx, txn)
	return err
}

// ops returns the operations that write a head after one that was dirty or
// not.
func (h OverlayHead) ops(id string, wasDirty bool, c *Catalog) ([]Op, error) {
	op, err := putData(preHead+id, h.record(), h.Data)
	if err != nil {
		return nil, err
	}
	ops := []Op{op}
	switch {
	case h.Dirty && !wasDirty:
		ops = append(ops, mark(preDirty+id, "", c.now()))
	case !h.Dirty && wasDirty:
		ops = append(ops, Op{Key: preDirty + id, Delete: true})
	}
	return ops, nil
}

// same tells whether two heads say the same.
func (h OverlayHead) same(other OverlayHead) bool {
	return h.Epoch == other.Epoch && h.Sequence == other.Sequence && h.Dirty == other.Dirty && bytes.Equal(h.Data, other.Data)
}
