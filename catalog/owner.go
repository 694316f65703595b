package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// maxQuarantined is how many journals that were left behind a record names.
const maxQuarantined = 32

// FileEngine is the engine of overlays that are files of one gateway and never
// move.
const FileEngine = "file"

// A Take says who takes an overlay.
type Take struct {
	Gateway    string // "": the Catalog's own
	AcceptLoss bool   // of what only the journal of the last owner has
}

// TakeOverlay makes a gateway the owner of an overlay, in an epoch of its own:
// whoever owned it before, an earlier run of the same gateway included, can
// commit nothing any more. It is a HeldError while another gateway owns it
// that runs, and a LossError if the last owner has a journal with data that
// nobody else has, unless the loss is accepted: then that journal is
// quarantined. It is ErrLeaseGone if this gateway's own lease has ended.
//
// The record returned is that of the taking. Its status may be any: to delete
// an overlay, it is taken too. If the answer is lost (ErrUnavailable) the
// overlay may be taken; who calls again gets the next epoch.
func (c *Catalog) TakeOverlay(ctx context.Context, id string, t Take) (Overlay, error) {
	if t.Gateway == "" {
		t.Gateway = c.cfg.GatewayID
	}
	var out Overlay
	err := checkID("gateway", t.Gateway)
	if err == nil {
		err = c.own(ctx, id, func(o Overlay, h OverlayHead, txn *Txn) (err error) {
			out, err = c.take(ctx, o, h, t, txn)
			return err
		}, func(rev int64) { out.Revision = rev })
	}
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: take overlay %s: %w", id, err)
	}
	return out, nil
}

// own changes who owns an overlay. decide gets the record and the head, both
// of which must not change until the transaction, to which it adds.
func (c *Catalog) own(ctx context.Context, id string, decide func(Overlay, OverlayHead, *Txn) error, done func(rev int64)) error {
	// Those who commit heads have only the second lock.
	for _, key := range []string{preOverlay + id, preHead + id} {
		unlock, err := c.locks.lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return c.retry(ctx, func(int) error {
		o, seen, err := fresh(ctx, c, overlayKind(), id)
		if err != nil {
			return err
		}
		h, headSeen, err := fresh(ctx, c, headKind(), id)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		o.Dirty = h.Dirty
		txn := Txn{If: []Cond{{Key: preOverlay + id, Revision: seen}, {Key: preHead + id, Revision: headSeen}}}
		if err := decide(o, h, &txn); err != nil {
			return err
		}
		rev := seen
		if len(txn.Then) > 0 {
			if rev, err = c.commit(ctx, txn); err != nil {
				return err
			}
		}
		done(rev)
		return nil
	})
}

func (c *Catalog) take(ctx context.Context, o Overlay, h OverlayHead, t Take, txn *Txn) (Overlay, error) {
	o = o.Clone()
	other := o.Gateway != t.Gateway
	switch {
	case other && o.Engine == FileEngine && o.Gateway != "":
		return o, fmt.Errorf("it is a file of gateway %s: %w", o.Gateway, fs.ErrPermission)
	case other && o.Gateway != "":
		free, err := c.gone(ctx, o.ID, o.Gateway)
		if err != nil {
			return o, err
		}
		txn.If = append(txn.If, free)
	}
	if other && h.Dirty {
		if !t.AcceptLoss {
			return o, &LossError{Overlay: o.ID, Gateway: o.Gateway}
		}
		o.Quarantined = append(o.Quarantined, Quarantine{Gateway: o.Gateway, Epoch: o.Epoch, At: c.now()})
		if n := len(o.Quarantined) - maxQuarantined; n > 0 {
			o.Quarantined = o.Quarantined[n:]
		}
	}
	if t.Gateway == c.cfg.GatewayID {
		mine, err := c.mine(ctx)
		if err != nil {
			return o, err
		}
		txn.If = append(txn.If, mine...)
	}
	o.Epoch = c.nextEpoch(max(o.Epoch, h.Epoch))
	wasDirty := h.Dirty
	h.Epoch = o.Epoch
	if other {
		o.HeldSince, h.Dirty = o.Epoch, false
	}
	o.Gateway, o.Dirty = t.Gateway, h.Dirty
	op, err := put(preOverlay+o.ID, o.record())
	if err != nil {
		return o, err
	}
	txn.Then = append(txn.Then, op)
	if o.Engine != FileEngine {
		ops, err := h.ops(o.ID, wasDirty, c)
		if err != nil {
			return o, err
		}
		txn.Then = append(txn.Then, ops...)
	}
	return o, nil
}

// gone returns the condition that a gateway's lease has ended, or the
// HeldError that says that it has not.
func (c *Catalog) gone(ctx context.Context, overlay, gateway string) (Cond, error) {
	_, err := c.kv.Get(ctx, preGateway+gateway)
	switch {
	case err == nil:
		return Cond{}, &HeldError{Overlay: overlay, Gateway: gateway}
	case !errors.Is(err, fs.ErrNotExist):
		return Cond{}, err
	}
	return Cond{Key: preGateway + gateway}, nil
}

// nextEpoch returns an epoch that nobody ever had. In a catalog that was
// restored from a backup, epochs that the backup does not know may have been
// taken: those after a restore begin at its time, in seconds.
func (c *Catalog) nextEpoch(epoch int64) int64 {
	var restored int64
	c.store.read(func(s *state) { restored = s.restored })
	return max(epoch, restored) + 1
}

// ReleaseOverlay gives an overlay back that was taken in an epoch, so that any
// gateway may take it; that epoch is over. While it is dirty it stays with its owner, whose
// journal has what nobody else has: the record that is returned says who that
// is. If another epoch was taken since, it is ErrFenced.
func (c *Catalog) ReleaseOverlay(ctx context.Context, id string, epoch int64) (Overlay, error) {
	var out Overlay
	err := c.own(ctx, id, func(o Overlay, h OverlayHead, txn *Txn) error {
		out = o
		switch {
		case o.Gateway == "" && o.Epoch == epoch+1:
			return nil // only the answer was lost
		case o.Epoch != epoch:
			return fmt.Errorf("epoch %d was taken: %w", o.Epoch, ErrFenced)
		case h.Dirty, o.Engine == FileEngine:
			return nil
		}
		out.Gateway, out.Epoch, h.Epoch = "", epoch+1, epoch+1
		op, err := put(preOverlay+id, out.record())
		if err != nil {
			return err
		}
		ops, err := h.ops(id, h.Dirty, c)
		txn.Then = append(append(txn.Then, op), ops...)
		return err
	}, func(rev int64) { out.Revision = rev })
	if err != nil {
		return Overlay{}, fmt.Errorf("catalog: release overlay %s of epoch %d: %w", id, epoch, err)
	}
	return out, nil
}
