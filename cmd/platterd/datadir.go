package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// A dataDir is the folder where one gateway keeps everything. Holding it
// means that no other process uses it.
type dataDir struct {
	path    string
	gateway string // this gateway's id, for ever
	lock    *os.File
}

// openDataDir makes the folder if need be and locks it. The lock ends with
// the process, however it ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, fmt.Errorf("cannot make the data directory: %w; choose another with --data-dir, or run as a user who may", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot use the data directory: %w; choose another with --data-dir, or run as a user who may write there", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by another platterd (process %s): stop it, or take its place with --takeover, or choose another with --data-dir",
				path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("cannot lock the data directory %s: %w", path, err)
	}
	return holdDataDir(path, lock)
}

// holdDataDir makes use of a folder whose lock this process holds.
func holdDataDir(path string, lock *os.File) (*dataDir, error) {
	d := &dataDir{path: path, lock: lock}
	if err := d.identify(); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// identify writes the process id for whoever is refused, and reads or makes
// the gateway's id. An id that cannot be read is not replaced: overlays and
// attachments belong to the gateway that made them.
func (d *dataDir) identify() error {
	if err := d.lock.Truncate(0); err == nil { // on a full disk there is no number to show
		d.lock.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	}
	name := filepath.Join(d.path, "gateway-id")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		d.gateway = uuid.NewString()
		if err := writeFile(name, d.gateway+"\n"); err != nil {
			return fmt.Errorf("cannot write the id of this gateway: %w; make room, or choose another place with --data-dir", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the id of this gateway: %w", err)
	}
	d.gateway = strings.TrimSpace(string(data))
	if uuid.Validate(d.gateway) != nil {
		return fmt.Errorf("%s is damaged: it holds %.40q and no UUID; write the id back that the overlays in the catalog name as their gateway, or, if there are none, remove the file", name, d.gateway)
	}
	return nil
}

// writeFile puts a small file in place whole and durably.
func writeFile(name, text string) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return localfs.OS().SyncDir(filepath.Dir(name))
}

// Close gives the folder free.
func (d *dataDir) Close() error { return d.lock.Close() }
