package main

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// brokenGateway serves one image and cuts the connection in the middle, which
// no gateway does on purpose.
func brokenGateway(t *testing.T, data []byte, checksum string) *httptest.Server {
	var tries atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/images", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("os_hidden") == "true" {
			fmt.Fprint(w, `{"images":[]}`)
			return
		}
		fmt.Fprintf(w, `{"images":[{"id":"i","name":"x","status":"active","size":%d,"checksum":%q}]}`, len(data), checksum)
	})
	mux.HandleFunc("GET /v2/images/i/file", func(w http.ResponseWriter, r *http.Request) {
		off := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-off))
		if off > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		if tries.Add(1) < 3 {
			w.Write(data[off : off+1000])
			panic(http.ErrAbortHandler)
		}
		w.Write(data[off:])
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestDownloadIsTakenUpAgain(t *testing.T) {
	data := []byte(strings.Repeat("platter ", 10_000))
	sum := md5.Sum(data)
	for name, checksum := range map[string]string{"right": hex.EncodeToString(sum[:]), "wrong": strings.Repeat("0", 32)} {
		s := brokenGateway(t, data, checksum)
		out := filepath.Join(t.TempDir(), "out")
		var said strings.Builder
		code := run(t.Context(), []string{"platter", "--url", s.URL, "image", "save", "x", out},
			streams{out: &said, err: &said, env: func(string) string { return "" }})
		got, err := os.ReadFile(out)
		switch name {
		case "right":
			if code != exitOK || string(got) != string(data) {
				t.Errorf("code %d, %d bytes, %v: %s", code, len(got), err, said.String())
			}
		case "wrong":
			if code != exitFailed || err == nil || !strings.Contains(said.String(), "arrived damaged") {
				t.Errorf("code %d, %v: %s", code, err, said.String())
			}
		}
	}
}
