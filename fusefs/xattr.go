package fusefs

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const xattrPrefix = "user.platter."

// xattrs returns the extended attributes of an image without their prefix, in
// a fixed order. What is empty is not there.
func xattrs(img Image) [][2]string {
	all := [][2]string{
		{"id", img.ID},
		{"name", img.Name},
		{"status", img.Status},
		{"visibility", img.Visibility},
		{"owner", img.Owner},
		{"disk_format", img.DiskFormat},
		{"container_format", img.ContainerFormat},
		{"size", count(img.NativeSize)},
		{"virtual_size", count(img.DiskSize)},
		{"checksum", img.Checksum},
		{"os_hash_algo", img.HashAlgo},
		{"os_hash_value", img.HashValue},
		{"created_at", stamp(img.Created)},
		{"updated_at", stamp(img.Updated)},
	}
	there := all[:0]
	for _, x := range all {
		if x[1] != "" {
			there = append(there, x)
		}
	}
	return there
}

func count(n int64) string {
	if n < 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// getxattr answers names that are not ours before it asks anybody: ls -l asks
// for security labels and ACLs of every file it sees.
func (s *subject) getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	name, ours := strings.CutPrefix(attr, xattrPrefix)
	if !ours {
		return 0, syscall.ENODATA
	}
	for _, x := range xattrs(s.image(ctx)) {
		if x[0] == name {
			return fill(dest, x[1])
		}
	}
	return 0, syscall.ENODATA
}

func (s *subject) listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	var b strings.Builder
	for _, x := range xattrs(s.image(ctx)) {
		b.WriteString(xattrPrefix + x[0] + "\x00")
	}
	return fill(dest, b.String())
}

func fill(dest []byte, s string) (uint32, syscall.Errno) {
	if len(dest) < len(s) {
		return uint32(len(s)), syscall.ERANGE
	}
	return uint32(copy(dest, s)), 0
}
