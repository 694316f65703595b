//go:build integration

package glance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/backends/swift"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// What we share with Glance, besides the pool.
const (
	bucket    = "bucket"
	container = "images"
)

// large is where both sides begin to cut objects into pieces, in MiB.
const large = 5

var (
	keeper  servers.Keeper
	versity = servers.Share(&keeper, func(t servers.TB) *servers.Versity {
		v := servers.StartVersity(t, servers.VersityConfig{})
		v.MakeBucket(t, bucket)
		return v
	})
	ceph = servers.Share(&keeper, func(t servers.TB) *servers.Ceph {
		c := servers.StartCeph(t, servers.CephConfig{RGW: true})
		c.RGW.MakeBucket(t, bucket) // S3 and Swift share their names here
		c.RGW.Swift.MakeContainer(t, container)
		return c
	})
	tempauth = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		s := servers.StartSwift(t, servers.SwiftConfig{})
		s.Account.MakeContainer(t, container)
		return s
	})
	keystone = servers.Share(&keeper, func(t servers.TB) *servers.Swift {
		s := servers.StartSwift(t, servers.SwiftConfig{Keystone: servers.StartKeystone(t)})
		s.Account.MakeContainer(t, container)
		return s
	})
)

// The Glances on them.
var (
	onCeph = share(func(t servers.TB) servers.GlanceConfig {
		c := ceph(t)
		return servers.GlanceConfig{Ceph: c, S3: &c.RGW.S3, Swift: &c.RGW.Swift}
	})
	onVersity = share(func(t servers.TB) servers.GlanceConfig {
		return servers.GlanceConfig{S3: &versity(t).S3, Swift: &tempauth(t).Account}
	})
	onKeystone = share(func(t servers.TB) servers.GlanceConfig { return servers.GlanceConfig{Swift: &keystone(t).Account} })
)

func share(config func(t servers.TB) servers.GlanceConfig) func(t servers.TB) *client {
	return servers.Share(&keeper, func(t servers.TB) *client {
		cfg := config(t)
		cfg.Bucket, cfg.Container, cfg.LargeObject = bucket, container, large
		return &client{servers.StartGlance(t, cfg)}
	})
}

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// A place is one that a Glance and our store share.
type place struct {
	store   string // what Glance calls it
	glance  *client
	ours    backends.Store
	foreign func(uri string) string // our URI with what Glance needs besides, such as keys
	list    func(t *testing.T) []string
}

// sets are Glances with the places that they share with us.
var sets = map[string]func(t *testing.T) []place{
	"Ceph": func(t *testing.T) []place {
		c, g := ceph(t), onCeph(t)
		return []place{inRBD(t, g, c), inS3(t, g, c.RGW.S3), inSwift(t, g, c.RGW.Swift)}
	},
	"VersityAndTempauth": func(t *testing.T) []place {
		g := onVersity(t)
		return []place{inS3(t, g, versity(t).S3), inSwift(t, g, tempauth(t).Account)}
	},
	"Keystone": func(t *testing.T) []place { return []place{inSwift(t, onKeystone(t), keystone(t).Account)} },
}

