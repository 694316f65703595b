// Package s3 keeps objects in a bucket of any server that speaks S3.
//
// The layout is the plain one, as Glance's own driver has it: the object at
// key K is the S3 object PREFIX+K, byte for byte. Nothing in a bucket belongs
// to us but what the catalog names, so a Store lists nothing and deletes
// nothing but the very key it is told, with the unfinished uploads of that key.
//
// S3 servers differ most in what they silently ignore: an unknown header is
// no error, and the plain request is carried out. So [Open] tries on a scratch
// object what its server does, Capabilities tells it, and nothing below relies
// on what was not seen to work:
//
//   - an object appears by PUT or CompleteMultipartUpload with If-None-Match: *.
//     Where that is ignored the key is looked up before, which leaves a gap
//     between the look and the PUT: there, only the catalog, which gives out
//     every key once, keeps two writers apart;
//   - the bytes of every request carry a digest that the server checks: their
//     SHA-256 in the signature over plain HTTP, CRC32C where it is honoured,
//     Content-MD5 where neither is;
//   - a ranged GET must be answered 206 with exactly the range, the length and
//     the ETag that were asked for.
//
// Requests that fail in passing are tried again. Whether one whose answer was
// lost has done its work is found out by looking, never guessed: every object
// of ours carries the id of its upload as x-amz-meta-platter-upload.
//
// See DESIGN.md for sizes, timeouts and measurements.
package s3

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/seed-478a8fee/platter/backends"
)

// A Style says where in a URL the bucket stands.
type Style string

// The styles, by the words of Glance's s3_store_bucket_url_format.
const (
	Auto    Style = "auto"    // Virtual for Amazon and Google, Path for all others
	Path    Style = "path"    // https://HOST/BUCKET/KEY
	Virtual Style = "virtual" // https://BUCKET.HOST/KEY
)

// A Config says where the bucket is. Endpoint, Bucket and the keys must be set.
type Config struct {
	// Endpoint is http://HOST[:PORT] or https://HOST[:PORT].
	Endpoint string

	Bucket string

	// Prefix begins the name of every object. It is "" for a bucket shared
	// with Glance, and ends with '/' to look like a folder.
	Prefix string

	AccessKey, SecretKey string
	SessionToken         string // of temporary keys, or ""

	// Region is the bucket's. Default: what the server says.
	Region string

	// Style is where the bucket stands in URLs. Default: Auto.
	Style Style

	// CAFile is a PEM file of the authorities to trust besides the system's.
	CAFile string

	// Insecure accepts any certificate. It is for tests of a set-up.
	Insecure bool

	// PartSize is the unit of multipart uploads in bytes, and the largest
	// object that is sent in one piece: 5 MiB or more, 16 MiB by default.
	PartSize int64

	// Parallel is how many parts of one upload, or pieces of one large read,
	// are on their way at once. Default: 4.
	Parallel int

	// Timeout is how long a server may be silent, before and in the midst of
	// an answer. Default: 30 s. Copies and the assembling of parts, where
	// servers work before they answer, get 20 times as long.
	Timeout time.Duration

	// Retry is how long a request that writes is tried again. Default: 1
	// minute. Reads are tried four times, within a second or two; who can
	// wait longer asks again.
	Retry time.Duration

	// Logger hears of what is tried again and of what could not be cleaned
	// up. Default: silence.
	Logger *slog.Logger

	// Transport, if set, is put around the connections, to count, delay or
	// disturb requests.
	Transport func(http.RoundTripper) http.RoundTripper
}

const (
	leastPart   = 5 << 20 // S3's, for all parts but the last
	defaultPart = 16 << 20
)

