package fusefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fsType is how our mounts are told from those of others.
const fsType = "fuse.platter"

// available says why FUSE cannot be used, if that is plain before trying.
func available(device string, uid int) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("fusefs: %w: %s is missing: load the kernel module (modprobe fuse), or give the "+
			"container --device /dev/fuse --cap-add SYS_ADMIN, or switch the file view off", ErrNoFUSE, device)
	case err != nil:
		return fmt.Errorf("fusefs: %w: %w: run as root or as a user who may open it, or give the "+
			"container --device /dev/fuse --cap-add SYS_ADMIN, or switch the file view off", ErrNoFUSE, err)
	}
	f.Close()
	if uid == 0 {
		return nil
	}
	if _, err := fusermount(); err != nil {
		return fmt.Errorf("fusefs: %w: users other than root need fusermount3: install the package fuse3, "+
			"or switch the file view off", ErrNoFUSE)
	}
	return nil
}

func fusermount() (string, error) {
	if path, err := exec.LookPath("fusermount3"); err == nil {
		return path, nil
	}
	return exec.LookPath("fusermount")
}

// claim makes dir ready to be mounted on and returns its full name. A dead
// mount of ours is taken away. Whatever else is mounted there stays.
func claim(dir string, log *slog.Logger) (string, error) {
	dir, err := resolve(dir)
	if err != nil {
		return "", fmt.Errorf("fusefs: mount directory: %w", err)
	}
	for range 64 { // crashes may have left several, one upon the other
		typ, err := mountedOn(dir)
		if err != nil {
			return "", err
		}
		stale, err := dead(dir)
		if err != nil {
			return "", fmt.Errorf("fusefs: mount directory: %w", err)
		}
		switch {
		case stale && typ == fsType:
			log.Warn("fusefs: taking over the mount of a gateway that is gone", "dir", dir)
			if err := detach(dir); err != nil {
				return "", fmt.Errorf("fusefs: taking away the dead mount on %s: %w: try umount -l %s", dir, err, dir)
			}
		case stale:
			return "", fmt.Errorf("fusefs: %s holds a dead mount of type %q, which is not ours: "+
				"umount it, or choose another directory: %w", dir, typ, syscall.ENOTCONN)
		case strings.HasPrefix(typ, "fuse"):
			return "", fmt.Errorf("fusefs: a file system of type %s is mounted on %s and alive: "+
				"stop the gateway that serves it, or choose another directory: %w", typ, dir, fs.ErrExist)
		default:
			return dir, empty(dir)
		}
	}
	return "", fmt.Errorf("fusefs: %s: dead mounts come back: %w", dir, syscall.EBUSY)
}

// resolve returns the full name of dir without links. It does not look into
// dir, which may be a dead mount.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if target, err := os.Readlink(dir); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(dir), target)
		}
		return resolve(target)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

// dead reports whether dir is a mount that nobody serves any more. Lstat does
// not tell: the kernel answers from the attributes it was told to keep. It
// never keeps what statfs says.
func dead(dir string) (bool, error) {
	_, err := os.Lstat(dir)
	if err == nil {
		err = syscall.Statfs(dir, new(syscall.Statfs_t))
	}
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, os.Mkdir(dir, 0o755)
	}
	return false, err
}

func empty(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("fusefs: mount directory: %w", err)
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err == nil {
		return fmt.Errorf("fusefs: %s is not empty, and a mount would hide what is in it: "+
			"empty it, or choose another directory: %w", dir, syscall.ENOTEMPTY)
	} else if err != io.EOF {
		return fmt.Errorf("fusefs: mount directory: %w", err)
	}
	return nil
}

// mountedOn returns the type of what is mounted on dir, or "".
func mountedOn(dir string) (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("fusefs: listing mounts: %w", err)
	}
	return topMount(string(table), dir), nil
}

// topMount finds dir in a mountinfo table. The last line is the uppermost.
func topMount(table, dir string) string {
	typ := ""
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		kinds := strings.Fields(right)
		if ok && len(fields) > 4 && len(kinds) > 0 && unoctal(fields[4]) == dir {
			typ = kinds[0]
		}
	}
	return typ
}

// unoctal undoes the \040 of mountinfo.
func unoctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unmount takes our mount away from dir, with force where it is in use.
func unmount(dir string) error {
	typ, err := mountedOn(dir)
	switch {
	case err != nil:
		return err
	case typ == "":
		return nil // somebody was faster
	case typ != fsType:
		return fmt.Errorf("fusefs: unmounting %s: a file system of type %s was mounted on top of it: "+
			"umount that first: %w", dir, typ, syscall.EBUSY)
	}
	if os.Geteuid() == 0 {
		err = syscall.Unmount(dir, 0)
	} else {
		err = callFusermount("-u", dir)
	}
	if err == nil {
		return nil
	}
	abort(dir)
	if err := detach(dir); err != nil {
		return fmt.Errorf("fusefs: unmounting %s: %w: try umount -l %s", dir, err, dir)
	}
	return nil
}

// abort ends the conversation with the kernel, so that nobody waits for us
// behind a mount that is only detached.
func abort(dir string) {
	if os.Geteuid() == 0 {
		_ = syscall.Unmount(dir, syscall.MNT_FORCE) // aborts, then fails with EBUSY
		return
	}
	var st syscall.Stat_t
	if syscall.Lstat(dir, &st) == nil {
		minor := strconv.FormatUint(st.Dev&0xff|st.Dev>>12&^0xff, 10)
		_ = os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
	}
}

// detach takes the uppermost mount on dir away even if it is in use.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return syscall.Unmount(dir, syscall.MNT_DETACH)
	}
	return callFusermount("-uz", dir)
}

func callFusermount(option, dir string) error {
	bin, err := fusermount()
	if err != nil {
		return err
	}
	if out, err := exec.Command(bin, option, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", bin, option, err, strings.TrimSpace(string(out)))
	}
	return nil
}
