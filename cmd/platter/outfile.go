package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// writeWhole writes to a file that gets its name only when it is whole. What
// is no file, a device or a pipe, keeps its name and is written as it is; -
// is the standard output.
func (p *program) writeWhole(name string, write func(io.Writer) error) error {
	if name == "-" {
		return write(p.out)
	}
	name, err := behindLinks(name)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o666)
	switch st, err := os.Stat(name); {
	case err == nil && st.IsDir():
		return usagef("%s is a directory; name a file in it", name)
	case err == nil && !st.Mode().IsRegular():
		return writeDevice(name, write)
	case err == nil:
		mode = st.Mode().Perm()
	}
	return writeFile(name, mode, write)
}

// behindLinks returns the file that is meant by a name, so that a link stays
// one. The file itself need not be there.
func behindLinks(name string) (string, error) {
	for range 40 {
		target, err := os.Readlink(name)
		if err != nil {
			return name, nil // not a link, or nothing yet
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return "", fileError(fmt.Errorf("%s: too many links", name))
}

func writeDevice(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fileError(err)
	}
	return errors.Join(write(f), f.Close())
}

// writeFile writes beside the file, under a name that nobody else has. Of the
// two that write the same file at once, the last one wins whole.
func writeFile(name string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := besides(name, mode)
	if err != nil {
		return hint(fileError(fmt.Errorf("cannot write %s: %w", name, cause(err))), "choose a folder that is there and yours")
	}
	defer os.Remove(f.Name()) // no longer there if all went well
	err = errors.Join(write(f), f.Close())
	var path *fs.PathError
	switch {
	case errors.As(err, &path) && path.Path == f.Name(): // a name that nobody knows
		return &hinted{err: fmt.Errorf("cannot write %s: %w", name, path.Err), code: exitFile,
			hint: "what was there before is untouched; make room, or choose another place"}
	case err != nil:
		return err
	}
	return os.Rename(f.Name(), name)
}

// besides creates a file of a new name in the folder of another.
func besides(name string, mode fs.FileMode) (*os.File, error) {
	for i := 0; ; i++ {
		part := filepath.Join(filepath.Dir(name), fmt.Sprintf(".platter-%d-%d.part", os.Getpid(), i))
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// cause strips the name that the error is about, where it is said already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
