//go:build integration

package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// process returns the process of a kind of server.
func process(t *testing.T, name string) *servers.Process {
	t.Helper()
	if name == "versitygw" {
		return versity(t).Process
	}
	return ceph(t).RGW.Process
}

func TestWrongConfiguration(t *testing.T) {
	everywhere(t, func(t *testing.T, server servers.S3) {
		right := config(t, server)
		for want, change := range map[string]func(c *s3.Config){
			"there is no bucket":            func(c *s3.Config) { c.Bucket = "no-such-bucket" },
			"does not know the access key":  func(c *s3.Config) { c.AccessKey = "nobody" },
			"correct secret_key":            func(c *s3.Config) { c.SecretKey = "wrong" },
			"does not speak TLS":            func(c *s3.Config) { c.Endpoint = strings.Replace(c.Endpoint, "http:", "https:", 1) },
			"nothing listens at 127.0.0.1:": func(c *s3.Config) { c.Endpoint = "http://127.0.0.1:1" },
		} {
			cfg := right
			change(&cfg)
			began := time.Now()
			_, err := s3.Open(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v, want an error about %q", err, want)
			}
			if d := time.Since(began); d > time.Minute {
				t.Errorf("%q took %v", want, d)
			}
		}
	})
}

// TestPaused stops the server in its tracks: reads end with an error, writes
// wait for it.
func TestPaused(t *testing.T) {
	everywhere(t, func(t *testing.T, server servers.S3) {
		cfg := config(t, server)
		cfg.Timeout = 3 * time.Second
		s := open(t, cfg)
		data := storetest.Bytes(1, 4<<20)
		if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := process(t, t.Name()[strings.LastIndex(t.Name(), "/")+1:])
		p.Pause(t)
		time.Sleep(100 * time.Millisecond) // a signal takes its time
		wrote := make(chan error, 1)
		go func() { wrote <- storetest.Put(t.Context(), s, "k2", -1, data) }()
		began := time.Now()
		err = r.ReadAt(t.Context(), make([]byte, 1000), 0)
		d := time.Since(began)
		p.Resume(t)
		if err == nil || !strings.Contains(err.Error(), "silent") || d > time.Minute {
			t.Errorf("reading from a server that is stopped: %v after %v", err, d)
		}
		if err := <-wrote; err != nil {
			t.Errorf("writing over the pause: %v", err)
		}
		for _, key := range []string{"k", "k2"} {
			if err := storetest.Want(t.Context(), s, key, data); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestQuota: radosgw tells that a quota is reached.
func TestQuota(t *testing.T) {
	c := ceph(t)
	cfg := config(t, c.RGW.S3)
	s := open(t, cfg)
	c.Command(t, "radosgw-admin", "quota", "set", "--bucket="+cfg.Bucket, "--quota-scope=bucket", "--max-size=8M")
	c.Command(t, "radosgw-admin", "quota", "enable", "--bucket="+cfg.Bucket, "--quota-scope=bucket")
	for _, n := range []int{9 << 20, 40 << 20} {
		if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, n)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d bytes into a bucket of 8 MiB = %v", n, err)
		}
	}
	if err := storetest.Put(t.Context(), s, "k", -1, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
}

// TestFull: versitygw on a small disk.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	t.Setenv("TMPDIR", dir)
	v := servers.StartVersity(t, servers.VersityConfig{})
	if _, err := os.Stat(v.Data); err != nil || !strings.HasPrefix(v.Data, dir) {
		t.Fatalf("the server keeps its files in %s", v.Data)
	}
	cfg := config(t, v.S3)
	cfg.Retry = 2 * time.Second
	s := open(t, cfg)
	if err := storetest.Put(t.Context(), s, "small", -1, storetest.Bytes(1, 1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{-1, 80 << 20} {
		err := storetest.Put(t.Context(), s, "large", size, storetest.Bytes(1, 80<<20))
		if err == nil {
			t.Fatal("80 MiB fit on a disk of 64 MiB")
		}
		t.Logf("a full disk: %v", err)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk = %v", err)
		}
	}
	// The server copies the parts when it assembles them, and frees those that
	// were on their way when it notices.
	err := storetest.Put(t.Context(), s, "large", -1, storetest.Bytes(1, 20<<20))
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		err = storetest.Put(t.Context(), s, "large", -1, storetest.Bytes(1, 20<<20))
	}
	if err != nil {
		t.Errorf("after what did not fit: %v", err)
	}
	if err := storetest.Want(t.Context(), s, "small", storetest.Bytes(1, 1<<20)); err != nil {
		t.Error(err)
	}
}

// TestKilled kills the server again and again while it is written to and read
// from. It comes last: for half a minute the next one waits for a radosgw that
// was killed while it looked at the same buckets.
//
// Every object whose Commit returned is whole, no read has wrong bytes, nothing
// is left over, and no write fails, but for one: a server
// that was killed while it assembled an object. versitygw never will, although
// it says so, and radosgw says for ten minutes that it is about to.
func TestKilled(t *testing.T) {
	everywhere(t, func(t *testing.T, server servers.S3) {
		cfg := config(t, server)
		cfg.PartSize, cfg.Timeout, cfg.Retry = 5<<20, 5*time.Second, 3*time.Minute
		name := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
		s := open(t, cfg)
		still := storetest.Bytes(1, 40<<20)
		if err := storetest.Put(t.Context(), s, "still", -1, still); err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		var stuck sync.Map // names of objects that the server can neither assemble nor give up
		g, ctx := errgroup.WithContext(t.Context())
		for user := range 3 {
			g.Go(func() error { return write(t, ctx, s, user, &over, &stuck, name == "versitygw") })
		}
		var reads, failed atomic.Int64
		g.Go(func() error { return read(ctx, s, still, &over, &reads, &failed) })
		p := process(t, name)
		for range ifSoak(60, 6) {
			time.Sleep(200*time.Millisecond + rand.N(800*time.Millisecond))
			p.Kill(t)
			time.Sleep(rand.N(500 * time.Millisecond))
			p.Start(t)
		}
		over.Store(true)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d reads, of which %d failed while the server was down", reads.Load(), failed.Load())
		for u := range server.Client(t).ListIncompleteUploads(t.Context(), cfg.Bucket, "", true) {
			if _, known := stuck.Load(u.Key); known {
				continue
			}
			// radosgw, killed when it has put an object together and not yet
			// forgotten its parts, lists the upload for good. To give it up
			// would take the parts, which are the object's.
			if r, err := s.Open(t.Context(), u.Key); name == "radosgw" && err == nil {
				t.Logf("the server still lists the upload of %s, which is there", u.Key)
				r.Close()
				continue
			}
			t.Errorf("an upload of %s is left over (%v)", u.Key, u.Err)
		}
	})
}

// write stores objects until it is over, and then looks at all of them.
func write(t *testing.T, ctx context.Context, s *s3.Store, user int, over *atomic.Bool, stuck *sync.Map, mayLie bool) error {
	lengths := []int{1000, 1 << 20, 5 << 20, 23<<20 + 5}
	var missing []int
	n := 0
	for ; !over.Load(); n++ {
		key := fmt.Sprintf("user-%d/%d", user, n)
		err := storetest.Put(ctx, s, key, -1, storetest.Bytes(uint64(n), lengths[n%len(lengths)]))
		inProgress := err != nil && strings.Contains(err.Error(), "already in progress")
		if mayLie && errors.Is(err, io.ErrUnexpectedEOF) || inProgress {
			t.Log(err)
			missing = append(missing, n)
			stuck.Store(key, true)
		} else if err != nil {
			return err
		}
	}
	for i := range n {
		err := storetest.Want(ctx, s, fmt.Sprintf("user-%d/%d", user, i), storetest.Bytes(uint64(i), lengths[i%len(lengths)]))
		if (err != nil) != slices.Contains(missing, i) {
			return fmt.Errorf("object %d: %w", i, err)
		}
	}
	return nil
}

// read reads until it is over. Reads may fail, since they do not wait for long.
func read(ctx context.Context, s *s3.Store, want []byte, over *atomic.Bool, reads, failed *atomic.Int64) error {
	r, err := s.Open(ctx, "still")
	if err != nil {
		return err
	}
	defer r.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for !over.Load() {
		n := 1 + rng.IntN(20<<20)
		off := rng.IntN(len(want) - n)
		p := make([]byte, n)
		began := time.Now()
		err := r.ReadAt(ctx, p, int64(off))
		switch reads.Add(1); {
		case err != nil:
			failed.Add(1)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
				return fmt.Errorf("an object that is there: %w", err)
			}
		case !bytes.Equal(p, want[off:off+n]):
			return fmt.Errorf("%d bytes at %d are other bytes", n, off)
		}
		if d := time.Since(began); d > 2*time.Minute {
			return fmt.Errorf("a read took %v: %w", d, err)
		}
	}
	return nil
}
