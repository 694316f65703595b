package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); err == nil || !strings.Contains(err.Error(), "in use by another platterd (process ") {
		t.Errorf("a directory in use: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.gateway != d.gateway {
		t.Errorf("the gateway was %s and is %s", d.gateway, again.gateway)
	}
}

// TestDamagedGatewayID: a gateway does not become another one because a file
// is damaged, since its overlays would be lost to it.
func TestDamagedGatewayID(t *testing.T) {
	for _, text := range []string{"", "\n", "not an id\n", "\x00\x00\x00"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "gateway-id")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDataDir(dir)
		if err == nil {
			d.Close()
			t.Errorf("%q was taken as an id", text)
			continue
		}
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%q: %v", text, err)
		}
		if got, _ := os.ReadFile(name); string(got) != text {
			t.Errorf("%q was replaced by %q", text, got)
		}
	}
}

func TestDataDirThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(filepath.Join(file, "data")); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a data directory under a file: %v", err)
	}
}
