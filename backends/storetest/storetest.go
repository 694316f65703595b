// Package storetest tests any backends.Store, and measures it.
//
// [Test] is what every store must pass. [TestFull] and [TestPartial] are for
// stores that can be made full, and that a crash can leave something in. Each
// promise is a check with a name; what it finds broken it returns as an error,
// so that the suite itself can be tested.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
)

// Test tests that the stores that open returns keep every promise of a
// backends.Store. Each check gets an empty store of its own.
func Test(t *testing.T, open func(t *testing.T) backends.Store) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			if err := c.run(t.Context(), open(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Far is Test for a store behind a network, of which less can be asked: it
// shows no listing, for it may share its place with others, and a reader of an
// object that is deleted may get an error, fs.ErrNotExist or syscall.ESTALE,
// but never other bytes.
func Far(t *testing.T, open func(t *testing.T) backends.Store) {
	t.Helper()
	for _, c := range farChecks() {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			if err := c.run(t.Context(), open(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// farChecks are those of Far.
func farChecks() []check {
	var out []check
	for _, c := range checks() {
		switch c.name {
		case "list":
			continue
		case "delete while open":
			c.run = deleteFar
		}
		out = append(out, c)
	}
	return out
}

// Check is Test with an error as its answer.
func Check(ctx context.Context, open func() backends.Store) error {
	for _, c := range checks() {
		if err := c.run(ctx, open()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

type check struct {
	name string
	run  func(ctx context.Context, s backends.Store) error
}

func checks() []check {
	return []check{
		{"round trip", roundTrip},
		{"holes", holes},
		{"invisible until commit", invisible},
		{"abort", abort},
		{"ended writer", ended},
		{"wrong size", wrongSize},
		{"taken key", taken},
		{"one of many wins", oneWins},
		{"not there", notThere},
		{"delete", deleted},
		{"delete while open", deleteOpen},
		{"keys", keys},
		{"key beneath a key", beneath},
		{"cancelled", cancelled},
		{"list", list},
		{"usage", usage},
		{"closed reader", closedReader},
		{"parallel", parallel},
	}
}

// Bytes returns n bytes that are never the same for two seeds; those of even
// seeds have holes.
func Bytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p) // cannot fail
	for i := 64 << 10; i < n && seed%2 == 0; i += 256 << 10 {
		clear(p[i:min(n, i+64<<10)])
	}
	return p
}

// Put stores data at key, in pieces of odd sizes.
func Put(ctx context.Context, s backends.Store, key string, size int64, data []byte) error {
	w, err := s.Create(ctx, key, size)
	if err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	defer w.Abort()
	if err := write(w, data); err != nil {
		return err
	}
	if err := w.Commit(ctx); err != nil {
		return fmt.Errorf("commit %s: %w", key, err)
	}
	return nil
}

// write writes in pieces, some of them of no bytes, and overwrites each
// afterwards: a Writer must not keep its slice.
func write(w io.Writer, data []byte) error {
	rng := rand.New(rand.NewPCG(2, uint64(len(data))))
	for rest := data; ; {
		longest := [...]int64{1, 1000, 32 << 10, 3 << 20}
		piece := bytes.Clone(rest[:min(int64(len(rest)), rng.Int64N(longest[rng.IntN(4)]))])
		n, err := w.Write(piece)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if n != len(piece) {
			return fmt.Errorf("write of %d bytes = %d without an error", len(piece), n)
		}
		if rest = rest[n:]; len(rest) == 0 {
			return nil
		}
		for i := range piece {
			piece[i] ^= 0xFF
		}
	}
}

// Want returns an error unless the object at key holds exactly data.
func Want(ctx context.Context, s backends.Store, key string, data []byte) error {
	r, err := s.Open(ctx, key)
	if err != nil {
		return fmt.Errorf("open %s: %w", key, err)
	}
	defer r.Close()
	if err := blocktest.Equal(ctx, r, data); err != nil {
		return fmt.Errorf("object %s: %w", key, err)
	}
	return nil
}

// wantNone returns an error if there is an object at key, or anything else.
func wantNone(ctx context.Context, s backends.Store, key string) error {
	r, err := s.Open(ctx, key)
	if err == nil {
		r.Close()
	}
	return wantErr(fmt.Sprintf("Open(%s)", key), err, fs.ErrNotExist)
}

// wantEmpty returns an error if s lists anything.
func wantEmpty(ctx context.Context, s backends.Store) error {
	for e, err := range backends.List(ctx, s) {
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		return fmt.Errorf("the listing shows %+v, want nothing", e)
	}
	return nil
}

func wantErr(what string, err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%s = %v, want an error that is %q", what, err, want)
}
