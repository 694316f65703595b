package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
)

// TestLateStore: a store that is away at the start is asked for again, not
// more often than every few seconds, and is then as good as any.
func TestLateStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, away := 0, errors.New("nobody listens")
		back := time.Now().Add(12 * time.Second)
		l := newLate("cold", func(context.Context) (backends.Store, error) {
			if tries++; time.Now().Before(back) {
				return nil, away
			}
			return mem.New(), nil
		}, slog.New(slog.DiscardHandler))

		if err := l.state(); err != nil {
			t.Errorf("before anybody asked: %v", err)
		}
		for range 3 {
			_, err := l.Open(t.Context(), "a")
			if !errors.Is(err, away) || !strings.Contains(err.Error(), "store cold cannot be opened") {
				t.Errorf("away: %v", err)
			}
		}
		if tries != 1 || l.state() == nil || len(l.Capabilities()) > 0 || l.URI("a") != "" {
			t.Errorf("asked %d times, state %v", tries, l.state())
		}
		if err := l.run(t.Context()); err != nil {
			t.Error(err)
		}
		if passed := time.Since(back); passed < 0 || passed > reopenEvery || l.state() != nil {
			t.Errorf("open %s after it was back, state %v", passed, l.state())
		}
		w, err := l.Create(t.Context(), "a", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.CopyFrom(t.Context(), "b", l, "a"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("copy inside memory: %v", err)
		}
		if err := l.Delete(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// TestLateStoreIsAskedOnce: who comes while it is opened waits for the answer.
func TestLateStoreIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		l := newLate("cold", func(context.Context) (backends.Store, error) {
			tries++
			time.Sleep(time.Second)
			return mem.New(), nil
		}, slog.New(slog.DiscardHandler))
		for range 8 {
			go func() {
				if _, err := l.get(t.Context()); err != nil {
					t.Error(err)
				}
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.Sleep(time.Millisecond)
		if _, err := l.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who has no time: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if tries != 1 {
			t.Errorf("opened %d times", tries)
		}
	})
}

// TestLateStoreOutlivesItsClients: that somebody has no time says nothing of a
// store, and does not end its opening.
func TestLateStoreOutlivesItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		l := newLate("cold", func(ctx context.Context) (backends.Store, error) {
			tries++
			select {
			case <-time.After(4 * time.Second):
				return mem.New(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, slog.New(slog.DiscardHandler))
		defer l.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.get(ctx); !errors.Is(err, errNotYet) {
			t.Errorf("who has no time: %v", err)
		}
		if err := l.state(); !errors.Is(err, errNotYet) {
			t.Errorf("while it is opened: %v", err)
		}
		if _, err := l.get(t.Context()); err != nil || tries != 1 {
			t.Errorf("the next one, after %d tries: %v", tries, err)
		}
		if err := l.state(); err != nil {
			t.Error(err)
		}
	})
}

// TestStoresThatHang: stores that do not answer delay neither a start nor a
// stop for long.
func TestStoresThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []*place
		for range 8 {
			list = append(list, &place{late: newLate("cold", func(ctx context.Context) (backends.Store, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}, slog.New(slog.DiscardHandler))})
		}
		began := time.Now()
		if err := openFirst(t.Context(), list, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > startWithin {
			t.Errorf("the start waited %s", took)
		}
		began = time.Now()
		if err := (&places{stores: list}).close(); err != nil || time.Since(began) > time.Second {
			t.Errorf("the stop: %v after %s", err, time.Since(began))
		}
		if _, err := list[0].late.get(t.Context()); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("after the stop: %v", err)
		}
	})
}
