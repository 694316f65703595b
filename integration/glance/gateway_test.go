//go:build integration

package glance_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// TestGlanceServesTheGateways uploads images to a gateway with three stores,
// and gives Glance, which has the same three, their locations. The gateway's
// API is Glance's, so one client talks to both.
func TestGlanceServesTheGateways(t *testing.T) {
	c, v, s := ceph(t), versity(t), tempauth(t)
	beside := &client{servers.StartGlance(t, servers.GlanceConfig{Ceph: c, S3: &v.S3, Bucket: bucket, Swift: &s.Account, Container: container})}
	places := []place{inRBD(t, beside, c), inS3(t, beside, v.S3), inSwift(t, beside, s.Account)}
	file := filepath.Join(t.TempDir(), "platter.toml")
	config := fmt.Sprintf(`default_store = "rbd"
[stores.rbd]
type = "rbd"
pool = %q
conf = %q
user = %q
keyring = %q
[stores.s3]
type = "s3"
endpoint = %q
bucket = %q
access_key = %q
secret_key = %q
region = %q
[stores.swift]
type = "swift"
auth_url = %q
auth_version = 1
user = %q
key = %q
container = %q
segment_size = "5MiB"
`, c.Pool, c.Conf, c.User, c.Keyring, v.URL, bucket, v.AccessKey, v.SecretKey, v.Region, s.Account.AuthURL, s.Account.User, s.Account.Key, container)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	g := gateway.Start(t, "--config", file)
	ours := &client{&servers.Glance{URL: g.URL}}
	for _, p := range places {
		for name, data := range contents() {
			if len(data) == 0 {
				continue // Glance takes no location of nothing
			}
			t.Run(p.store+"/"+strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				before := p.list(t)
				id := ours.create(t, name)
				ours.upload(t, id, p.store, name != "small", data)
				if got := ours.download(t, id, ""); !bytes.Equal(got, data) {
					t.Errorf("the gateway serves %d bytes of %d, or others", len(got), len(data))
				}
				theirs := beside.create(t, name)
				beside.addLocation(t, theirs, p.store, p.foreign(backends.URI(p.ours, id)))
				if got := beside.download(t, theirs, ""); !bytes.Equal(got, data) {
					t.Errorf("Glance serves %d bytes of %d, or others", len(got), len(data))
				}
				ours.delete(t, id) // which a sweeper carries out
				for deadline := time.Now().Add(2 * time.Minute); !slices.Equal(p.list(t), before) && time.Now().Before(deadline); {
					time.Sleep(100 * time.Millisecond)
				}
				p.same(t, before)
				if status := beside.try(t, http.MethodGet, "/v2/images/"+theirs+"/file"); status == http.StatusOK {
					t.Errorf("after the gateway's delete Glance answers %d", status)
				}
			})
		}
	}
}
