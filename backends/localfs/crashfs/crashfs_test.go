package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

func open(t *testing.T, fsys localfs.FS, name string) localfs.File {
	t.Helper()
	f, err := fsys.Open(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t *testing.T, f localfs.File, off int64, text string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(text), off); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, fsys localfs.FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	must(t, err)
	defer f.Close()
	n, err := localfs.Size(f)
	must(t, err)
	p := make([]byte, n)
	if got, err := f.ReadAt(p, 0); int64(got) != n || err != nil {
		t.Fatalf("ReadAt of all %d bytes = %d, %v", n, got, err)
	}
	return string(p)
}

// outcomes collects what states look like, after a crash now.
func outcomes(t *testing.T, fsys *crashfs.FS, look func(fs localfs.FS) string) []string {
	t.Helper()
	seen := make(map[string]bool)
	for _, state := range fsys.CrashesNow(rand.New(rand.NewPCG(1, 2)), 400) {
		seen[look(state)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func wantOutcomes(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("outcomes of a crash:\n got %q\nwant %q", got, want)
	}
}

func TestSyncedIsThere(t *testing.T) {
	fsys := crashfs.New()
	f := open(t, fsys, "f")
	write(t, f, 0, "one")
	must(t, f.Sync())
	look := func(s localfs.FS) string { return content(t, s, "f") }
	wantOutcomes(t, outcomes(t, fsys, look), "-", "one") // the name is not synced
	must(t, fsys.SyncDir("."))
	wantOutcomes(t, outcomes(t, fsys, look), "one")
	write(t, f, 0, "two")
	wantOutcomes(t, outcomes(t, fsys, look), "one", "two")
	must(t, f.Truncate(1))
	wantOutcomes(t, outcomes(t, fsys, look), "o", "t", "one", "two", "t\x00\x00")
	must(t, f.Sync())
	wantOutcomes(t, outcomes(t, fsys, look), "t")
}

func TestUnsyncedSizeAndData(t *testing.T) {
	fsys := crashfs.New()
	f := open(t, fsys, "f")
	must(t, fsys.SyncDir("/"))
	write(t, f, 0, "x")
	got := outcomes(t, fsys, func(s localfs.FS) string { return content(t, s, "f") })
	wantOutcomes(t, got, "", "x", "\x00")
}

func TestTornAndReordered(t *testing.T) {
	fsys := crashfs.New()
	f := open(t, fsys, "f")
	old, new := strings.Repeat("o", 512), strings.Repeat("n", 512)
	write(t, f, 0, strings.Repeat(old, 16))
	must(t, f.Sync())
	must(t, fsys.SyncDir("/"))
	write(t, f, 0, new+new)
	write(t, f, 4096, new)
	seen := make(map[string]bool)
	for _, text := range outcomes(t, fsys, func(s localfs.FS) string { return content(t, s, "f") }) {
		for i := 0; i < len(text); i += 512 {
			if part := text[i : i+512]; part != old && part != new {
				t.Fatalf("sector %d is neither old nor new", i/512)
			}
		}
		seen[string([]byte{text[0], text[512], text[4096]})] = true
	}
	if len(seen) != 8 {
		t.Errorf("%d of the 8 ways to tear and reorder three sectors: %v", len(seen), seen)
	}
}

func TestPunch(t *testing.T) {
	fsys := crashfs.New()
	f := open(t, fsys, "f")
	write(t, f, 0, strings.Repeat("x", 3*4096))
	must(t, f.Sync())
	must(t, fsys.SyncDir("/"))
	must(t, localfs.Punch(f, 4096, 4096))
	if n, hole, err := localfs.Run(f, 4096, 99999); n != 4096 || !hole || err != nil {
		t.Errorf("Run = %d, %v, %v", n, hole, err)
	}
	got := outcomes(t, fsys, func(s localfs.FS) string {
		return fmt.Sprint(strings.Count(content(t, s, "f"), "\x00") > 0)
	})
	wantOutcomes(t, got, "false", "true")
}

func names(t *testing.T, s localfs.FS, dir string) string {
	entries, err := s.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name()+"/"+names(t, s, filepath.Join(dir, e.Name())))
			continue
		}
		all = append(all, e.Name()+"="+content(t, s, filepath.Join(dir, e.Name())))
	}
	return strings.Join(all, " ")
}

func TestRename(t *testing.T) {
	fsys := crashfs.New()
	for _, name := range []string{"a", "b"} {
		f := open(t, fsys, name)
		write(t, f, 0, name)
		must(t, f.Sync())
	}
	must(t, fsys.SyncDir("."))
	must(t, fsys.Rename("a", "b"))
	look := func(s localfs.FS) string { return names(t, s, "/") }
	wantOutcomes(t, outcomes(t, fsys, look), "a=a b=b", "b=a")
	f := open(t, fsys, "a") // a new one at the old name: never without the rename
	must(t, f.Sync())
	wantOutcomes(t, outcomes(t, fsys, look), "a=a b=b", "b=a", "a= b=a")
	must(t, fsys.SyncDir("."))
	wantOutcomes(t, outcomes(t, fsys, look), "a= b=a")
}

