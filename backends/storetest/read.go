package storetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

func notThere(ctx context.Context, s backends.Store) error {
	if err := wantEmpty(ctx, s); err != nil {
		return err
	}
	if err := Put(ctx, s, "folder/there", -1, Bytes(1, 10)); err != nil {
		return err
	}
	for _, key := range []string{"nothing", "no/thing", "folder", "folder/thing", "folder/there/thing"} {
		if err := wantNone(ctx, s, key); err != nil {
			return err
		}
		if err := s.Delete(ctx, key); err != nil {
			return fmt.Errorf("delete %s, which is nothing: %w", key, err)
		}
	}
	return Want(ctx, s, "folder/there", Bytes(1, 10))
}

func deleted(ctx context.Context, s backends.Store) error {
	for _, key := range []string{"a/1", "a/2", "b"} {
		if err := Put(ctx, s, key, -1, Bytes(1, 100_000)); err != nil {
			return err
		}
	}
	for _, key := range []string{"a/1", "b", "b"} {
		if err := s.Delete(ctx, key); err != nil {
			return err
		}
		if err := wantNone(ctx, s, key); err != nil {
			return err
		}
	}
	if err := Want(ctx, s, "a/2", Bytes(1, 100_000)); err != nil {
		return fmt.Errorf("a neighbour of what was deleted: %w", err)
	}
	if err := Put(ctx, s, "a/1", -1, Bytes(2, 10)); err != nil {
		return fmt.Errorf("a deleted key again: %w", err)
	}
	return Want(ctx, s, "a/1", Bytes(2, 10))
}

// deleteFar is deleteOpen for a store that cannot keep what was deleted.
func deleteFar(ctx context.Context, s backends.Store) error {
	err := deleteOpen(ctx, s)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
		return nil
	}
	return err
}

func deleteOpen(ctx context.Context, s backends.Store) error {
	data := Bytes(1, 300_000)
	if err := Put(ctx, s, "k", -1, data); err != nil {
		return err
	}
	r, err := s.Open(ctx, "k")
	if err != nil {
		return err
	}
	defer r.Close()
	if err := s.Delete(ctx, "k"); err != nil {
		return err
	}
	if err := Put(ctx, s, "k", -1, Bytes(2, 300_000)); err != nil {
		return err
	}
	if err := blocktest.Equal(ctx, r, data); err != nil {
		return fmt.Errorf("a reader that was open when its object was deleted: %w", err)
	}
	return nil
}

