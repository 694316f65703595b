package s3_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fake is an S3 server in memory that can be told to misbehave. It checks no
// signatures.
type fake struct {
	*httptest.Server
	t testing.TB

	// What it ignores, by the names of the abilities.
	ignores map[string]bool
	// before sees each request first; true is that it has answered.
	before func(w http.ResponseWriter, r *http.Request) bool
	// after sees it when it was carried out, and may spoil the answer.
	after func(w http.ResponseWriter, r *http.Request) bool

	mu      sync.Mutex
	objects map[string]thing
	uploads map[string]*pending
	seen    []string // METHOD PATH?QUERY
	serial  int
}

type thing struct {
	data []byte
	etag string
	meta http.Header
}

type pending struct {
	name  string
	meta  http.Header
	parts map[int]thing
}

// fakeBucket is the only one there is.
const fakeBucket = "bucket"

func newFake(t testing.TB, ignores ...string) *fake {
	f := &fake{t: t, ignores: map[string]bool{}, objects: map[string]thing{}, uploads: map[string]*pending{}}
	for _, what := range ignores {
		f.ignores[what] = true
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

// set changes how the fake behaves.
func (f *fake) set(change func(f *fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// requests returns those since the last call.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

func (f *fake) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

func (f *fake) unfinished() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>so says the fake</Message></Error>", code)
}

// cut ends the connection without another word.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.URL.RequestURI())
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	answer := httptest.NewRecorder()
	f.serve(answer, r)
	if after != nil && after(w, r) {
		return
	}
	maps.Copy(w.Header(), answer.Header())
	if r.Method == http.MethodHead || answer.Code == http.StatusNoContent {
		w.WriteHeader(answer.Code)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	bucket, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case bucket != fakeBucket:
		refuse(w, 404, "NoSuchBucket")
	case name == "" && q.Has("location"):
		fmt.Fprint(w, `<LocationConstraint></LocationConstraint>`)
	case name == "" && q.Has("uploads"):
		f.list(w, q)
	case r.Method == http.MethodHead, r.Method == http.MethodGet:
		f.get(w, r, name)
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		delete(f.uploads, q.Get("uploadId"))
		w.WriteHeader(204)
	case r.Method == http.MethodDelete:
		delete(f.objects, name)
		w.WriteHeader(204)
	case r.Method == http.MethodPost && q.Has("uploads"):
		f.serial++
		id := fmt.Sprint("upload-", f.serial)
		f.uploads[id] = &pending{name: name, meta: f.meta(r), parts: map[int]thing{}}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case r.Method == http.MethodPost && q.Has("uploadId"):
		f.complete(w, r, name, q.Get("uploadId"), body)
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		f.copy(w, r, name, q)
	case r.Method == http.MethodPut && f.wrong(r, body) != "":
		refuse(w, 400, f.wrong(r, body))
	case r.Method == http.MethodPut && q.Has("uploadId"):
		f.part(w, q, body)
	case r.Method == http.MethodPut:
		if f.allows(w, r, name, "put") {
			f.objects[name] = newThing(body, f.meta(r))
			w.Header().Set("ETag", f.objects[name].etag)
		}
	default:
		refuse(w, 501, "NotImplemented")
	}
}

func newThing(data []byte, meta http.Header) thing {
	sum := md5.Sum(data)
	return thing{data: bytes.Clone(data), etag: `"` + hex.EncodeToString(sum[:]) + `"`, meta: meta}
}

func (f *fake) meta(r *http.Request) http.Header {
	kept := http.Header{}
	for name, v := range r.Header {
		if strings.HasPrefix(name, "X-Amz-Meta-") && !f.ignores["metadata"] {
			kept[name] = v
		}
	}
	return kept
}

// wrong returns the error code of bytes that are not as their digests say.
func (f *fake) wrong(r *http.Request, body []byte) string {
	sha, old := sha256.Sum256(body), md5.Sum(body)
	crc := binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	differs := func(header, want string) bool {
		got := r.Header.Get(header)
		return got != "" && got != "UNSIGNED-PAYLOAD" && got != want
	}
	switch {
	case !f.ignores["sha256"] && differs("X-Amz-Content-Sha256", hex.EncodeToString(sha[:])):
		return "XAmzContentSHA256Mismatch"
	case !f.ignores["md5"] && differs("Content-Md5", base64.StdEncoding.EncodeToString(old[:])):
		return "BadDigest"
	case !f.ignores["crc32c"] && differs("X-Amz-Checksum-Crc32c", base64.StdEncoding.EncodeToString(crc)):
		return "BadDigest"
	}
	return ""
}

// allows answers 412 where a condition does not hold.
func (f *fake) allows(w http.ResponseWriter, r *http.Request, name, verb string) bool {
	have, there := f.objects[name]
	none := r.Header.Get("If-None-Match") == "*" && !f.ignores["if-none-match on "+verb]
	match := r.Header.Get("If-Match")
	if none && there || match != "" && !f.ignores["if-match on "+verb] && (!there || match != have.etag) {
		refuse(w, 412, "PreconditionFailed")
		return false
	}
	return true
}

func (f *fake) get(w http.ResponseWriter, r *http.Request, name string) {
	o, there := f.objects[name]
	if !there {
		refuse(w, 404, "NoSuchKey")
		return
	}
	if !f.allows(w, r, name, "get") {
		return
	}
	maps.Copy(w.Header(), o.meta)
	w.Header().Set("ETag", o.etag)
	if r.Header.Get("Range") == "" || f.ignores["range"] {
		w.Header().Set("Content-Length", strconv.Itoa(len(o.data)))
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		if r.Method == http.MethodGet {
			_, _ = w.Write(o.data)
		}
		return
	}
	r.Header.Del("If-Match")
	http.ServeContent(w, r, "", time.Now(), bytes.NewReader(o.data))
}

func (f *fake) part(w http.ResponseWriter, q url.Values, body []byte) {
	u := f.uploads[q.Get("uploadId")]
	if u == nil {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	number, _ := strconv.Atoi(q.Get("partNumber"))
	u.parts[number] = newThing(body, nil)
	w.Header().Set("ETag", u.parts[number].etag)
}

func (f *fake) complete(w http.ResponseWriter, r *http.Request, name, id string, body []byte) {
	u := f.uploads[id]
	var order struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.Unmarshal(body, &order); err != nil || u == nil || u.name != name {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	if !f.allows(w, r, name, "complete") {
		return
	}
	var data []byte
	for i, p := range order.Part {
		have, there := u.parts[p.PartNumber]
		if !there || strings.Trim(have.etag, `"`) != strings.Trim(p.ETag, `"`) || p.PartNumber != i+1 {
			refuse(w, 400, "InvalidPart")
			return
		}
		data = append(data, have.data...)
	}
	o := newThing(data, u.meta)
	o.etag = strings.TrimSuffix(o.etag, `"`) + fmt.Sprintf("-%d\"", len(order.Part))
	f.objects[name] = o
	delete(f.uploads, id)
	fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><ETag>%s</ETag></CompleteMultipartUploadResult>",
		fakeBucket, name, strings.ReplaceAll(o.etag, `"`, "&quot;"))
}

func (f *fake) copy(w http.ResponseWriter, r *http.Request, name string, q url.Values) {
	source, _ := url.PathUnescape(strings.TrimPrefix(r.Header.Get("X-Amz-Copy-Source"), "/"))
	from, there := f.objects[strings.TrimPrefix(source, fakeBucket+"/")]
	match := r.Header.Get("X-Amz-Copy-Source-If-Match")
	switch {
	case f.ignores["copy"]:
		refuse(w, 501, "NotImplemented")
		return
	case !there:
		refuse(w, 404, "NoSuchKey")
		return
	case match != "" && strings.Trim(match, `"`) != strings.Trim(from.etag, `"`):
		refuse(w, 412, "PreconditionFailed")
		return
	}
	data, meta := from.data, from.meta
	if r.Header.Get("X-Amz-Metadata-Directive") == "REPLACE" {
		meta = f.meta(r)
	}
	var first, last int
	if n, _ := fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &first, &last); n == 2 {
		data = data[first : last+1]
	}
	o := newThing(data, meta)
	if u := f.uploads[q.Get("uploadId")]; u != nil {
		number, _ := strconv.Atoi(q.Get("partNumber"))
		u.parts[number] = o
	} else {
		f.objects[name] = o
	}
	fmt.Fprintf(w, "<CopyObjectResult><ETag>%s</ETag></CopyObjectResult>", strings.ReplaceAll(o.etag, `"`, "&quot;"))
}

func (f *fake) list(w http.ResponseWriter, q url.Values) {
	if f.ignores["list uploads"] {
		refuse(w, 501, "NotImplemented")
		return
	}
	fmt.Fprint(w, "<ListMultipartUploadsResult>")
	for id, u := range f.uploads {
		if strings.HasPrefix(u.name, q.Get("prefix")) {
			fmt.Fprintf(w, "<Upload><Key>%s</Key><UploadId>%s</UploadId></Upload>", u.name, id)
		}
	}
	fmt.Fprint(w, "<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
}