func (c Config) defaults() Config {
	if c.Style == "" {
		c.Style = Auto
	}
	if c.PartSize == 0 {
		c.PartSize = defaultPart
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Retry <= 0 {
		c.Retry = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// check returns the parsed endpoint, or what is wrong with the Config.
func (c Config) check() (*url.URL, error) {
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		return nil, fmt.Errorf("endpoint: %w: %w", err, fs.ErrInvalid)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, u.Path != "" && u.Path != "/", u.RawQuery != "":
		return nil, fmt.Errorf("endpoint %q is not http://HOST:PORT or https://HOST:PORT: %w", u.Redacted(), fs.ErrInvalid)
	case c.Bucket == "":
		return nil, fmt.Errorf("no bucket is configured: %w", fs.ErrInvalid)
	case c.AccessKey == "" || c.SecretKey == "":
		return nil, fmt.Errorf("access key or secret key is missing: %w", fs.ErrInvalid)
	case c.PartSize < leastPart:
		return nil, fmt.Errorf("parts of %d bytes: S3 wants %d or more: %w", c.PartSize, leastPart, fs.ErrInvalid)
	case !slices.Contains([]Style{Auto, Path, Virtual}, c.Style):
		return nil, fmt.Errorf("style %q is none of %s, %s, %s: %w", c.Style, Auto, Path, Virtual, fs.ErrInvalid)
	}
	if err := backends.CheckKey(c.Prefix + "x"); err != nil {
		return nil, fmt.Errorf("prefix: %w", err)
	}
	return u, nil
}

// A Store keeps objects in a bucket. It is a backends.Store, Prober, Locator
// and Copier.
type Store struct {
	cfg      Config
	endpoint *url.URL
	core     *minio.Core
	watch    *watch
	can      abilities
	copying  copying
	pace     time.Duration // of trying again
	blocks   sync.Pool     // *[]byte of PartSize
}

// Open connects to the bucket and tries what its server can do, on a scratch
// object that is deleted again. The error says what is wrong with which part
// of cfg, and what helps.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.defaults()
	u, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	s, err := connect(cfg, u)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if s.can, err = s.probe(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("s3: open bucket %s at %s: %w", cfg.Bucket, cfg.Endpoint, err)
	}
	return s, nil
}

// connect makes the client. It asks the server nothing.
func connect(cfg Config, u *url.URL) (*Store, error) {
	w, err := newWatch(cfg, u)
	if err != nil {
		return nil, err
	}
	lookup := map[Style]minio.BucketLookupType{Auto: minio.BucketLookupAuto, Path: minio.BucketLookupPath, Virtual: minio.BucketLookupDNS}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken),
		Secure:       u.Scheme == "https",
		Transport:    w,
		Region:       cfg.Region,
		BucketLookup: lookup[cfg.Style],
		MaxRetries:   1, // we try again ourselves, since we can tell what is in doubt
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", cfg.Endpoint, err)
	}
	s := &Store{cfg: cfg, endpoint: u, core: core, watch: w, copying: limits(), pace: firstDelay}
	s.blocks.New = func() any { b := make([]byte, cfg.PartSize); return &b }
	return s, nil
}

// Close lets go of idle connections. Readers and Writers that are open go on.
func (s *Store) Close() error {
	s.watch.closeIdle()
	return nil
}

// name returns the name of the S3 object of a key.
func (s *Store) name(key string) string { return s.cfg.Prefix + key }

// URI returns the location of an object as Glance's driver writes it, but
// without keys: s3://HOST[:PORT]/BUCKET/NAME, or s3+https://... where the
// server speaks TLS.
func (s *Store) URI(key string) string {
	scheme := "s3"
	if s.endpoint.Scheme == "https" {
		scheme = "s3+https"
	}
	return scheme + "://" + s.endpoint.Host + "/" + s.cfg.Bucket + "/" + s.name(key)
}

// check returns an error if nothing should be done with the key.
func check(ctx context.Context, key string) error {
	if err := backends.CheckKey(key); err != nil {
		return err
	}
	return ctx.Err()
}

// Delete removes an object, and what unfinished uploads of its key left.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := check(ctx, key)
	if err == nil {
		err = s.remove(ctx, s.name(key))
	}
	if err == nil && s.can.listUploads {
		err = s.abortAll(ctx, s.name(key))
	}
	if err != nil {
		return fmt.Errorf("s3: delete %s: %w", key, err)
	}
	return nil
}

// remove deletes the object of that name. To remove nothing is no error.
func (s *Store) remove(ctx context.Context, name string) error {
	err := s.again(ctx, s.writing(), "delete "+name, func(ctx context.Context) error {
		return s.core.RemoveObject(ctx, s.cfg.Bucket, name, minio.RemoveObjectOptions{})
	})
	if codeOf(err) == minio.NoSuchKey {
		return nil
	}
	return s.explain(err)
}

// abortAll aborts every multipart upload of exactly that name.
func (s *Store) abortAll(ctx context.Context, name string) error {
	var keyMarker, idMarker string
	for {
		var page minio.ListMultipartUploadsResult
		err := s.again(ctx, s.writing(), "list the uploads of "+name, func(ctx context.Context) (err error) {
			page, err = s.core.ListMultipartUploads(ctx, s.cfg.Bucket, name, keyMarker, idMarker, "", 1000)
			return err
		})
		if err != nil {
			return s.explain(err)
		}
		for _, u := range page.Uploads {
			if u.Key != name {
				continue
			}
			if err := s.abort(ctx, name, u.UploadID); err != nil {
				return err
			}
		}
		// Names come in order, and ours is the first with its prefix.
		if !page.IsTruncated || page.NextKeyMarker != name || page.NextUploadIDMarker == idMarker {
			return nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

// abort frees the parts of a multipart upload. One that is gone is no error.
func (s *Store) abort(ctx context.Context, name, id string) error {
	err := s.again(ctx, s.writing(), "abort an upload of "+name, func(ctx context.Context) error {
		return s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, name, id)
	})
	if c := codeOf(err); c == minio.NoSuchUpload || c == minio.NoSuchKey {
		return nil
	}
	return s.explain(err)
}

var (
	_ backends.Store   = (*Store)(nil)
	_ backends.Prober  = (*Store)(nil)
	_ backends.Locator = (*Store)(nil)
	_ backends.Copier  = (*Store)(nil)
)
