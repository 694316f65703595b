package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/bits"
	"os"
	"runtime"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/overlay"
)

const convertHelp = `Writes a disk as another format. Holes stay holes. OUT appears under its name
only when it is whole; - is the standard output.

Examples:
   platter convert --to raw debian.qcow2 debian.img
   platter convert --to qcow2 -c debian.img debian.qcow2
   platter convert --to qcow2 --backing base.qcow2 top.qcow2 whole.qcow2`

func (p *program) convertCommand() *cli.Command {
	return &cli.Command{
		Name:        "convert",
		Usage:       "write a disk as another format",
		Category:    "Image files",
		ArgsUsage:   "FILE|IMAGE OUT",
		Description: convertHelp,
		Flags: []cli.Flag{
			fromFlag(),
			&cli.StringFlag{Name: "to", Usage: "write this `FORMAT`: raw or qcow2"},
			&cli.BoolFlag{Name: "compress", Aliases: []string{"c"}, Usage: "compress the data (qcow2)"},
			&cli.StringFlag{Name: "compression", Value: "zlib", Usage: "`HOW` to compress: zlib or zstd"},
			&cli.StringFlag{Name: "cluster-size", Usage: "`SIZE` of a cluster, from 512 to 2M (qcow2)"},
			&cli.StringFlag{Name: "snapshot", Usage: "convert this internal `SNAPSHOT`, by id or name"},
			&cli.StringFlag{Name: "backing", Usage: "the `FILE` that lies beneath the disk"},
		},
		Action: p.convert,
	}
}

func (p *program) convert(c *cli.Context) error {
	in, out, err := two(c, "FILE|IMAGE", "OUT")
	if err != nil {
		return err
	}
	to, opts, err := p.convertOptions(c, out)
	if err != nil {
		return err
	}
	s, err := p.source(c, in, c.String("from"))
	if err != nil {
		return err
	}
	defer s.close()
	if name := c.String("snapshot"); name != "" {
		if err := s.snapshot(c.Context, name); err != nil {
			return err
		}
	}
	if below := c.String("backing"); below != "" {
		b, err := p.source(c, below, "")
		if err != nil {
			return err
		}
		defer b.close()
		if err := b.whole(); err != nil {
			return err
		}
		s.disk = overlay.Over(s.disk, b.disk)
	} else if err := s.whole(); err != nil {
		return err
	}
	g := p.track("converting", s.disk.Size())
	defer g.finish()
	opts.Progress = g.set
	err = p.writeWhole(out, func(w io.Writer) error {
		return writeAs(c.Context, w, s.disk, to, c.Bool("compress"), opts)
	})
	if err != nil {
		return fileError(fmt.Errorf("converting %s: %w", s.name, err))
	}
	return nil
}

func (p *program) convertOptions(c *cli.Context, out string) (to string, opts qcow2.EncodeOptions, err error) {
	to = c.String("to")
	switch to {
	case "raw", "qcow2":
	case "":
		return "", opts, usagef("convert takes --to FORMAT: raw or qcow2")
	case "vmdk", "vpc":
		return "", opts, errNotBuilt("convert --to " + to)
	default:
		return "", opts, usagef("--to %q: raw and qcow2 can be written", to)
	}
	compress := c.Bool("compress")
	switch {
	case compress && to == "raw":
		return "", opts, usagef("raw cannot be compressed; use --to qcow2")
	case compress && out == "-":
		return "", opts, usagef("a compressed qcow2 needs a file to write to, not the standard output")
	case out == "-" && p.ttyOut:
		return "", opts, usagef("an image is not for a terminal; name OUT, or redirect the output")
	}
	if st, err := os.Stat(out); compress && err == nil && !st.Mode().IsRegular() {
		return "", opts, usagef("a compressed qcow2 needs a file to write to, and %s is none", out)
	}
	if compress {
		if opts.Compression = c.String("compression"); opts.Compression != "zlib" && opts.Compression != "zstd" {
			return "", opts, usagef("--compression %q: there are zlib and zstd", opts.Compression)
		}
	}
	if text := c.String("cluster-size"); text != "" {
		n, err := parseSize(text)
		if err != nil || n < 512 || n > 2<<20 || n&(n-1) != 0 {
			return "", opts, usagef("--cluster-size %s: it is a power of two from 512 to 2M", text)
		}
		opts.ClusterBits = bits.TrailingZeros64(uint64(n))
	}
	return to, opts, nil
}

func writeAs(ctx context.Context, w io.Writer, disk block.Reader, to string, compress bool, opts qcow2.EncodeOptions) error {
	file, isFile := w.(*os.File)
	switch {
	case to == "qcow2" && compress && isFile:
		return qcow2.EncodeCompressed(ctx, file, disk, opts)
	case to == "qcow2":
		return qcow2.Encode(ctx, w, disk, opts)
	case isFile && seekable(file):
		return writeSparse(ctx, file, disk, opts.Progress)
	}
	return writeStream(ctx, w, disk, opts.Progress)
}

// seekable tells a new file from one that the standard output goes on with.
func seekable(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > 0 {
		return false
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_APPEND == 0
}

// writeStream writes all bytes in order, zeros included.
func writeStream(ctx context.Context, w io.Writer, disk block.Reader, done func(int64, int64)) error {
	buf := make([]byte, piece)
	for off := int64(0); off < disk.Size(); {
		n := min(piece, disk.Size()-off)
		if err := disk.ReadAt(ctx, buf[:n], off); err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += n
		done(off, disk.Size())
	}
	return nil
}

// writeSparse writes what is data to an empty file, several pieces at once,
// and leaves holes where there are zeros.
func writeSparse(ctx context.Context, f *os.File, disk block.Reader, done func(int64, int64)) error {
	if err := f.Truncate(disk.Size()); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	workers := 2 * runtime.GOMAXPROCS(0)
	group.SetLimit(workers)
	free := make(chan []byte, workers)
	for range workers {
		free <- nil
	}
	for e, err := range block.Extents(ctx, disk, 0, disk.Size()) {
		if err != nil {
			if first := group.Wait(); first != nil {
				return first
			}
			return err
		}
		for off := e.Off; e.Kind == block.Data && off < e.End(); off += piece {
			n := min(piece, e.End()-off)
			buf := <-free
			if buf == nil {
				buf = make([]byte, piece)
			}
			group.Go(func() error {
				defer func() { free <- buf }()
				if err := disk.ReadAt(ctx, buf[:n], off); err != nil {
					return err
				}
				return writeData(f, buf[:n], off)
			})
		}
		done(e.End(), disk.Size())
	}
	return group.Wait()
}

const hole = 4096 // zeros of this length are left out

// writeData writes p without its zeros.
func writeData(f *os.File, p []byte, off int64) error {
	var zeros [hole]byte
	for from := 0; from < len(p); {
		end := from
		for end < len(p) && !zero(p, end, zeros[:]) {
			end = min(end+hole, len(p))
		}
		if end > from {
			if _, err := f.WriteAt(p[from:end], off+int64(from)); err != nil {
				return err
			}
		}
		for end < len(p) && zero(p, end, zeros[:]) {
			end = min(end+hole, len(p))
		}
		from = end
	}
	return nil
}

func zero(p []byte, at int, zeros []byte) bool {
	part := p[at:min(at+hole, len(p))]
	return bytes.Equal(part, zeros[:len(part)])
}
