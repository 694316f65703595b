//go:build integration

package servers_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/integration/servers"
)

// putGetS3 puts an object into a new bucket and gets it back.
func putGetS3(t *testing.T, s servers.S3, bucket string) {
	t.Helper()
	s.MakeBucket(t, bucket)
	want := bytes.Repeat([]byte("platter"), 100_000)
	c := s.Client(t)
	if _, err := c.PutObject(t.Context(), bucket, "key", bytes.NewReader(want), int64(len(want)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	getS3(t, c, bucket, want)
}

func getS3(t *testing.T, c *minio.Client, bucket string, want []byte) {
	t.Helper()
	obj, err := c.GetObject(t.Context(), bucket, "key", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()
	if got, err := io.ReadAll(obj); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes back of %d, %v", len(got), len(want), err)
	}
}

func TestVersity(t *testing.T) {
	v := servers.StartVersity(t, servers.VersityConfig{})
	putGetS3(t, v.S3, "images")
	v.Process.Kill(t)
	v.Process.Start(t)
	getS3(t, v.Client(t), "images", bytes.Repeat([]byte("platter"), 100_000))
}

// putGetSwift puts an object into a new container and gets it back.
func putGetSwift(t *testing.T, a servers.SwiftAccount) {
	t.Helper()
	a.MakeContainer(t, "images")
	c := a.Connection()
	if err := c.ObjectPutString(t.Context(), "images", "key", "what was put", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ObjectGetString(t.Context(), "images", "key"); err != nil || got != "what was put" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSwift(t *testing.T) {
	putGetSwift(t, servers.StartSwift(t, servers.SwiftConfig{}).Account)
}

func TestSwiftWithKeystone(t *testing.T) {
	k := servers.StartKeystone(t)
	putGetSwift(t, servers.StartSwift(t, servers.SwiftConfig{Keystone: k}).Account)
}

// asUser are the arguments that make rbd or rados the ordinary user.
func asUser(c *servers.Ceph, args ...string) []string {
	return append([]string{"--id", c.User, "--keyring", c.Keyring}, args...)
}

func TestCeph(t *testing.T) {
	for name, bluestore := range map[string]bool{"Memstore": false, "Bluestore": true} {
		t.Run(name, func(t *testing.T) {
			c := servers.StartCeph(t, servers.CephConfig{Bluestore: bluestore, RGW: !bluestore})
			file := t.TempDir() + "/file"
			if err := os.WriteFile(file, bytes.Repeat([]byte("platter"), 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
			c.Command(t, "rbd", asUser(c, "import", file, c.Pool+"/image")...)
			same := func() {
				t.Helper()
				if out := c.Command(t, "rbd", asUser(c, "export", "--no-progress", c.Pool+"/image", "-")...); out != string(bytes.Repeat([]byte("platter"), 100_000)) {
					t.Fatalf("rbd export: %d bytes", len(out))
				}
			}
			same()
			if _, err := c.Try("ceph", asUser(c, "osd", "pool", "create", "mine")...); err == nil {
				t.Error("the user may make pools")
			}
			if !bluestore {
				putGetS3(t, c.RGW.S3, "images")
				putGetSwift(t, c.RGW.Swift)
				c.OSD.Pause(t)
				c.OSD.Resume(t)
				same()
				c.OSD.Stop(t)
			} else {
				c.OSD.Kill(t)
			}
			c.OSD.Start(t)
			same()
		})
	}
}

func TestEtcd(t *testing.T) {
	for _, n := range []int{1, 3} {
		e := servers.StartEtcd(t, n)
		if n == 3 {
			e.Members[0].Kill(t)
			e.Members[0].Start(t)
		}
	}
}
