package s3_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/s3"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

func prefixed(f *fake) s3.Config {
	cfg := f.config()
	cfg.Prefix = "other/"
	return cfg
}

// TestConfig: what cannot work is said before anything is asked.
func TestConfig(t *testing.T) {
	for want, change := range map[string]func(c *s3.Config){
		"is not http":          func(c *s3.Config) { c.Endpoint = "host:9000" },
		"is not http:":         func(c *s3.Config) { c.Endpoint = "http://host/bucket" },
		"is not http://":       func(c *s3.Config) { c.Endpoint = "" },
		"xxxxx@host":           func(c *s3.Config) { c.Endpoint = "http://key:secret@host" },
		"no bucket":            func(c *s3.Config) { c.Bucket = "" },
		"access key":           func(c *s3.Config) { c.AccessKey = "" },
		"secret key":           func(c *s3.Config) { c.SecretKey = "" },
		"5242880 or more":      func(c *s3.Config) { c.PartSize = 1 << 20 },
		"style \"vhost\"":      func(c *s3.Config) { c.Style = "vhost" },
		"prefix: key \"../x\"": func(c *s3.Config) { c.Prefix = "../" },
	} {
		cfg := s3.Config{Endpoint: "http://127.0.0.1:1", Bucket: "b", AccessKey: "a", SecretKey: "s"}
		change(&cfg)
		if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error about %q", err, want)
		}
	}
}

// TestOpenErrors: what the server refuses is said in words that help.
func TestOpenErrors(t *testing.T) {
	skewed := func(status int, code string) fault {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Date", time.Now().Add(-20*time.Minute).UTC().Format(http.TimeFormat))
			return says(status, code)(w, r)
		}
	}
	for name, c := range map[string]struct {
		fault fault
		want  string
	}{
		"bucket":          {says(404, "NoSuchBucket"), "there is no bucket bucket at 127.0.0.1:PORT: create it, or correct bucket"},
		"access key":      {says(403, "InvalidAccessKeyId"), "does not know the access key: correct access_key"},
		"secret key":      {says(403, "SignatureDoesNotMatch"), "correct secret_key"},
		"token":           {says(400, "ExpiredToken"), "session token"},
		"clock":           {skewed(403, "RequestTimeTooSkewed"), "differs from this machine's by 20m"},
		"clock, no words": {skewed(403, "AccessDenied"), "differs from this machine's by 20m"},
		"denied":          {says(403, "AccessDenied"), "let it get, put and delete objects of bucket bucket"},
		"region":          {says(400, "AuthorizationHeaderMalformed"), "correct region"},
		"moved":           {says(301, "PermanentRedirect"), "correct region"},
		"full":            {says(507, "XMinioStorageFull"), "is full"},
		"500":             {says(500, "InternalError"), "answered 500 InternalError"},
		"no delete":       {on("DELETE", "", says(403, "AccessDenied")), "delete the scratch object"},
		"no get":          {on("GET", "", says(403, "AccessDenied")), "ranges of objects cannot be read"},
		"no range": {on("GET", "", func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}), "the server ignored the range"},
		"hang up": {hangUp, "Connection closed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.set(func(f *fake) { f.before = c.fault })
			began := time.Now()
			_, err := s3.Open(t.Context(), f.config())
			if err == nil {
				t.Fatal("it opened")
			}
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(f.URL, "http://"))
			said := strings.ReplaceAll(err.Error(), port, "PORT")
			if !strings.Contains(said, c.want) || !strings.Contains(said, "s3: open bucket bucket at http://127.0.0.1:PORT") {
				t.Errorf("%v, want an error about %q", err, c.want)
			}
			if strings.Contains(said, "secret ") || time.Since(began) > 30*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

func TestOpenNowhere(t *testing.T) {
	cfg := s3.Config{Endpoint: "http://127.0.0.1:1", Bucket: "bucket", AccessKey: "a", SecretKey: "s", Region: "r"}
	if _, err := s3.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "nothing listens at 127.0.0.1:1: start the server") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s3.Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestTLS: each way in which a TLS server is not to be trusted, and the ways
// in which it is.
func TestTLS(t *testing.T) {
	f := newFake(t)
	tls := httptest.NewTLSServer(f)
	defer tls.Close()
	dir := t.TempDir()
	ca, noCA := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "none.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})
	for name, data := range map[string][]byte{ca: cert, noCA: []byte("certificate")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(tls.URL, "https://"))
	for name, c := range map[string]struct {
		change func(cfg *s3.Config)
		want   string // "" is success
	}{
		"unknown authority": {func(*s3.Config) {}, "not trusted here: name the authority's PEM file in ca_file"},
		"known authority":   {func(cfg *s3.Config) { cfg.CAFile = ca }, ""},
		"any authority":     {func(cfg *s3.Config) { cfg.Insecure = true }, ""},
		"no file":           {func(cfg *s3.Config) { cfg.CAFile = filepath.Join(dir, "x") }, "read the certificates to trust"},
		"no certificate":    {func(cfg *s3.Config) { cfg.CAFile = noCA }, "should be PEM"},
		"other host":        {func(cfg *s3.Config) { cfg.CAFile, cfg.Endpoint = ca, "https://localhost:"+port }, "for another host"},
		"no TLS":            {func(cfg *s3.Config) { cfg.Endpoint = strings.Replace(f.URL, "http:", "https:", 1) }, "write http://"},
		"only TLS":          {func(cfg *s3.Config) { cfg.Endpoint = strings.Replace(tls.URL, "https:", "http:", 1) }, "write https://"},
	} {
		cfg := f.config()
		cfg.Endpoint = tls.URL
		c.change(&cfg)
		s, err := s3.Open(t.Context(), cfg)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want an error about %q", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data := storetest.Bytes(1, 11*mib)
		if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
			t.Error(err)
		}
		if err := storetest.Want(t.Context(), s, "k", data); err != nil {
			t.Error(err)
		}
		if got, want := s.URI("k"), "s3+https://127.0.0.1:"+port+"/bucket/k"; got != want {
			t.Errorf("URI = %s, want %s", got, want)
		}
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
