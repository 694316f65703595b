package rbd

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	for key, want := range map[string]string{
		"6f8f1a0e-7f7a-4b0e-9a53-0c9d1a1a7d11": "6f8f1a0e-7f7a-4b0e-9a53-0c9d1a1a7d11",
		"6f8f1a0e.b2b7a9f6":                    "6f8f1a0e.b2b7a9f6",
		"platter/overlays/o/1-2":               "platter+overlays+o+1-2",
		"a":                                    "a",
		strings.Repeat("k/", 127) + "k":        strings.Repeat("k+", 127) + "k",
		"...":                                  "...",
		"folder/.hidden_file-with.all/the.characters": "folder+.hidden_file-with.all+the.characters",
	} {
		name, err := imageName(key)
		if err != nil || name != want {
			t.Errorf("imageName(%q) = %q, %v, want %q", key, name, err, want)
		}
		if back := strings.ReplaceAll(name, "+", "/"); back != key {
			t.Errorf("the name %q leads back to key %q, want %q", name, back, key)
		}
	}
	for _, key := range []string{"", "a+b", "a//b", "/", "a@b", "a b", "..", strings.Repeat("k", 256)} {
		if name, err := imageName(key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("imageName(%q) = %q, %v, want fs.ErrInvalid", key, name, err)
		}
	}
}

func TestURI(t *testing.T) {
	cfg := Config{Pool: "images"}
	for key, want := range map[string]string{
		"6f8f1a0e-7f7a": "rbd://6c3e/images/6f8f1a0e-7f7a/snap",
		"a/b":           "rbd://6c3e/images/a%2Bb/snap",
		"a b":           "",
	} {
		if got := uri("6c3e", cfg, key); got != want {
			t.Errorf("uri(%q) = %q, want %q", key, got, want)
		}
	}
	cfg.Namespace = "n"
	if got := uri("6c3e", cfg, "k"); got != "" {
		t.Errorf("uri in a namespace = %q, want none", got)
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []Config{{}, {Pool: "p", Timeout: -1}, {Pool: "p", Parallel: -1}, {Pool: "p", Parallel: 1 << 20}} {
		if _, err := bad.defaults(); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("defaults of %+v = %v, want fs.ErrInvalid", bad, err)
		}
		if _, err := Open(t.Context(), bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Open(%+v) = %v, want fs.ErrInvalid", bad, err)
		}
	}
	cfg, err := Config{Pool: "p"}.defaults()
	if err != nil || cfg.User != "admin" || cfg.Cluster != "ceph" || cfg.Timeout != 30*time.Second || cfg.Parallel != 64 || cfg.Logger == nil {
		t.Errorf("defaults = %+v, %v", cfg, err)
	}
}
