package api

import (
	"fmt"
	"net/http/httptest"
	"testing"
)

// BenchmarkList answers a page of 25 of a hundred images.
func BenchmarkList(b *testing.B) {
	s, _ := newServer(b, nil)
	for i := range 100 {
		create(b, s, fmt.Sprintf(`{"name":"image %d","tags":["a","b"],"os_distro":"debian","hw_disk_bus":"virtio"}`, i))
	}
	r := httptest.NewRequest("GET", "http://gateway/v2/images?os_distro=debian&tag=a&sort=name:asc", nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkShow answers one image.
func BenchmarkShow(b *testing.B) {
	s, _ := newServer(b, nil)
	id := create(b, s, `{"name":"image","tags":["a","b"],"os_distro":"debian","hw_disk_bus":"virtio"}`)
	r := httptest.NewRequest("GET", "http://gateway/v2/images/"+id, nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkDownload sends 64 MiB.
func BenchmarkDownload(b *testing.B) {
	s, data := newServer(b, nil)
	id := create(b, s, `{"disk_format":"raw","container_format":"bare"}`)
	do(s, "PUT", "/v2/images/"+id+"/file", "x", octets)
	img, err := data.cat.Image(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	const size = 64 << 20
	data.bytes[id] = make([]byte, size)
	*img.Size = size
	reader, _ := data.Open(b.Context(), img)
	b.SetBytes(size)
	for b.Loop() {
		if err := s.send(b.Context(), &nothing{}, img, reader, span{n: size}); err != nil {
			b.Fatal(err)
		}
	}
}

// nothing is a ResponseWriter that throws everything away.
type nothing struct{ httptest.ResponseRecorder }

func (*nothing) WriteHeader(int)             {}
func (*nothing) Write(p []byte) (int, error) { return len(p), nil }
