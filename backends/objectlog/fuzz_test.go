package objectlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// stored makes a log with a bit of everything, and returns what it stored.
func stored(t testing.TB) (*rig, []byte, *state) {
	r := newRig(t, 256<<10)
	r.cfg.SegmentSize = 16 << 10
	l := r.create(t)
	for i := range 40 {
		if err := l.WriteAt(context.Background(), fill(1000, byte(i+1)), int64(i)*5000); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Zero(context.Background(), 3000, 4000, block.ZeroAny); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Snapshot(context.Background(), "s"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := l.WriteAt(context.Background(), fill(2000, byte(i+100)), int64(i)*5000); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := content(t, l)
	closeLog(t, l)
	s, err := decodeState(r.heads.now().State)
	if err != nil {
		t.Fatal(err)
	}
	return r, want, s
}

func objectOf(t testing.TB, r *rig, key string) []byte {
	o, err := r.mem.Open(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	return content(t, o)
}

// FuzzState: a head that is not refused says the same when it is written again.
func FuzzState(f *testing.F) {
	r, _, _ := stored(f)
	p := r.heads.now().State
	f.Add(p[:len(p)-sha256.Size])
	f.Fuzz(func(t *testing.T, p []byte) {
		sum := sha256.Sum256(p)
		s, err := decodeState(slices.Concat(p, sum[:]))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		if again, err := decodeState(s.encode()); err != nil || string(again.encode()) != string(s.encode()) {
			t.Error("it does not come back: ", err)
		}
		s.leftovers("x/", 1)
	})
}

// FuzzSegment: a table that is not refused is inside the disk and the payload.
func FuzzSegment(f *testing.F) {
	r, _, s := stored(f)
	for _, ref := range s.tail {
		f.Add(objectOf(f, r, ref.key(r.cfg.Prefix)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		ref := segment{seq: 1, epoch: 1, meta: int64(len(p))}
		if len(p) >= headerLen {
			ref.epoch, ref.seq = int64(le.Uint64(p[8:])), int64(le.Uint64(p[16:]))
			ref.meta = min(int64(le.Uint32(p[132:])), int64(len(p)))
			ref.payload = int64(le.Uint32(p[136:]))
		}
		if c := (&cursor{p: ref.append(nil)}); ref.meta < headerLen || ref.seq < 1 || c.ref() != ref || c.bad {
			return
		}
		ref.digest = metaDigest(p[:ref.meta])
		m, err := decodeMeta(p[:ref.meta], ref)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		d := &disk{seq: ref.seq - 1, size: m.size, m: extent.New(), segs: make(segments)}
		if err := d.apply(ref, m, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.check(); err != nil {
			t.Error(err)
		}
	})
}

type (
	segment  = ref
	segments = map[int64]segment
)

// FuzzMap: a checkpoint that is not refused refers only to what is there.
func FuzzMap(f *testing.F) {
	r, _, s := stored(f)
	p := objectOf(f, r, s.base.key(r.cfg.Prefix))
	f.Add(p[:len(p)-sha256.Size])
	id := digest(sha256.Sum256([]byte(r.cfg.ID)))
	f.Fuzz(func(t *testing.T, p []byte) {
		m := mapRef{length: int64(len(p)) + sha256.Size, digest: sha256.Sum256(p)}
		if len(p) >= mapHeader {
			m.epoch, m.number, m.seq = int64(le.Uint64(p[8:])), int64(le.Uint64(p[16:])), int64(le.Uint64(p[56:]))
		}
		d, err := decodeMap(context.Background(), mem.Reader(slices.Concat(p, m.digest[:])), id, m)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		for off := int64(0); off < d.size; {
			e := d.place(off, d.size-off)
			if e.n < 1 || e.kind == inSegment && e.at+e.n > e.seg.payload {
				t.Fatalf("place %+v", e)
			}
			off += e.n
		}
	})
}

// TestDamage changes objects of the store, one at a time: what is read then is
// right, or an error.
func TestDamage(t *testing.T) {
	r, want, _ := stored(t)
	keys, err := Objects(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for _, key := range keys {
		o, err := r.mem.Open(t.Context(), key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		p := content(t, o)
		o.Close()
		for try := range 30 {
			c := r.clone(t, newFS(t))
			if err := c.mem.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), p...)
			switch {
			case try == 0:
				bad = nil
			case try == 1:
				bad = bad[:len(bad)/2]
			case try == 2:
				bad = append(bad, 0)
			default:
				bad[rng.IntN(len(bad))] ^= byte(1 << rng.IntN(8))
			}
			if bad != nil {
				putObject(t, c.mem, key, bad)
			}
			if err := damaged(t, c, want); err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", key, err)
				}
				refused++
			}
		}
	}
	if refused < 60 {
		t.Errorf("only %d damages were noticed", refused)
	}
}

func damaged(t *testing.T, r *rig, want []byte) error {
	l, err := Open(t.Context(), r.config())
	if err != nil {
		return err
	}
	defer l.Close()
	for _, s := range l.Snapshots() {
		v, err := l.OpenSnapshot(t.Context(), s.ID)
		if err != nil {
			return err
		}
		defer v.Close()
		if err := v.ReadAt(t.Context(), make([]byte, v.Size()), 0); err != nil {
			return err
		}
	}
	got := make([]byte, len(want))
	if err := l.ReadAt(t.Context(), got, 0); err != nil {
		return err
	}
	if i := diff(got, want); i >= 0 {
		t.Errorf("byte %d is %d, want %d, and there was no error", i, got[i], want[i])
	}
	return nil
}
