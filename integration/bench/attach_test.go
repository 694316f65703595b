//go:build integration

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/ncw/swift/v2"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// A home is where the images to attach are. Env makes it, and get asks the
// store itself for a few bytes of an object; nil if that is no comparison.
type home struct {
	name string
	near bool // the aim is 50 ms, else 20 ms and twice what get takes
	env  []string
	get  func(key string, off, n int64) error
}

func homes(b *testing.B) []home {
	c := ceph(b)
	c.AddPool(b, "attach")
	bucket := func(s servers.S3) ([]string, func(string, int64, int64) error) {
		s.MakeBucket(b, "attach")
		client := s.Client(b)
		return gateway.S3Store(s, "attach"), func(key string, off, n int64) error {
			var opts minio.GetObjectOptions
			if err := opts.SetRange(off, off+n-1); err != nil {
				return err
			}
			o, _, _, err := (&minio.Core{Client: client}).GetObject(b.Context(), "attach", key, opts)
			return drained(o, n, err)
		}
	}
	v, vGet := bucket(versity(b).S3)
	r, rGet := bucket(c.RGW.S3)
	a := tempauth(b).Account
	a.MakeContainer(b, "attach")
	conn := a.Connection()
	return []home{
		{"file", true, nil, nil},
		{"rbd", true, gateway.RBDStore(c, "attach"), nil},
		{"versitygw", true, v, vGet},
		{"radosgw", false, r, rGet},
		{"swift", false, gateway.SwiftStore(a, "attach"), func(key string, off, n int64) error {
			o, _, err := conn.ObjectOpen(b.Context(), "attach", key, false, swift.Headers{"Range": fmt.Sprintf("bytes=%d-%d", off, off+n-1)})
			return drained(o, n, err)
		}},
	}
}

// drained reads an answer of n bytes to its end.
func drained(r io.ReadCloser, n int64, err error) error {
	if err != nil {
		return err
	}
	defer r.Close()
	if got, err := io.Copy(io.Discard, r); err != nil || got != n {
		return fmt.Errorf("%d bytes of %d: %w", got, n, err)
	}
	return nil
}

// A disk is an image, and where its data is: in clusters far from each other,
// of which each is read once.
type disk struct {
	id     string
	bytes  int64 // of the qcow2 file
	step   int64
	unread []int64
}

func (d *disk) next() int64 {
	k := d.unread[0]
	d.unread = d.unread[1:]
	return k * d.step
}

// shuffle makes all clusters unread again.
func (d *disk) shuffle(n int) {
	d.unread = d.unread[:0]
	for _, k := range rand.Perm(n) {
		d.unread = append(d.unread, int64(k))
	}
}

