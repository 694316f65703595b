package embedded_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/embedded"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
)

// TestDamaged: data that etcd cannot read is an error that says what to do,
// however etcd itself takes it.
func TestDamaged(t *testing.T) {
	good := t.TempDir()
	s := start(t, good)
	c, err := catalog.Open(t.Context(), etcdkv.New(s.Client(), "/platter"), catalog.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(member string) error{
		"db is noise": func(m string) error { return scribble(filepath.Join(m, "snap", "db")) },
		"log is noise": func(m string) error {
			return scribble(filepath.Join(m, "wal", "0000000000000000-0000000000000000.wal"))
		},
		"log is gone": func(m string) error { return os.RemoveAll(filepath.Join(m, "wal")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(dir, "data", "member")); err != nil {
				t.Fatal(err)
			}
			s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, NoSync: true})
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			for _, want := range []string{dir, "damaged", "platterd restore"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

// scribble writes noise over the beginning of a file.
func scribble(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var noise bytes.Buffer
	for rng := rand.New(rand.NewPCG(1, 2)); noise.Len() < 16<<10; {
		noise.WriteByte(byte(rng.Uint32()))
	}
	_, err = f.WriteAt(noise.Bytes(), 0)
	return err
}