func TestRenameAcross(t *testing.T) {
	fsys := crashfs.New()
	must(t, localfs.MkdirAll(fsys, "from"))
	must(t, localfs.MkdirAll(fsys, "to"))
	f := open(t, fsys, "from/f")
	write(t, f, 0, "x")
	must(t, f.Sync())
	must(t, fsys.SyncDir("from"))
	look := func(s localfs.FS) string { return names(t, s, "/") }
	must(t, localfs.RenameNew(fsys, "from/f", "to/f"))
	wantOutcomes(t, outcomes(t, fsys, look), "from/f=x to/", "from/f=x to/f=x", "from/ to/f=x")
	must(t, fsys.SyncDir("to"))
	wantOutcomes(t, outcomes(t, fsys, look), "from/f=x to/f=x", "from/ to/f=x")
	must(t, fsys.SyncDir("from"))
	wantOutcomes(t, outcomes(t, fsys, look), "from/ to/f=x")
}

func TestFolderAndRemove(t *testing.T) {
	fsys := crashfs.New()
	must(t, fsys.Mkdir("d", 0o755))
	f := open(t, fsys, "d/f")
	must(t, f.Sync())
	must(t, fsys.SyncDir("d"))
	look := func(s localfs.FS) string { return names(t, s, "/") }
	wantOutcomes(t, outcomes(t, fsys, look), "", "d/f=")
	must(t, fsys.SyncDir("."))
	must(t, fsys.Remove("d/f"))
	write(t, f, 0, "removed, still open")
	wantOutcomes(t, outcomes(t, fsys, look), "d/", "d/f=", "d/f="+strings.Repeat("\x00", 19), "d/f=removed, still open")
	must(t, fsys.SyncDir("d"))
	wantOutcomes(t, outcomes(t, fsys, look), "d/")
}

// TestMoments: what was durable at a moment is in every state of then or
// later, and a state can crash again.
func TestMoments(t *testing.T) {
	fsys := crashfs.New()
	f := open(t, fsys, "f")
	must(t, fsys.SyncDir("/"))
	var acknowledged []int
	for i := range 50 {
		write(t, f, int64(i)*100, fmt.Sprintf("%100d", i))
		must(t, f.Sync())
		acknowledged = append(acknowledged, fsys.Len())
	}
	rng := rand.New(rand.NewPCG(3, 4))
	count := 0
	for moment, state := range fsys.Crashes(rng, 100) {
		count++
		for _, again := range state.CrashesNow(rng, 1) {
			if content(t, again, "f") != content(t, state, "f") {
				t.Error("a second crash changed what the first had left")
			}
		}
		if moment < 2 {
			continue
		}
		text := content(t, state, "f")
		for i, at := range acknowledged {
			want := fmt.Sprintf("%100d", i)
			if at <= moment && (len(text) < i*100+100 || text[i*100:i*100+100] != want) {
				t.Fatalf("crash at %d: write %d, synced at %d, is lost", moment, i, at)
			}
		}
	}
	if count != 100 {
		t.Errorf("%d states, want 100", count)
	}
}

func TestFullAndFaulty(t *testing.T) {
	fsys := crashfs.New()
	fsys.SetCapacity(3 * 4096)
	f := open(t, fsys, "f")
	n, err := f.WriteAt(make([]byte, 5*4096), 100)
	if n != 3*4096-100 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt to a full disk = %d, %v", n, err)
	}
	write(t, f, 0, "over what is there")
	must(t, localfs.Punch(f, 0, 4096))
	write(t, f, 8*4096, "elsewhere")
	if _, free, err := localfs.Space(fsys, "/"); free != 0 || err != nil {
		t.Errorf("Space = %d, %v", free, err)
	}
	must(t, fsys.Remove("f"))
	if _, free, _ := localfs.Space(fsys, "/"); free != 0 {
		t.Errorf("%d bytes free, but the removed file is still open", free)
	}
	must(t, f.Close())
	if _, free, _ := localfs.Space(fsys, "/"); free != 3*4096 {
		t.Errorf("%d bytes free after the removed file was closed", free)
	}
	f = open(t, fsys, "f")
	fsys.SetFault(func(op, name string) error {
		if op == "sync" && name == "f" {
			return syscall.EIO
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Sync = %v, want EIO", err)
	}
}

// TestLikeTheMachine does the same random things here and on a real disk.
func TestLikeTheMachine(t *testing.T) {
	real := filepath.Join(t.TempDir(), "f")
	a, b := open(t, crashfs.New(), "f"), open(t, localfs.OS(), real)
	defer b.Close()
	rng := rand.New(rand.NewPCG(5, 6))
	for step := range 2000 {
		off, n := rng.Int64N(50_000), 1+rng.Int64N(9000)
		do := func(f localfs.File) (err error) {
			switch step % 4 {
			case 0:
				_, err = f.WriteAt(bytes.Repeat([]byte{byte(step)}, int(n)), off)
			case 1:
				err = f.Truncate(off)
			case 2:
				err = localfs.Punch(f, off, n)
			}
			return err
		}
		must(t, do(a))
		must(t, do(b))
		pa, pb := make([]byte, n), make([]byte, n)
		na, erra := a.ReadAt(pa, off)
		nb, errb := b.ReadAt(pb, off)
		sa, _ := localfs.Size(a)
		sb, _ := localfs.Size(b)
		if na != nb || erra != errb || !bytes.Equal(pa, pb) || sa != sb || erra != nil && erra != io.EOF {
			t.Fatalf("step %d: read %d, %v of %d; the machine %d, %v of %d", step, na, erra, sa, nb, errb, sb)
		}
	}
}
