package decode

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func fillWith(b byte) func(context.Context, []byte) error {
	return func(_ context.Context, p []byte) error {
		for i := range p {
			p[i] = b
		}
		return nil
	}
}

// What came early and has been read whole goes before what is read again and
// again, and what came early and has not been read stays.
func TestEarlyGoesFirst(t *testing.T) {
	const n = 1000
	c := NewCache(shards * 8 * n)
	s := c.of(Key{})
	var keys []Key // all in one shard
	for off := int64(0); len(keys) < 30; off++ {
		if k := (Key{Off: off}); c.of(k) == s {
			keys = append(keys, k)
		}
	}
	p := make([]byte, n)
	for _, k := range keys[:2] { // hot
		if err := c.Fill(t.Context(), k, n, p, 0, fillWith(1)); err != nil {
			t.Fatal(err)
		}
	}
	for i, k := range keys[2:28] {
		if err := c.Early(t.Context(), k, n, fillWith(byte(i))); err != nil {
			t.Fatal(err)
		}
		if !c.Get(k, p, 0) || p[0] != byte(i) {
			t.Fatalf("early cluster %d is not there", i)
		}
	}
	for _, k := range keys[:2] {
		if !c.Has(k) {
			t.Errorf("%v was thrown out by a stream that was read once", k)
		}
	}
	if s.used > s.limit {
		t.Errorf("%d bytes of %d", s.used, s.limit)
	}
	if err := c.Early(t.Context(), keys[28], n, fillWith(9)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !c.Get(keys[28], p[:10], 5) {
			t.Error("a part of what came early can be read once only")
		}
	}
}

func TestEarlyIsWaitedFor(t *testing.T) {
	c := NewCache(1 << 20)
	began, finish := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	for _, fails := range []bool{false, true} {
		k := Key{Extra: 1}
		if fails {
			k = Key{Extra: 2}
		}
		var all sync.WaitGroup
		all.Go(func() {
			err := c.Early(t.Context(), k, 600, func(_ context.Context, p []byte) error {
				began <- struct{}{}
				<-finish
				if fails {
					return broken
				}
				p[3] = 7
				return nil
			})
			if fails != (err != nil) {
				t.Errorf("fails %v: %v", fails, err)
			}
		})
		<-began
		if !c.Has(k) || c.Get(k, make([]byte, 1), 0) {
			t.Error("what is being decoded is there too early, or not at all")
		}
		if err := c.Early(t.Context(), k, 600, nil); err != nil { // somebody is at it
			t.Error(err)
		}
		all.Go(func() {
			p := make([]byte, 1)
			there, err := c.Join(t.Context(), k, p, 3)
			if there && p[0] != 7 || !there && !fails || err != nil {
				t.Errorf("fails %v: joined %v, %v, %v", fails, there, p, err)
			}
		})
		all.Go(func() {
			p := make([]byte, 1)
			err := c.Fill(t.Context(), k, 600, p, 3, fillWith(7))
			if err != nil || p[0] != 7 {
				t.Errorf("fails %v: %v, %v", fails, p, err)
			}
		})
		finish <- struct{}{}
		all.Wait()
	}
	if there, err := c.Join(t.Context(), Key{Extra: 3}, make([]byte, 1), 0); there || err != nil {
		t.Error(there, err)
	}
}
