package exports

import (
	"context"
	"errors"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/catalogtest"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A cluster is several gateways on one catalog and one store, in which they
// keep overlays as logs.
type cluster struct {
	t     *testing.T
	kv    *memkv.KV
	store *mem.Store
	logs  *flaky // the same store, for the objects of overlays
}

func newCluster(t *testing.T) *cluster {
	s := mem.New()
	return &cluster{t: t, kv: memkv.New(), store: s, logs: &flaky{s: s}}
}

// gateway starts a gateway with a disk of its own.
func (c *cluster) gateway(id string) *rig {
	c.t.Helper()
	r := c.machine(id)
	r.start()
	return r
}

// machine is a gateway that is not started yet.
func (c *cluster) machine(id string) *rig {
	r := &rig{t: c.t, id: id, kv: catalogtest.NewFaulty(c.kv), store: c.store, dir: c.t.TempDir(), now: time.Now()}
	r.change = func(cfg *Config) {
		cfg.DefaultStore = "mem"
		cfg.Overlays = map[string]Overlays{"mem": {Objects: c.logs}}
		cat := r.cat
		cfg.Join = func(ctx context.Context) (*catalog.Membership, error) { return cat.Join(ctx, time.Minute, "") }
	}
	c.t.Cleanup(func() {
		if r.e != nil {
			r.e.drain = time.Millisecond
			r.e.Close()
			r.cat.Close()
		}
	})
	return r
}

// kill ends a gateway as kill -9 does and returns what would start on its
// disk. To the others it is gone at once.
func (c *cluster) kill(r *rig) *rig {
	c.t.Helper()
	if err := r.e.members.close(); err != nil {
		c.t.Fatal(err)
	}
	r.faulty().Down()
	r.e.drain = time.Millisecond // it cannot bring over anything
	next := c.machine(r.id)
	if err := os.CopyFS(next.dir, os.DirFS(r.dir)); err != nil { // the dead one has its files locked
		c.t.Fatal(err)
	}
	return next
}

func (r *rig) faulty() *catalogtest.Faulty { return r.kv.(*catalogtest.Faulty) }

// sees waits until a gateway knows what another one does.
func (r *rig) sees(other *rig) {
	r.t.Helper()
	eventually(r.t, "the catalog to follow", func() bool { return reflect.DeepEqual(r.knows(), other.knows()) })
}

// knows is what a gateway has heard of so far, what it did itself included.
func (r *rig) knows() (all [2]any) {
	all[0], _ = r.cat.Overlays(context.Background(), catalog.OverlayQuery{})
	all[1], _ = r.cat.Attachments(context.Background(), catalog.AttachmentQuery{})
	return all
}

// eventually waits for something that others bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// record is an overlay as the catalog has it.
func (r *rig) record(id string) catalog.Overlay {
	r.t.Helper()
	ov, err := r.cat.Overlay(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return ov
}

var errAway = errors.New("nobody answers")

// A flaky store can be away, and can hang.
type flaky struct {
	s *mem.Store

	mu   sync.Mutex
	away bool
	hang bool // opening waits for its context
}

func (f *flaky) set(away, hang bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.hang = away, hang
}

func (f *flaky) ask(ctx context.Context, open bool) error {
	f.mu.Lock()
	away, hang := f.away, f.hang
	f.mu.Unlock()
	if hang && open {
		<-ctx.Done()
		return ctx.Err()
	}
	if away {
		return errAway
	}
	return ctx.Err()
}

func (f *flaky) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	if err := f.ask(ctx, true); err != nil {
		return nil, err
	}
	return f.s.Open(ctx, key)
}

func (f *flaky) Create(ctx context.Context, key string, size int64) (backends.Writer, error) {
	if err := f.ask(ctx, false); err != nil {
		return nil, err
	}
	return f.s.Create(ctx, key, size)
}

func (f *flaky) Delete(ctx context.Context, key string) error {
	if err := f.ask(ctx, false); err != nil {
		return err
	}
	return f.s.Delete(ctx, key)
}
