package embedded_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestBallast: room is kept on the disk while the server runs, and given back
// before the last changes of a stop. What one that was killed has left is no
// hindrance.
func TestBallast(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ballast")
	if err := os.WriteFile(path, []byte("of another"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	kept, err := os.Stat(path)
	if err == nil && kept.Size() != 8<<20 { // a file system that cannot keep room has none
		t.Errorf("%d bytes are kept", kept.Size())
	}
	s.MakeRoom()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still kept: %v", err)
	}
	if _, err := s.Client().Put(t.Context(), "k", "v"); err != nil {
		t.Errorf("a change after it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
