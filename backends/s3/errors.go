package s3

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
)

// response returns what the server answered, if it answered.
func response(err error) (minio.ErrorResponse, bool) {
	var r minio.ErrorResponse
	ok := errors.As(err, &r)
	return r, ok
}

// codeOf returns the S3 error code, or "" if the server answered none.
func codeOf(err error) string {
	r, _ := response(err)
	return r.Code
}

func statusOf(err error) int {
	r, _ := response(err)
	return r.StatusCode
}

// errOccupied is our own answer 412, for servers that have none.
var errOccupied = errors.New("the name is taken")

// refused says that the request found its condition not to hold.
func refused(err error) bool {
	return errors.Is(err, errOccupied) || statusOf(err) == http.StatusPreconditionFailed || codeOf(err) == minio.PreconditionFailed
}

// full says that the bucket, its owner's quota or the server's disk is full.
func full(err error) bool {
	r, ok := response(err)
	return ok && (r.StatusCode == http.StatusInsufficientStorage ||
		slices.Contains([]string{"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "StorageFull", "InsufficientStorage"}, r.Code))
}

func slowDown(err error) bool {
	r, ok := response(err)
	return ok && (r.StatusCode == http.StatusServiceUnavailable || r.StatusCode == http.StatusTooManyRequests || strings.HasPrefix(r.Code, "SlowDown"))
}

// passing says that an error may be gone at the next try. What the server
// refuses will be refused again; what broke on the way may not.
func passing(err error) bool {
	r, answered := response(err)
	switch {
	case full(err), refused(err), errors.Is(err, errWhole), errors.Is(err, errWrongRange), errors.Is(err, syscall.ESTALE), untrusted(err) != "":
		return false
	case !answered:
		return true
	case r.StatusCode < 300: // half an answer, or one with an error inside
		return r.Code != minio.NoSuchUpload && r.Code != minio.InvalidPart
	case r.StatusCode >= 500:
		return r.StatusCode != http.StatusNotImplemented
	case r.StatusCode == http.StatusRequestTimeout, r.StatusCode == http.StatusTooManyRequests:
		return true
	}
	// The first two are of requests that crossed others; the rest arrived
	// broken or too slowly.
	return slices.Contains([]string{"OperationAborted", "ConditionalRequestConflict",
		"RequestTimeout", "IncompleteBody", minio.BadDigest, minio.XAmzContentSHA256Mismatch, "XAmzContentChecksumMismatch"}, r.Code)
}

// untrusted says what is wrong between us and the server's TLS, or "".
func untrusted(err error) string {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &authority):
		return "its certificate is of an authority that is not trusted here: name the authority's PEM file in ca_file"
	case errors.As(err, &host):
		return "its certificate is for another host: use a name in endpoint that the certificate has"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is not valid now: renew it, or set this machine's clock"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it does not speak TLS: write http:// in endpoint"
	}
	return ""
}

// skewLimit is how far a clock may be off: S3's 15 minutes, less what the
// server's own limit may be.
const skewLimit = 5 * time.Minute

// explain adds to an error of the server what it means and what helps.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	if hint := untrusted(err); hint != "" {
		return fmt.Errorf("%s cannot be trusted: %s: %w", s.endpoint.Host, hint, err)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing listens at %s: start the server, or correct endpoint: %w", s.endpoint.Host, err)
	}
	r, ok := response(err)
	if !ok {
		return err
	}
	if full(err) {
		return fmt.Errorf("bucket %s is full (%s): free space or raise its quota: %w", s.cfg.Bucket, said(r), syscall.ENOSPC)
	}
	if hint := s.hint(r); hint != "" {
		return fmt.Errorf("%s: %w", hint, err)
	}
	return fmt.Errorf("%s answered %d %s: %w", s.endpoint.Host, r.StatusCode, r.Code, err)
}

// said returns the code and the words of an answer.
func said(r minio.ErrorResponse) string { return strings.TrimSpace(r.Code + " " + r.Message) }

// hint says what an answer means for the configuration, or "".
func (s *Store) hint(r minio.ErrorResponse) string {
	skew := time.Duration(s.watch.skew.Load()).Round(time.Second)
	switch {
	case r.Code == "RequestTimeTooSkewed", r.StatusCode == http.StatusForbidden && skew.Abs() > skewLimit:
		return fmt.Sprintf("the clock of %s differs from this machine's by %v: set the wrong one (NTP)", s.endpoint.Host, skew.Abs())
	case r.Code == minio.NoSuchBucket:
		return fmt.Sprintf("there is no bucket %s at %s: create it, or correct bucket", s.cfg.Bucket, s.endpoint.Host)
	case r.Code == minio.InvalidAccessKeyID:
		return fmt.Sprintf("%s does not know the access key: correct access_key", s.endpoint.Host)
	case r.Code == minio.SignatureDoesNotMatch:
		return fmt.Sprintf("%s refuses the signature: correct secret_key", s.endpoint.Host)
	case r.Code == "ExpiredToken", r.Code == "InvalidToken":
		return "the session token is no longer valid: get a new one"
	case r.Code == minio.AuthorizationHeaderMalformed, r.Code == minio.InvalidRegion, r.Code == "PermanentRedirect",
		r.StatusCode == http.StatusMovedPermanently, r.StatusCode == http.StatusTemporaryRedirect:
		return fmt.Sprintf("bucket %s is not in region %q but in %q: correct region, or the region's endpoint", s.cfg.Bucket, s.cfg.Region, r.Region)
	case r.Code == minio.InvalidBucketName:
		return fmt.Sprintf("%s is no name of a bucket: correct bucket", s.cfg.Bucket)
	case r.StatusCode == http.StatusForbidden:
		return fmt.Sprintf("%s does not allow this to the access key: let it get, put and delete objects of bucket %s, and list and abort their multipart uploads",
			s.endpoint.Host, s.cfg.Bucket)
	case strings.Contains(r.Message, "HTTP request to an HTTPS server"), strings.Contains(r.Message, "plain HTTP request was sent to HTTPS port"):
		return fmt.Sprintf("%s speaks TLS: write https:// in endpoint", s.endpoint.Host)
	}
	return ""
}

// taken is the error of a key that has an object.
func taken() error { return fmt.Errorf("there is an object already: %w", fs.ErrExist) }