// qcow2Disk makes a qcow2 image of size bytes with n clusters of data, evenly
// spread: at 1 TiB each has a table of its own.
func qcow2Disk(t testing.TB, size int64, n int) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "sparse.raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(raw)
	defer f.Close()
	p := make([]byte, 64<<10)
	for k := range int64(n) {
		noise(p, uint64(k))
		if _, err := f.WriteAt(p, k*step(size, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
	return path
}

func step(size int64, n int) int64 { return size / int64(n) / (64 << 10) * (64 << 10) }

// attachments is how many times each way is tried in each state of each round.
func attachments() int { return number("BENCH_ATTACHMENTS", 200) }

// ways are how a disk is come by.
var ways = []string{"attach", "attach ephemeral", "connect"}

// states are what there was before, and whether the cache drops all of an image
// before each attachment.
var states = []string{"uploaded", "restarted", "dropped"}

// BenchmarkAttach measures from asking for an attachment to the first 4 KiB,
// which nobody has read before: after the upload, after a restart of the
// gateway, and after the cache has dropped all of the image.
//
// Three things beside it tell how busy the machine is: what the store itself
// takes for 4 KiB, what the gateway takes to say that it is alive, and what the
// disk takes to write 4 KiB down, as an attachment is.
func BenchmarkAttach(b *testing.B) {
	gateway.Need(b, "qemu-img")
	places := 2 * attachments() * len(ways) // some for each of two states
	sizes := []int64{1 << 40, 1 << 30}
	paths := []string{qcow2Disk(b, sizes[0], places), qcow2Disk(b, sizes[1], places)}
	all := homes(b)
	for b.Loop() {
		took := samples{}
		for range rounds() {
			for _, h := range all {
				round(b, h, sizes, paths, places, took)
			}
		}
		attached(b, all, took)
	}
}

// round is one round of one store, with images of its own.
func round(b *testing.B, h home, sizes []int64, paths []string, places int, took samples) {
	b.Helper()
	g := gateway.Start(b, append(h.env, "--log-level", "warn", "--mount", "off")...)
	var disks []*disk
	for i, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		d := &disk{id: g.Upload(b, "disk", "qcow2", path), bytes: st.Size(), step: step(sizes[i], places)}
		d.shuffle(places)
		disks = append(disks, d)
	}
	measure(b, h, g, disks, "uploaded", took)
	g.Stop(b)
	g.Run(b)
	measure(b, h, g, disks, "restarted", took)
	if h.env != nil {
		for _, d := range disks {
			d.shuffle(places)
		}
		measure(b, h, g, disks, "dropped", took)
	}
	for _, d := range disks {
		g.Call(b, "DELETE", "/v2/images/"+d.id, "", http.StatusNoContent)
	}
	g.Stop(b)
}

// measure takes the samples of one state of a store.
func measure(b *testing.B, h home, g *gateway.Gateway, disks []*disk, state string, took samples) {
	b.Helper()
	here := h.name + " " + state + " "
	round := took.begin()
	f, err := os.Create(filepath.Join(b.TempDir(), "sync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for range attachments() {
		for i, d := range disks {
			for _, way := range ways {
				if state == "dropped" {
					g.Call(b, "DELETE", "/platter/v1/cache/images/"+d.id, "", http.StatusNoContent)
				}
				round.add(here+way+[]string{" large", " small"}[i], once(b, g, d, way))
			}
			round.add(here+"alive", timed(b, func() error {
				_, _, err := g.Ask("GET", "/healthz", "")
				return err
			}))
			round.add(here+"sync", timed(b, func() error {
				if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
					return err
				}
				return f.Sync()
			}))
			if h.get != nil {
				off := rand.Int64N(d.bytes/4096) * 4096
				round.add(here+"get", timed(b, func() error { return h.get(d.id, off, 4096) }))
			}
		}
	}
}

func timed(b *testing.B, f func() error) float64 {
	b.Helper()
	from := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return milliseconds(time.Since(from))
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// samples are times in ms, by what took them and by round.
type samples map[string][][]float64

// A batch is the part of samples that one round adds.
type batch struct {
	to    samples
	begun map[string]bool
}

func (s samples) begin() batch { return batch{s, map[string]bool{}} }

func (r batch) add(key string, ms float64) {
	if !r.begun[key] {
		r.begun[key] = true
		r.to[key] = append(r.to[key], nil)
	}
	last := len(r.to[key]) - 1
	r.to[key][last] = append(r.to[key][last], ms)
}

// at returns a quantile of each round.
func (s samples) at(key string, q float64) (list []float64) {
	for _, r := range s[key] {
		list = append(list, quantile(r, q))
	}
	return list
}

// attached makes the table.
func attached(b *testing.B, all []home, took samples) {
	b.Helper()
	t := tables.table(fmt.Sprintf("From asking for a disk to its first 4 KiB, qcow2 of 1 TiB, ms; medians over %d rounds of %d",
		rounds(), attachments()),
		"store", "state", "way", "p50", "p99", "aim", "", "of 1 GiB: p50", "p99, times", "aim", "", "store's GET p50", "p99", "alive p99", "fsync p99")
	mid := func(key string, q float64) string {
		if took[key] == nil {
			return ""
		}
		return figure(median(took.at(key, q)))
	}
	for _, h := range all {
		for _, state := range states {
			here := h.name + " " + state + " "
			for _, way := range ways {
				large, small := here+way+" large", here+way+" small"
				if took[large] == nil {
					continue
				}
				aim := 50.0
				if !h.near {
					aim = 20 + 2*median(took.at(here+"get", 0.99))
				}
				p99, times := median(took.at(large, 0.99)), ratio(took.at(large, 0.99), took.at(small, 0.99))
				t.row(h.name, state, way, mid(large, 0.5), figure(p99), "≤ "+figure(aim), verdict(p99, aim, false),
					figure(ratio(took.at(large, 0.5), took.at(small, 0.5))), figure(times), "≤ 1.20", verdict(times, 1.2, false),
					mid(here+"get", 0.5), mid(here+"get", 0.99), mid(here+"alive", 0.99), mid(here+"sync", 0.99))
			}
		}
	}
	b.Log("\n" + t.String())
}

// once gets at a disk in one way, reads of it what nobody has read, and lets
// it go. It returns how long it took to have read.
func once(b *testing.B, g *gateway.Gateway, d *disk, way string) (ms float64) {
	b.Helper()
	name, off := d.id, d.next()
	from := time.Now()
	if way != "connect" {
		mode := "ro"
		if way == "attach ephemeral" {
			mode = "ephemeral"
		}
		var att struct{ ID, URI string }
		if err := json.Unmarshal(g.Call(b, "POST", "/platter/v1/attachments", `{"image_id":"`+d.id+`","mode":"`+mode+`"}`, http.StatusCreated), &att); err != nil {
			b.Fatal(err)
		}
		name = export(b, att.URI)
		defer g.Call(b, "DELETE", "/platter/v1/attachments/"+att.ID, "", http.StatusNoContent)
	}
	c, err := nbdtest.Open("unix", g.Socket, name)
	if err != nil {
		b.Fatal(err)
	}
	got, err := c.Read(uint64(off), 4096, 0)
	ms = milliseconds(time.Since(from))
	if err == nil {
		err = c.Disconnect()
	}
	if err == nil {
		err = c.Ended() // so that the disk is not still open when somebody comes next
	}
	if err != nil {
		b.Fatal(err)
	}
	want := make([]byte, 4096)
	noise(want, uint64(off/d.step))
	if !bytes.Equal(got, want) {
		b.Fatalf("%s has other bytes at %d", d.id, off)
	}
	return ms
}

// export returns the name of the export in a URI.
func export(t testing.TB, uri string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}