func inRBD(t *testing.T, g *client, c *servers.Ceph) place {
	s, err := rbd.Open(t.Context(), rbd.Config{Pool: c.Pool, Conf: c.Conf, User: c.User, Keyring: c.Keyring, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return place{"rbd", g, s, func(uri string) string { return uri }, func(t *testing.T) []string {
		return strings.Fields(c.Command(t, "rbd", "ls", c.Pool) + c.Command(t, "rbd", "trash", "ls", c.Pool))
	}}
}

func inS3(t *testing.T, g *client, server servers.S3) place {
	s, err := s3.Open(t.Context(), s3.Config{Endpoint: server.URL, Bucket: bucket, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
		PartSize: large << 20, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return place{"s3", g, s, withUser(server.AccessKey, server.SecretKey), func(t *testing.T) []string {
		var all []string
		c := server.Client(t)
		for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			all = append(all, o.Key)
		}
		for u := range c.ListIncompleteUploads(t.Context(), bucket, "", true) {
			if u.Err != nil {
				t.Fatal(u.Err)
			}
			all = append(all, "upload of "+u.Key)
		}
		return all
	}}
}

func inSwift(t *testing.T, g *client, a servers.SwiftAccount) place {
	s, err := swift.Open(t.Context(), swift.Config{AuthURL: a.AuthURL, User: a.User, Key: a.Key, Project: a.Project, Region: a.Region,
		Container: container, SegmentSize: large << 20, SpoolDir: t.TempDir(), Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	user := a.User
	if a.Project != "" {
		user = a.Project + ":" + a.User
	}
	return place{"swift", g, s, withUser(user, a.Key), func(t *testing.T) []string {
		all, err := a.Connection().ObjectNamesAll(t.Context(), container, nil)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}}
}

// withUser puts what Glance signs in with into a URI.
func withUser(user, key string) func(string) string {
	return func(uri string) string {
		scheme, rest, _ := strings.Cut(uri, "://")
		return scheme + "://" + url.QueryEscape(user) + ":" + url.QueryEscape(key) + "@" + rest
	}
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// contents are what images hold: none, one piece, several with a hole.
func contents() map[string][]byte {
	several := make([]byte, 3*large<<20+7)
	rand.Read(several[:large<<20])
	rand.Read(several[2*large<<20:])
	return map[string][]byte{"empty": {}, "small": several[:65_537], "one piece": several[:large<<20], "several pieces": several}
}

// everywhere runs a test in each place.
func everywhere(t *testing.T, test func(t *testing.T, p place)) {
	for name, places := range sets {
		t.Run(name, func(t *testing.T) {
			for _, p := range places(t) {
				t.Run(p.store, func(t *testing.T) { test(t, p) })
			}
		})
	}
}

// same ends the test if the place does not hold what it did.
func (p place) same(t *testing.T, before []string) {
	t.Helper()
	if now := p.list(t); !slices.Equal(now, before) {
		t.Errorf("there is %v, there was %v", now, before)
	}
}

// put writes an object as the gateway does.
func (p place) put(t *testing.T, key string, size int64, data []byte) {
	t.Helper()
	if err := storetest.Put(t.Context(), p.ours, key, size, data); err != nil {
		t.Fatal(err)
	}
}

// TestGlanceServesOurs gives Glance the location of what we wrote.
func TestGlanceServesOurs(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for name, data := range contents() {
			if len(data) == 0 {
				continue // Glance takes no location of nothing
			}
			for _, known := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/known=%v", name, known), func(t *testing.T) {
					before := p.list(t)
					id := p.glance.create(t, p.store)
					size := int64(-1)
					if known {
						size = int64(len(data))
					}
					p.put(t, id, size, data)
					p.glance.addLocation(t, id, p.store, p.foreign(backends.URI(p.ours, id)))
					if size := p.glance.show(t, id).Size; size != int64(len(data)) {
						t.Errorf("Glance says %d bytes of %d", size, len(data))
					}
					if got := p.glance.download(t, id, ""); !bytes.Equal(got, data) {
						t.Errorf("Glance serves %d bytes of %d, or others", len(got), len(data))
					}
					p.glance.delete(t, id)
					if _, err := p.ours.Open(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("after Glance's delete: %v", err)
					}
					p.same(t, before)
				})
			}
		}
	})
}

// TestWeServeGlances opens what Glance stored, and deletes it.
func TestWeServeGlances(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		for name, data := range contents() {
			for _, known := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/known=%v", name, known), func(t *testing.T) {
					before := p.list(t)
					id := p.glance.create(t, p.store)
					p.glance.upload(t, id, p.store, known, data)
					if err := storetest.Want(t.Context(), p.ours, id, data); err != nil {
						t.Error(err)
					}
					stored := p.list(t)
					// A key that begins as another one takes nothing of it along.
					if err := p.ours.Delete(t.Context(), id[:len(id)-1]); err != nil {
						t.Error(err)
					}
					p.same(t, stored)
					if err := p.ours.Delete(t.Context(), id); err != nil {
						t.Error(err)
					}
					p.same(t, before)
				})
			}
		}
	})
}

// TestLocations compares the words for one place: Glance's, of what it stored,
// and ours.
func TestLocations(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		id := p.glance.create(t, p.store)
		p.glance.upload(t, id, p.store, true, []byte("data"))
		locations := p.glance.show(t, id).Locations
		if len(locations) != 1 {
			t.Fatalf("locations %v", locations)
		}
		got, want := locations[0].URL, backends.URI(p.ours, id)
		if i := strings.LastIndex(got, "@"); i >= 0 {
			scheme, _, _ := strings.Cut(got, "://")
			got = scheme + "://" + got[i+1:]
		}
		if p.store == "swift" { // Glance calls the account as its configuration does
			want = "swift+config://" + servers.SwiftReference + "/" + container + "/" + id
		}
		if got != want {
			t.Errorf("Glance says %s, we say %s", got, want)
		}
		p.glance.delete(t, id)
	})
}

// TestDeleteInUse wants each side to refuse what has clones, whoever wrote the
// image and whoever made the clone.
func TestDeleteInUse(t *testing.T) {
	c := ceph(t)
	p := inRBD(t, onCeph(t), c)
	for _, writer := range []string{"glance", "platter"} {
		t.Run(writer, func(t *testing.T) {
			before := p.list(t)
			id := p.glance.create(t, p.store)
			if writer == "glance" {
				p.glance.upload(t, id, p.store, true, []byte("data"))
			} else {
				p.put(t, id, 4, []byte("data"))
				p.glance.addLocation(t, id, p.store, backends.URI(p.ours, id))
			}
			c.Command(t, "rbd", "clone", c.Pool+"/"+id+"@snap", c.Pool+"/clone")
			if status := p.glance.try(t, "DELETE", "/v2/images/"+id); status != 409 {
				t.Errorf("Glance deletes it: %d", status)
			}
			if err := p.ours.Delete(t.Context(), id); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("we delete it: %v", err)
			}
			if err := storetest.Want(context.WithoutCancel(t.Context()), p.ours, id, []byte("data")); err != nil {
				t.Errorf("after the refusals: %v", err)
			}
			c.Command(t, "rbd", "rm", "--no-progress", c.Pool+"/clone")
			p.glance.delete(t, id)
			p.same(t, before)
		})
	}
}
