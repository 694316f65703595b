package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/seed-478a8fee/platter/backends/block"
)

func TestErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Errno
	}{
		{nil, 0},
		{syscall.EPERM, EPERM}, {syscall.EACCES, EPERM}, {syscall.EROFS, EPERM}, {fs.ErrPermission, EPERM},
		{syscall.EIO, EIO}, {io.ErrUnexpectedEOF, EIO}, {errors.New("whatever"), EIO}, {fs.ErrNotExist, EIO},
		{fs.ErrClosed, EIO}, {context.DeadlineExceeded, EIO}, {syscall.Errno(200), EIO}, {io.EOF, EIO},
		{syscall.ENOMEM, ENOMEM},
		{syscall.EINVAL, EINVAL}, {fs.ErrInvalid, EINVAL}, {block.ErrBounds, EINVAL},
		{syscall.ENOSPC, ENOSPC}, {syscall.EDQUOT, ENOSPC}, {syscall.EFBIG, ENOSPC},
		{syscall.EOVERFLOW, EOVERFLOW},
		{errors.ErrUnsupported, ENOTSUP}, {syscall.EOPNOTSUPP, ENOTSUP}, {syscall.ENOSYS, ENOTSUP},
		{syscall.ESHUTDOWN, ESHUTDOWN}, {context.Canceled, ESHUTDOWN},
		{refuse(EOVERFLOW, "too much"), EOVERFLOW},
	} {
		for _, err := range []error{tt.err, &os.PathError{Op: "read", Path: "x", Err: tt.err}, fmt.Errorf("a: %w", tt.err)} {
			if tt.err == nil {
				err = nil
			}
			if got := errno(err); got != tt.want {
				t.Errorf("%v: %v, want %v", err, got, tt.want)
			}
		}
	}
}

func TestRepErrno(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want repError
	}{
		{fs.ErrNotExist, repErrUnknown}, {syscall.ENOENT, repErrUnknown},
		{fs.ErrPermission, repErrPolicy}, {syscall.EACCES, repErrPolicy}, {syscall.EBUSY, repErrPolicy},
		{fs.ErrInvalid, repErrInvalid},
		{context.Canceled, repErrShutdown}, {syscall.ESHUTDOWN, repErrShutdown},
		{errors.New("whatever"), repErrPlatform}, {syscall.EIO, repErrPlatform},
		{errors.ErrUnsupported, repErrPlatform}, // "unsupported" would be said of the option
	} {
		if got := repErrno(fmt.Errorf("open: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %#x, want %#x", tt.err, got, tt.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("☺", 5000), "a\x00b", "\xff\xfe", strings.Repeat("x", 4096)} {
		for _, limit := range []int{1, 2, 3, 100, 4096} {
			got := clip(text, limit)
			if len(got) > limit || !utf8.ValidString(got) || strings.ContainsRune(got, 0) {
				t.Errorf("%.10q clipped to %d: %q", text, limit, got)
			}
		}
	}
	if got := clip("☺☺", 5); got != "☺" {
		t.Errorf("got %q", got)
	}
}

func TestNames(t *testing.T) {
	for e := range Errno(200) {
		if e.String() == "" {
			t.Errorf("%d has no name", e)
		}
	}
	if CmdWriteZeroes.String() != "write-zeroes" || Command(99).String() != "command(99)" {
		t.Error("commands have wrong names")
	}
}

func TestPace(t *testing.T) {
	var p pace
	p.start()
	if p.near() {
		t.Error("a new connection is near")
	}
	for range debtMost {
		p.took(fastEnough / 5)
	}
	if !p.near() {
		t.Error("not near after fast requests")
	}
	p.took(fastEnough)
	if !p.near() {
		t.Error("one hiccup is taken for a slow disk")
	}
	p.took(100 * fastEnough)
	if p.near() {
		t.Error("still near after waiting for a disk")
	}
}
