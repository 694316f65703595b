package servers

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/integration/port"
)

// S3 is how an S3 server is reached. It wants addresses with the bucket in
// the path.
type S3 struct {
	URL       string // http://HOST:PORT
	AccessKey string
	SecretKey string
	Region    string
}

// At returns the same server at another address, that of a proxy before it.
func (s S3) At(url string) S3 {
	s.URL = url
	return s
}

// Client returns a client of the server.
func (s S3) Client(t TB) *minio.Client {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: s.Region,
		Secure: u.Scheme == "https", BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return c
}

// MakeBucket makes a bucket.
func (s S3) MakeBucket(t TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Client(t).MakeBucket(ctx, name, minio.MakeBucketOptions{Region: s.Region}); err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
}

// VersityConfig says how StartVersity starts.
type VersityConfig struct {
	// Versioning lets buckets keep old versions once they are told to.
	Versioning bool
}

// Versity is a versitygw: an S3 server whose objects are files.
type Versity struct {
	S3
	Process *Process
	Data    string // folder: a folder for each bucket, a file for each object
	Meta    string // folder of what is told of them, where files cannot have attributes
}

// StartVersity starts a versitygw. It builds one first if the tests'
// dependencies were not installed; that takes minutes.
func StartVersity(t TB, cfg VersityConfig) *Versity {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	binary := strings.TrimSpace(run(t, nil, "", filepath.Join(filepath.Dir(here), "versitygw.sh"), cacheDir()))
	dir, port := tempDir(t, "s3"), port.Free(t)
	data, versions, iam, meta := filepath.Join(dir, "data"), filepath.Join(dir, "versions"), filepath.Join(dir, "iam"), filepath.Join(dir, "meta")
	mkdir(t, data, versions, iam, meta)
	v := &Versity{Data: data, Meta: meta, S3: S3{
		URL:       fmt.Sprintf("http://127.0.0.1:%d", port),
		AccessKey: "platter", SecretKey: "versity-secret-of-the-tests", Region: "us-east-1",
	}}
	line := []string{binary, "--port", fmt.Sprintf("127.0.0.1:%d", port), "--region", v.Region, "--iam-dir", iam,
		"--health", "/healthz", "--quiet", "--keep-alive", "posix"}
	if cfg.Versioning {
		line = append(line, "--versioning-dir", versions)
	}
	if !keepsAttributes(data) { // they hold the metadata, unless files do
		line = append(line, "--sidecar", meta)
	}
	v.Process = launch(t, &Process{Name: "versitygw", line: append(line, data), ready: answersHTTP(v.URL + "/healthz"),
		env: []string{"ROOT_ACCESS_KEY=" + v.AccessKey, "ROOT_SECRET_KEY=" + v.SecretKey}}, dir)
	return v
}

// keepsAttributes says whether the file system of a folder keeps extended
// attributes of users.
func keepsAttributes(dir string) bool {
	return unix.Setxattr(dir, "user.platter", []byte("1"), 0) == nil
}

// cacheDir is where built programs stay from run to run.
func cacheDir() string {
	if dir := os.Getenv("PLATTER_CACHE"); dir != "" {
		return dir
	}
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", ".cache")
}