func keys(ctx context.Context, s backends.Store) error {
	good := []string{
		"a", ".a", "a.", "...", "A_b-9", "-", "a/.b/c", "partial/x", "tmp/x", "a.part",
		strings.Repeat("k", 255), strings.Repeat("k/", 127) + "k",
		"6f8f1a0e-7f7a-4b0e-9a53-0c9d1a1a7d11/b2b7a9f6-8b5b-4a5c-8d58-3b6a1b0f2c3d",
	}
	for i, key := range good {
		if err := Put(ctx, s, key, -1, Bytes(uint64(i), 10)); err != nil && !(key == "a" && errors.Is(err, fs.ErrExist)) {
			return err
		}
		if err := Want(ctx, s, key, Bytes(uint64(i), 10)); err != nil {
			return err
		}
		if key == "a" {
			if err := s.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	bad := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", "a b", "a\x00", "a\\b", "ä",
		"a+b", "+partial", "a:b", "~", "*", "%2e", strings.Repeat("k", 256), "a\n",
	}
	for _, key := range bad {
		_, errOpen := s.Open(ctx, key)
		if err := wantErr(fmt.Sprintf("Open(%q)", key), errOpen, fs.ErrInvalid); err != nil {
			return err
		}
		err := Put(ctx, s, key, -1, nil)
		if err := wantErr(fmt.Sprintf("Create(%q)", key), err, fs.ErrInvalid); err != nil {
			return err
		}
	}
	return nil
}

// beneath: whether a key may have keys beneath it is the store's choice, but a
// refusal is fs.ErrExist and harms neither.
func beneath(ctx context.Context, s backends.Store) error {
	for _, pair := range [][2]string{{"a", "a/b"}, {"c/d", "c"}} {
		if err := Put(ctx, s, pair[0], -1, Bytes(1, 10)); err != nil {
			return err
		}
		err := Put(ctx, s, pair[1], -1, Bytes(2, 10))
		if err == nil {
			err = Want(ctx, s, pair[1], Bytes(2, 10))
		} else if errors.Is(err, fs.ErrExist) {
			err = wantNone(ctx, s, pair[1])
		}
		if err != nil {
			return fmt.Errorf("%s beside %s: %w", pair[1], pair[0], err)
		}
		if err := Want(ctx, s, pair[0], Bytes(1, 10)); err != nil {
			return err
		}
	}
	return nil
}

// list: whatever can be written to must be a Lister as well, or nobody could
// sweep it.
func list(ctx context.Context, s backends.Store) error {
	began := time.Now().Add(-time.Minute)
	want := map[string]int64{"a/1": 0, "a/2": 70_000, "b": 5, "c/d/e/f": 1 << 20}
	for key, n := range want {
		if err := Put(ctx, s, key, -1, Bytes(2, int(n))); err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for e, err := range backends.List(ctx, s) {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		n, known := want[e.Key]
		if !known || seen[e.Key] || e.Size != n || e.Partial || e.Modified.Before(began) {
			return fmt.Errorf("the listing shows %+v, want each of %v once", e, want)
		}
		seen[e.Key] = true
	}
	if len(seen) != len(want) {
		return fmt.Errorf("the listing shows %d objects, want %d", len(seen), len(want))
	}
	for range backends.List(ctx, s) {
		break // ends the listing
	}
	return listCancelled(ctx, s)
}

func listCancelled(ctx context.Context, s backends.Store) error {
	short, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range backends.List(short, s) {
		if err != nil {
			return wantErr("List with a cancelled context", err, context.Canceled)
		}
	}
	return errors.New("a listing with a cancelled context ended as if it were complete")
}

func usage(ctx context.Context, s backends.Store) error {
	u, err := backends.UsageOf(ctx, s)
	if err != nil {
		return err
	}
	if u.Total < 0 || u.Free < 0 || u.Free > u.Total {
		return fmt.Errorf("usage is %+v", u)
	}
	return nil
}

func closedReader(ctx context.Context, s backends.Store) error {
	if err := Put(ctx, s, "k", -1, Bytes(1, 1000)); err != nil {
		return err
	}
	one, err := s.Open(ctx, "k")
	if err != nil {
		return err
	}
	two, err := s.Open(ctx, "k")
	if err != nil {
		return err
	}
	if err := one.Close(); err != nil {
		return err
	}
	if err := one.ReadAt(ctx, make([]byte, 10), 0); err == nil {
		return errors.New("ReadAt after Close worked")
	}
	if err := blocktest.Equal(ctx, two, Bytes(1, 1000)); err != nil {
		return fmt.Errorf("a reader, after another of the same object was closed: %w", err)
	}
	return two.Close()
}

// parallel uses one store for everything at once; what it deletes shares its
// folder with what others create.
func parallel(ctx context.Context, s backends.Store) error {
	g, ctx := errgroup.WithContext(ctx)
	for user := range 6 {
		g.Go(func() error {
			for i := range 12 {
				key := fmt.Sprintf("shared/%d/user-%d", i, user)
				data := Bytes(uint64(user*100+i), 5000)
				if err := Put(ctx, s, key, -1, data); err != nil {
					return err
				}
				if err := Want(ctx, s, key, data); err != nil {
					return err
				}
				if i%4 == user%4 {
					continue // stays
				}
				if err := s.Delete(ctx, key); err != nil {
					return err
				}
			}
			for _, err := range backends.List(ctx, s) {
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return stayed(context.WithoutCancel(ctx), s)
}

func stayed(ctx context.Context, s backends.Store) error {
	for user := range 6 {
		for i := range 12 {
			key := fmt.Sprintf("shared/%d/user-%d", i, user)
			err := wantNone(ctx, s, key)
			if slices.Contains([]int{0, 4, 8}, i-user%4) {
				err = Want(ctx, s, key, Bytes(uint64(user*100+i), 5000))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
