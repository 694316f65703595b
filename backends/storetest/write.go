package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

func roundTrip(ctx context.Context, s backends.Store) error {
	for i, n := range []int{0, 1, 511, 4096, 65536, 65537, 1<<20 - 1, 1 << 20, 1<<21 + 777} {
		for known, size := range map[string]int64{"known": int64(n), "unknown": -1} {
			key := fmt.Sprintf("%s/%d", known, n)
			data := Bytes(uint64(i), n)
			if err := Put(ctx, s, key, size, data); err != nil {
				return err
			}
			if err := Want(ctx, s, key, data); err != nil {
				return err
			}
		}
	}
	return reader(ctx, s, "known/65537", Bytes(5, 65537))
}

// holes stores what is mostly zeros and tests the object as a Reader.
func holes(ctx context.Context, s backends.Store) error {
	data := make([]byte, 5<<20+12345)
	copy(data[1<<20+4000:], Bytes(1, 200_000))
	copy(data[3<<20:], Bytes(3, 1))
	if err := Put(ctx, s, "sparse", -1, data); err != nil {
		return err
	}
	if err := reader(ctx, s, "sparse", data); err != nil {
		return err
	}
	zeros := make([]byte, 1<<20+1)
	if err := Put(ctx, s, "zeros", int64(len(zeros)), zeros); err != nil {
		return err
	}
	return reader(ctx, s, "zeros", zeros)
}

func reader(ctx context.Context, s backends.Store, key string, data []byte) error {
	r, err := s.Open(ctx, key)
	if err != nil {
		return err
	}
	defer r.Close()
	return blocktest.CheckReader(ctx, r, data)
}

func invisible(ctx context.Context, s backends.Store) error {
	w, err := s.Create(ctx, "a/b", -1)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := write(w, Bytes(1, 100_000)); err != nil {
		return err
	}
	if err := wantNone(ctx, s, "a/b"); err != nil {
		return fmt.Errorf("before Commit: %w", err)
	}
	for e, err := range backends.List(ctx, s) {
		if err != nil || !e.Partial {
			return fmt.Errorf("the listing shows %+v, %v before Commit", e, err)
		}
	}
	if err := w.Commit(ctx); err != nil {
		return err
	}
	w.Abort() // does nothing
	return Want(ctx, s, "a/b", Bytes(1, 100_000))
}

func abort(ctx context.Context, s backends.Store) error {
	for _, n := range []int{0, 10, 3 << 20} {
		w, err := s.Create(ctx, "a/b", -1)
		if err != nil {
			return err
		}
		if err := write(w, Bytes(1, n)); err != nil {
			return err
		}
		w.Abort()
		w.Abort()
		if err := wantNone(ctx, s, "a/b"); err != nil {
			return err
		}
		if err := wantEmpty(ctx, s); err != nil {
			return err
		}
	}
	if err := Put(ctx, s, "a/b", -1, Bytes(2, 10)); err != nil {
		return fmt.Errorf("after Abort: %w", err)
	}
	return Want(ctx, s, "a/b", Bytes(2, 10))
}

// ended: a Writer that has ended takes nothing more.
func ended(ctx context.Context, s backends.Store) error {
	for _, end := range []string{"commit", "abort"} {
		w, err := s.Create(ctx, end, -1)
		if err != nil {
			return err
		}
		if err := write(w, Bytes(1, 10)); err != nil {
			return err
		}
		if end == "abort" {
			w.Abort()
		} else if err := w.Commit(ctx); err != nil {
			return err
		}
		if _, err := w.Write([]byte("more")); err == nil {
			return fmt.Errorf("a write after %s worked", end)
		}
		if err := w.Commit(ctx); err == nil {
			return fmt.Errorf("a commit after %s worked", end)
		}
	}
	if err := wantNone(ctx, s, "abort"); err != nil {
		return err
	}
	return Want(ctx, s, "commit", Bytes(1, 10))
}

func wrongSize(ctx context.Context, s backends.Store) error {
	for _, c := range []struct{ announced, written int }{{100, 99}, {100, 101}, {0, 1}, {1, 0}, {10, 2 << 20}, {3 << 20, 1 << 20}} {
		err := Put(ctx, s, "k", int64(c.announced), Bytes(1, c.written))
		what := fmt.Sprintf("%d bytes announced, %d written", c.announced, c.written)
		if err := wantErr(what, err, io.ErrUnexpectedEOF); err != nil {
			return err
		}
		if err := wantNone(ctx, s, "k"); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := wantEmpty(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func taken(ctx context.Context, s backends.Store) error {
	if err := Put(ctx, s, "x/y", -1, Bytes(1, 1000)); err != nil {
		return err
	}
	err := Put(ctx, s, "x/y", -1, Bytes(2, 2000))
	if err := wantErr("a second object at one key", err, fs.ErrExist); err != nil {
		return err
	}
	return Want(ctx, s, "x/y", Bytes(1, 1000))
}

// oneWins lets writers of one key commit at the same time.
func oneWins(ctx context.Context, s backends.Store) error {
	const n = 6
	errs := make([]error, n)
	var g errgroup.Group
	for i := range n {
		g.Go(func() error {
			errs[i] = Put(ctx, s, "one/of/many", -1, Bytes(uint64(i), 100_000))
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			return fmt.Errorf("writers %d and %d both committed one key", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, fs.ErrExist):
			return fmt.Errorf("the loser's error is %w, want fs.ErrExist", err)
		}
	}
	if winner < 0 {
		return fmt.Errorf("nobody committed: %w", errs[0])
	}
	if err := Want(ctx, s, "one/of/many", Bytes(uint64(winner), 100_000)); err != nil {
		return err
	}
	for e, err := range backends.List(ctx, s) {
		if err != nil || e.Partial {
			return fmt.Errorf("the listing shows %+v, %v after the losers aborted", e, err)
		}
	}
	return nil
}

// cancelled: the context of Create covers the writes, that of Commit itself.
func cancelled(ctx context.Context, s backends.Store) error {
	short, cancel := context.WithCancel(ctx)
	w, err := s.Create(short, "k", -1)
	if err != nil {
		cancel()
		return err
	}
	defer w.Abort()
	if err := write(w, Bytes(1, 1000)); err != nil {
		cancel()
		return err
	}
	cancel()
	_, err = w.Write(Bytes(1, 3<<20))
	if err == nil {
		err = w.Commit(ctx)
	}
	if err := wantErr("writing with a cancelled context", err, context.Canceled); err != nil {
		return err
	}
	w.Abort()
	if err := wantErr("Create with a cancelled context", Put(short, s, "k", -1, nil), context.Canceled); err != nil {
		return err
	}
	return wantEmpty(ctx, s)
}
