//go:build integration

package proxy_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/integration/proxy"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// TestBeforeServers wants signatures to hold, and storage addresses to lead
// back to the proxy.
func TestBeforeServers(t *testing.T) {
	c := servers.StartCeph(t, servers.CephConfig{RGW: true})
	for name, s := range map[string]servers.S3{"versitygw": servers.StartVersity(t, servers.VersityConfig{}).S3, "radosgw": c.RGW.S3} {
		t.Run(name, func(t *testing.T) {
			p := proxy.Start(t, s.URL, proxy.Config{})
			far := s.At(p.URL)
			far.MakeBucket(t, "bucket")
			if _, err := far.Client(t).PutObject(t.Context(), "bucket", "a b/ü+%2F", bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			obj, err := far.Client(t).GetObject(t.Context(), "bucket", "a b/ü+%2F", minio.GetObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer obj.Close()
			if got, err := io.ReadAll(obj); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if n := p.Count("GET"); n.Received < int64(len(content)) {
				t.Errorf("counted %+v", n)
			}
		})
	}
	for name, a := range map[string]servers.SwiftAccount{"swift": servers.StartSwift(t, servers.SwiftConfig{}).Account, "radosgw/swift": c.RGW.Swift} {
		t.Run(name, func(t *testing.T) {
			p := proxy.Start(t, a.AuthURL[:len("http://127.0.0.1:12345")], proxy.Config{})
			far := a.At(p.URL)
			far.MakeContainer(t, "container")
			conn := far.Connection()
			if err := conn.ObjectPutBytes(t.Context(), "container", "a b/ü", content, ""); err != nil {
				t.Fatal(err)
			}
			if got, err := conn.ObjectGetBytes(t.Context(), "container", "a b/ü"); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if n := p.Count("GET"); n.Received < int64(len(content)) {
				t.Errorf("counted %+v", n)
			}
		})
	}
}
