package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// A source is an image to look at: a file of this machine, or an image of the
// gateway.
type source struct {
	name   string
	record client.Record // nil for a file
	native block.Reader  // the bytes as stored
	format string
	image  format.Image // nil for raw
	disk   block.Reader // the bytes that a guest sees
	close  func() error
}

// source opens FILE or IMAGE. as is the format, or "" to find out.
func (p *program) source(c *cli.Context, what, as string) (*source, error) {
	s, err := p.native(c, what)
	if err != nil {
		return nil, err
	}
	if err := s.decode(c.Context, as); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// native decides between file and image, and opens the bytes as stored.
func (p *program) native(c *cli.Context, what string) (*source, error) {
	path, isFile := strings.CutPrefix(what, "file:")
	name, isImage := strings.CutPrefix(what, "image:")
	if _, err := os.Stat(path); !isImage && (isFile || err == nil || strings.HasPrefix(what, ".") || strings.Contains(what, "/")) {
		r, err := openFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !isFile:
			return nil, hint(err, "if %q is the name of an image, write image:%s", path, path)
		case err != nil:
			return nil, fileError(err)
		}
		return &source{name: path, native: r, close: r.Close}, nil
	}
	cl, err := p.connect(c)
	if err != nil {
		return nil, err
	}
	img, err := cl.FindImage(c.Context, name)
	if err != nil {
		return nil, hint(err, "there is no file %q either; platter image list shows the images", name)
	}
	if img.Int("size") < 0 {
		return nil, fmt.Errorf("image %s has no bytes yet: its status is %s", img.ID(), img.Text("status"))
	}
	r := &remote{cl: cl, id: img.ID(), size: img.Int("size"), pages: map[int64][]byte{}}
	return &source{name: name, record: img, native: r, close: func() error { return nil }}, nil
}

// decode finds the disk in the native bytes.
func (s *source) decode(ctx context.Context, as string) error {
	if as == "" && s.record != nil {
		as = s.record.Text("disk_format")
	}
	if as == "" {
		found, err := guess(ctx, s.native)
		if err != nil {
			return fileError(fmt.Errorf("%s: %w", s.name, err))
		}
		as = found
	}
	s.format, s.disk = as, s.native
	switch as {
	case "raw", "iso", "ami", "ari", "aki":
		if r, ok := s.native.(*remote); ok && as == s.record.Text("disk_format") {
			s.disk = &sparse{remote: r}
		}
		return nil
	}
	f, ok := format.ByName(as)
	if !ok {
		return hint(fmt.Errorf("%s: the format %q cannot be decoded yet", s.name, as),
			"raw and qcow2 can; --from raw takes the bytes as they are")
	}
	img, err := f.Open(ctx, s.native)
	if err != nil {
		return &hinted{err: fmt.Errorf("%s: %w", s.name, err), code: exitFile}
	}
	s.image, s.disk = img, img
	return nil
}

// guess finds the format of a file that nobody declared. What looks like no
// image at all is raw.
func guess(ctx context.Context, r block.Reader) (string, error) {
	head := make([]byte, min(r.Size(), 1<<20+64<<10))
	if err := r.ReadAt(ctx, head, 0); err != nil {
		return "", err
	}
	for _, f := range format.List() {
		if f.Probe(head) {
			return f.Name, nil
		}
	}
	in := format.NewInspector(format.InspectorConfig{Declared: "raw"})
	if _, err := in.Write(head); err != nil {
		return found(err)
	}
	verdict, err := in.Finish()
	if err != nil {
		return found(err)
	}
	for _, m := range verdict.Matches {
		if m != "raw" && m != "gpt" && m != "iso" {
			return m, nil
		}
	}
	return "raw", nil
}

func found(err error) (string, error) {
	var refused *format.Refusal
	if errors.As(err, &refused) && refused.Found != "" {
		return refused.Found, nil
	}
	return "", err
}

// whole refuses a disk whose bytes are partly in a file that stays unopened.
func (s *source) whole() error {
	if s.image == nil || s.image.Backing() == "" {
		return nil
	}
	return &hinted{
		err: fmt.Errorf("%s is only the upper part of a disk: it says it stands on %q, "+
			"which is never opened just because a file says so", s.name, s.image.Backing()),
		hint: "name the file beneath it with convert --backing FILE",
		code: exitFile,
	}
}

// snapshot goes to an internal snapshot.
func (s *source) snapshot(ctx context.Context, name string) error {
	q, ok := s.image.(*qcow2.Image)
	if !ok {
		return usagef("%s has no snapshots inside: it is %s", s.name, s.format)
	}
	img, err := q.Snapshot(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return hint(&client.MissingError{Kind: "snapshot", Name: name}, "platter info %s shows what there is", s.name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.image, s.disk = img, img
	return nil
}

// fileReader is a local file as a Reader that knows its holes.
type fileReader struct {
	f    localfs.File
	name string
	size int64
}

func openFile(name string) (*fileReader, error) {
	st, err := os.Stat(name) // to open a pipe may take forever
	if err != nil {
		return nil, err
	}
	if m := st.Mode(); st.IsDir() || m&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) != 0 {
		return nil, hint(fmt.Errorf("%s is not a file or a block device", name), "what comes from a pipe must be in a file first")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd) // right for block devices as well
	if err != nil {
		return nil, err
	}
	lf, err := localfs.OS().Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return &fileReader{f: lf, name: name, size: size}, nil
}

// Size returns the number of bytes.
func (r *fileReader) Size() int64 { return r.size }

// Close closes the file.
func (r *fileReader) Close() error { return r.f.Close() }

// ReadAt fills p from the file.
func (r *fileReader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), r.size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || len(p) == 0 {
		return err
	}
	if n, err := r.f.ReadAt(p, off); n < len(p) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s at %d: %w", r.name, off, err)
	}
	return nil
}

// Extent tells holes from data.
func (r *fileReader) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	length, hole, err := localfs.Run(r.f, off, n)
	if err != nil {
		return block.Extent{}, err
	}
	e := block.Extent{Off: off, Len: length}
	if hole {
		e.Kind = block.Zero
	}
	return e, nil
}
