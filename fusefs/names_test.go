package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/backends/block"
)

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"debian 12":      "debian 12",
		"Schönes Bild":   "Schönes Bild",
		".":              "%2E",
		"..":             "%2E%2E",
		"...":            "...",
		"a/b":            "a%2Fb",
		"tab\there":      "tab%09here",
		"\x7f":           "%7F",
		"50%":            "50%25",
		"ubuntu~rc1":     "ubuntu~rc1",
		"x~0123abcd":     "x%7E0123abcd",
		"../../etc/motd": "..%2F..%2Fetc%2Fmotd",
	} {
		if got := escape(name); got != want {
			t.Errorf("escape(%q) = %q, want %q", name, got, want)
		}
		if back, ok := unescape(want); !ok || back != name {
			t.Errorf("unescape(%q) = %q, %v", want, back, ok)
		}
	}
}

func TestEscapeIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-f./%~ \x00-\x1fü-]{1,20}(~[0-9a-f]{7,9})?`).Draw(t, "name")
		entry := escape(name)
		if strings.ContainsAny(entry, "/\x00\n") || entry == "." || entry == ".." {
			t.Fatalf("escape(%q) = %q", name, entry)
		}
		if back, ok := unescape(entry); !ok || back != name {
			t.Fatalf("unescape(%q) = %q, %v; want %q", entry, back, ok, name)
		}
	})
}

func TestLongNames(t *testing.T) {
	lib, images := shelfOf(t, strings.Repeat("ü", 255), strings.Repeat("/", 255), strings.Repeat("é", 120), strings.Repeat("é", 124), strings.Repeat("é", 124))
	k := newKernel(t, lib)
	list := k.list("by-name", 4096)
	if len(list) != len(images) {
		t.Fatalf("%d entries, want %d", len(list), len(images))
	}
	for i, entry := range list {
		if len(entry) > maxName || !utf8.ValidString(entry) {
			t.Errorf("entry of %d bytes: %q", len(entry), entry)
		}
		node := k.must("by-name/" + entry)
		if node.Ino != inode("name", images[i].ID) {
			t.Errorf("%q is another image", entry)
		}
	}
}

func TestShortIDsThatAreEqual(t *testing.T) {
	lib := newShelf()
	for i := range 3 {
		img, disk := testImage(1, "same")
		img.ID = fmt.Sprintf("00000000-0000-0000-0000-%012d", i)
		lib.put(img, disk)
	}
	k := newKernel(t, lib)
	for _, entry := range k.list("by-name", 4096) {
		if len(entry) != len("same~")+fullLen {
			t.Errorf("entry %q", entry)
		}
		k.must("by-name/" + entry)
	}
}

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{fmt.Errorf("image: %w", iofs.ErrNotExist), syscall.ENOENT},
		{iofs.ErrPermission, syscall.EACCES},
		{errors.ErrUnsupported, syscall.EOPNOTSUPP},
		{context.Canceled, syscall.EINTR},
		{context.DeadlineExceeded, syscall.ETIMEDOUT},
		{block.ErrBounds, syscall.EINVAL},
		{iofs.ErrClosed, syscall.ESTALE},
		{&os.PathError{Err: syscall.EMFILE}, syscall.EMFILE},
		{&os.PathError{Err: syscall.ECONNREFUSED}, syscall.EIO},
		{io.ErrUnexpectedEOF, syscall.EIO},
		{errors.New("s3: slow down"), syscall.EIO},
	} {
		if got := toErrno(c.err); got != c.want {
			t.Errorf("toErrno(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestNoFUSE(t *testing.T) {
	err := available(filepath.Join(t.TempDir(), "fuse"), 0)
	if !errors.Is(err, ErrNoFUSE) || !strings.Contains(err.Error(), "modprobe fuse") {
		t.Errorf("err = %v", err)
	}
}

func TestTopMount(t *testing.T) {
	table := `22 1 0:20 / / rw - ext4 /dev/sda1 rw
30 22 0:30 / /srv/my\040images rw,nosuid - ext4 /dev/sdb1 rw
31 30 0:31 / /srv/my\040images ro,nosuid shared:5 - fuse.platter platter ro,user_id=0
`
	for dir, want := range map[string]string{"/": "ext4", "/srv/my images": fsType, "/srv": ""} {
		if got := topMount(table, dir); got != want {
			t.Errorf("topMount(%q) = %q, want %q", dir, got, want)
		}
	}
}

func TestClaim(t *testing.T) {
	silent := slog.New(slog.DiscardHandler)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "a", "mnt")
	if got, err := claim(fresh, silent); err != nil || got != fresh {
		t.Errorf("claim of a missing directory: %q, %v", got, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("a/mnt", link); err != nil {
		t.Fatal(err)
	}
	if got, err := claim(link, silent); err != nil || got != fresh {
		t.Errorf("claim of a link: %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(fresh, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(fresh, silent); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("claim of a full directory: %v", err)
	}
	if _, err := claim(filepath.Join(fresh, "x"), silent); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("claim of a file: %v", err)
	}
}
