package swift_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/swift"
)

// A fake is a Swift server in memory: as much of one as the store needs, with
// version 1 of signing in.
type fake struct {
	*httptest.Server
	deaf bool // ignores If-None-Match and static manifests' digests, as Ceph does

	// meet, if set, sees every request to the account first. If it returns
	// true it has answered.
	meet func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	token    int // changes when it expires
	signIns  int
	requests []string
	objects  map[string]*thing // by CONTAINER/NAME; "CONTAINER/" is the container
}

// A thing is an object.
type thing struct {
	data   []byte
	header http.Header
	sum    string // of data, when it was needed once
}

func (o *thing) digest() string {
	if o.sum == "" {
		o.sum = sumOf(o.data)
	}
	return o.sum
}

func newFake(t *testing.T) *fake {
	f := &fake{objects: map[string]*thing{"images/": {}}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) config() swift.Config {
	return swift.Config{AuthURL: f.URL + "/auth/v1.0", User: "a:u", Key: "secret", Container: "images",
		Timeout: time.Minute, Retry: time.Minute}
}

// open opens a store; change, if not nil, changes its Config.
func (f *fake) open(t *testing.T, change func(*swift.Config)) *swift.Store {
	t.Helper()
	cfg := f.config()
	cfg.SpoolDir = t.TempDir()
	if change != nil {
		change(&cfg)
	}
	s, err := swift.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// names returns the names of the objects, in order.
func (f *fake) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.objects {
		if !strings.HasSuffix(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// seen returns the requests that contain what, as METHOD PATH?QUERY RANGE.
func (f *fake) seen(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.Contains(r, what) {
			n++
		}
	}
	return n
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/auth/v1.0" {
		f.signIn(w, r)
		return
	}
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Range"))
	fresh := r.Header.Get("X-Auth-Token") == fmt.Sprintf("token-%d", f.token)
	f.mu.Unlock()
	if !fresh {
		http.Error(w, "<html>who are you", http.StatusUnauthorized)
		return
	}
	if f.meet != nil && f.meet(w, r) {
		return
	}
	container, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/AUTH_a/"), "/")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects[container+"/"] == nil && (name != "" || r.Method != http.MethodPut) {
		http.Error(w, "no container", http.StatusNotFound)
		return
	}
	if name == "" {
		f.serveContainer(w, r, container)
		return
	}
	f.serveObject(w, r, container+"/"+name, body)
}

func (f *fake) signIn(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signIns++
	if r.Header.Get("X-Auth-Key") != "secret" {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Storage-Url", f.URL+"/v1/AUTH_a")
	w.Header().Set("X-Auth-Token", fmt.Sprintf("token-%d", f.token))
}

// expire makes the server refuse the tokens that it gave out.
func (f *fake) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token++
}

func (f *fake) serveContainer(w http.ResponseWriter, r *http.Request, container string) {
	switch r.Method {
	case http.MethodPut:
		f.objects[container+"/"] = &thing{}
		w.WriteHeader(http.StatusCreated)
	case http.MethodHead:
		maps.Copy(w.Header(), f.objects[container+"/"].header)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet:
		type line struct {
			Name  string `json:"name"`
			Hash  string `json:"hash"`
			Bytes int    `json:"bytes"`
		}
		lines := []line{}
		for _, name := range f.under(container + "/" + r.FormValue("prefix")) {
			if short := strings.TrimPrefix(name, container+"/"); short > r.FormValue("marker") && len(lines) < 3 {
				lines = append(lines, line{short, f.objects[name].digest(), len(f.objects[name].data)})
			}
		}
		json.NewEncoder(w).Encode(lines)
	}
}

// under returns the names that begin with prefix, in order.
func (f *fake) under(prefix string) []string {
	var names []string
	for name := range f.objects {
		if strings.HasPrefix(name, prefix) && !strings.HasSuffix(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func sumOf(p []byte) string {
	sum := md5.Sum(p)
	return hex.EncodeToString(sum[:])
}

func (f *fake) serveObject(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	o := f.objects[name]
	if r.Method == http.MethodPut {
		f.put(w, r, name, body)
		return
	}
	if o == nil {
		http.Error(w, "no object", http.StatusNotFound)
		return
	}
	if r.Method == http.MethodDelete {
		if r.FormValue("multipart-manifest") == "delete" {
			for _, p := range o.parts() {
				delete(f.objects, strings.TrimPrefix(p.Path, "/"))
			}
			fmt.Fprint(w, "Number Deleted: 1\nResponse Status: 200 OK\n")
		}
		delete(f.objects, name)
		return
	}
	maps.Copy(w.Header(), o.header)
	data, sum := o.data, o.digest()
	if o.header.Get("X-Static-Large-Object") != "" && r.FormValue("multipart-manifest") == "" {
		var sums string
		data = nil
		for _, p := range o.parts() {
			data = append(data, f.objects[strings.TrimPrefix(p.Path, "/")].data...)
			sums += p.Etag
		}
		sum = sumOf([]byte(sums))
	} else if o.header.Get("X-Static-Large-Object") != "" {
		data = bytes.NewBufferString(strings.NewReplacer(`"path"`, `"name"`, `"etag"`, `"hash"`, `"size_bytes"`, `"bytes"`).Replace(string(data))).Bytes()
	}
	if prefix, _ := url.PathUnescape(o.header.Get("X-Object-Manifest")); prefix != "" {
		data = nil
		for _, name := range f.under(prefix) {
			data = append(data, f.objects[name].data...)
		}
	}
	w.Header().Set("Etag", `"`+sum+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

type line struct {
	Path string `json:"path"`
	Etag string `json:"etag"`
	Size int    `json:"size_bytes"`
}

func (o *thing) parts() (lines []line) {
	json.Unmarshal(o.data, &lines)
	return lines
}

func (f *fake) put(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	if from, _ := url.PathUnescape(r.Header.Get("X-Copy-From")); from != "" {
		src := f.objects[from]
		if src == nil {
			http.Error(w, "no source", http.StatusNotFound)
			return
		}
		body = src.data
		if r.Header.Get("If-None-Match") == "*" { // asked of the source, as Swift does
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	static := r.FormValue("multipart-manifest") == "put"
	o := &thing{data: body, header: http.Header{"Content-Type": {"application/octet-stream"}}}
	for k, v := range r.Header {
		if strings.HasPrefix(k, "X-Object-Meta-") || k == "X-Object-Manifest" {
			o.header[k] = v
		}
	}
	if static {
		o.header.Set("X-Static-Large-Object", "True")
	}
	want := r.Header.Get("Etag")
	switch {
	case r.Header.Get("If-None-Match") == "*" && f.objects[name] != nil && !f.deaf:
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	case want != "" && want != sumOf(body):
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	case static && !f.deaf:
		for _, p := range o.parts() {
			if seg := f.objects[strings.TrimPrefix(p.Path, "/")]; seg == nil || sumOf(seg.data) != p.Etag {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
		}
	}
	f.objects[name] = o
	w.Header().Set("Etag", o.digest())
	w.WriteHeader(http.StatusCreated)
}
