package s3_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

const mib = 1 << 20

// minio-go sleeps after a failure even if it is not to try again.
func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond
	m.Run()
}

func (f *fake) config() s3.Config {
	return s3.Config{
		Endpoint: f.URL, Bucket: fakeBucket, AccessKey: "key", SecretKey: "secret", Region: "us-east-1",
		PartSize: 5 * mib, Timeout: time.Minute, Retry: time.Minute,
	}
}

func (f *fake) open() *s3.Store {
	f.t.Helper()
	return f.openWith(f.config())
}

func (f *fake) openWith(cfg s3.Config) *s3.Store {
	f.t.Helper()
	s, err := s3.Open(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	s.Hurry()
	if left := f.names(); len(left) > 0 || f.unfinished() > 0 {
		f.t.Fatalf("the probe left %v and %d uploads", left, f.unfinished())
	}
	f.requests()
	return s
}

// servers are what fakes ignore, as the real ones do.
var servers = map[string][]string{
	"everything":     nil,
	"like radosgw":   {"if-match on put", "if-none-match on complete", "crc32c"},
	"no metadata":    {"metadata"},
	"no digests":     {"crc32c", "md5", "sha256", "if-match on get"},
	"nothing to ask": {"list uploads", "copy"},
}

func TestStore(t *testing.T) {
	for name, ignores := range servers {
		t.Run(name, func(t *testing.T) {
			storetest.Far(t, func(t *testing.T) backends.Store { return newFake(t, ignores...).open() })
		})
	}
}

// TestConditionsThatAreIgnored: a second writer is still found, by looking.
func TestConditionsThatAreIgnored(t *testing.T) {
	f := newFake(t, "if-none-match on put", "if-none-match on complete")
	s := f.open()
	for _, n := range []int{10, 12 * mib} {
		key := fmt.Sprint("k", n)
		early, err := s.Create(t.Context(), key, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer early.Abort()
		if _, err := early.Write(storetest.Bytes(3, n)); err != nil {
			t.Fatal(err)
		}
		if err := storetest.Put(t.Context(), s, key, -1, storetest.Bytes(1, n)); err != nil {
			t.Fatal(err)
		}
		if err := early.Commit(t.Context()); !errors.Is(err, fs.ErrExist) {
			t.Errorf("commit of a key that was taken meanwhile = %v", err)
		}
		early.Abort()
		if err := storetest.Put(t.Context(), s, key, -1, storetest.Bytes(2, n)); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a taken key = %v", err)
		}
		if err := storetest.Want(t.Context(), s, key, storetest.Bytes(1, n)); err != nil {
			t.Error(err)
		}
	}
	if f.unfinished() > 0 {
		t.Errorf("%d uploads are left", f.unfinished())
	}
}

func TestCapabilities(t *testing.T) {
	all := []string{"list uploads", "user metadata", "if-none-match on put", "if-match on put", "sha-256 in the signature", "crc32c", "content-md5",
		"range on get", "if-match on get", "if-none-match on complete", "copy", "copy of a part"}
	for ignored, want := range map[string][]string{
		"":                          nil,
		"metadata":                  {"user metadata"},
		"if-none-match on put":      {"if-none-match on put"},
		"if-match on put":           {"if-match on put"},
		"sha256":                    {"sha-256 in the signature"},
		"crc32c":                    {"crc32c"},
		"md5":                       {"content-md5"},
		"if-match on get":           {"if-match on get"},
		"if-none-match on complete": {"if-none-match on complete"},
		"list uploads":              {"list uploads"},
		"copy":                      {"copy", "copy of a part"},
	} {
		var names, missing []string
		for _, c := range backends.Capabilities(newFake(t, ignored).open()) {
			names = append(names, c.Name)
			if !c.OK {
				missing = append(missing, c.Name)
			}
			if c.OK != (c.Detail == "") {
				t.Errorf("%+v", c)
			}
		}
		if fmt.Sprint(missing) != fmt.Sprint(want) || fmt.Sprint(names) != fmt.Sprint(all) {
			t.Errorf("ignoring %q, of %q are missing %q, want %q", ignored, names, missing, want)
		}
	}
}

func TestURI(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Prefix = "images/"
	host := strings.TrimPrefix(f.URL, "http://")
	s := f.openWith(cfg)
	if got, want := backends.URI(s, "a/b"), "s3://"+host+"/bucket/images/a/b"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
	if err := storetest.Put(t.Context(), s, "a/b", -1, nil); err != nil {
		t.Fatal(err)
	}
	if got := f.names(); len(got) != 1 || got[0] != "images/a/b" {
		t.Errorf("names are %q", got)
	}
}

// TestDeleteFreesUploads: what a crash left of this key goes, of others stays.
func TestDeleteFreesUploads(t *testing.T) {
	f := newFake(t)
	s := f.open()
	for _, key := range []string{"k", "k", "k2"} {
		w, err := s.Create(t.Context(), key, -1) // never ended: its process was killed
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, 11*mib)); err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if f.unfinished() != 1 {
		t.Errorf("%d uploads are left, want that of k2", f.unfinished())
	}
}

// TestMemoryIsBounded: a writer waits while its parts do not get through.
func TestMemoryIsBounded(t *testing.T) {
	f := newFake(t)
	s := f.open()
	stop := make(chan struct{})
	f.set(func(f *fake) { f.before = parts(untilClosed(stop)) })
	w, err := s.Create(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	wrote := make(chan int)
	go func() {
		defer close(wrote)
		for i := range 40 {
			if _, err := w.Write(make([]byte, mib)); err != nil {
				t.Error(err)
				return
			}
			wrote <- i + 1
		}
	}()
	for range 25 { // four parts of 5 MiB on their way and one that is filled
		select {
		case <-wrote:
		case <-time.After(time.Minute):
			t.Fatal("less than 25 MiB were taken")
		}
	}
	select {
	case n := <-wrote:
		t.Errorf("%d MiB were taken while no part got through, want 25", n)
	case <-time.After(300 * time.Millisecond):
	}
	close(stop)
	for range wrote {
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}
