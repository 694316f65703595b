package storetest

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
)

// TestFull tests a store in which limit bytes fit, or a little fewer: an
// object that is too big is syscall.ENOSPC and leaves nothing behind. limit
// must be 1 MiB or more.
func TestFull(t *testing.T, s backends.Store, limit int64) {
	t.Helper()
	if err := full(t.Context(), s, limit); err != nil {
		t.Error(err)
	}
}

func full(ctx context.Context, s backends.Store, limit int64) error {
	half := Bytes(1, int(limit/2))
	if err := Put(ctx, s, "half", -1, half); err != nil {
		return err
	}
	for _, size := range []int64{-1, limit} {
		err := Put(ctx, s, "too/big", size, Bytes(3, int(limit)))
		if err := wantErr("an object that does not fit", err, syscall.ENOSPC); err != nil {
			return err
		}
		if err := wantNone(ctx, s, "too/big"); err != nil {
			return err
		}
	}
	for e, err := range backends.List(ctx, s) {
		if err != nil || e.Key != "half" {
			return fmt.Errorf("the listing shows %+v, %v after a refused object", e, err)
		}
	}
	if err := Put(ctx, s, "quarter", -1, Bytes(5, int(limit/4))); err != nil {
		return fmt.Errorf("an object that fits, after one that did not: %w", err)
	}
	if err := s.Delete(ctx, "half"); err != nil {
		return err
	}
	if err := Put(ctx, s, "half/again", -1, half); err != nil {
		return fmt.Errorf("in the space of a deleted object: %w", err)
	}
	return Want(ctx, s, "half/again", half)
}

// TestPartial tests a store in which a crash left an unfinished object at
// key, and nothing else: it is listed, cannot be opened, is in nobody's way,
// and Delete of what the listing says frees it and nothing else.
func TestPartial(t *testing.T, s backends.Store, key string) {
	t.Helper()
	if err := partial(t.Context(), s, key); err != nil {
		t.Error(err)
	}
}

func partial(ctx context.Context, s backends.Store, key string) error {
	if err := wantNone(ctx, s, key); err != nil {
		return err
	}
	if err := Put(ctx, s, key, -1, Bytes(7, 1000)); err != nil {
		return fmt.Errorf("beside an unfinished object: %w", err)
	}
	found := 0
	for e, err := range backends.List(ctx, s) {
		if err != nil {
			return err
		}
		if !e.Partial {
			continue
		}
		found++
		if !strings.HasPrefix(e.Key, key) {
			return fmt.Errorf("the unfinished object of %s is listed as %s", key, e.Key)
		}
		if r, err := s.Open(ctx, e.Key); err == nil && e.Key != key {
			r.Close()
			return fmt.Errorf("opening %s, which is unfinished, worked", e.Key)
		}
		if err := s.Delete(ctx, e.Key); err != nil {
			return fmt.Errorf("delete %s: %w", e.Key, err)
		}
	}
	if found != 1 {
		return fmt.Errorf("the listing shows %d unfinished objects, want 1", found)
	}
	for e, err := range backends.List(ctx, s) {
		if err != nil || e.Partial {
			return fmt.Errorf("the listing shows %+v, %v after Delete", e, err)
		}
	}
	return Want(ctx, s, key, Bytes(7, 1000))
}
