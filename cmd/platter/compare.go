package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

const compareHelp = `Compares two disks byte by byte, whatever their formats. Where one is longer,
the rest must be zeros. The exit code is 0 if they are equal, 1 if they differ,
and more if they could not be compared.

Example:
   platter compare debian.qcow2 debian.img`

func (p *program) compareCommand() *cli.Command {
	return &cli.Command{
		Name:        "compare",
		Usage:       "compare two disks",
		Category:    "Image files",
		ArgsUsage:   "FILE|IMAGE FILE|IMAGE",
		Description: compareHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "take the first as `FORMAT` (default: look)"},
			&cli.StringFlag{Name: "from2", Usage: "take the second as `FORMAT` (default: look)"},
			&cli.BoolFlag{Name: "strict", Usage: "the sizes must be equal as well"},
		},
		Action: p.compare,
	}
}

func (p *program) compare(c *cli.Context) error {
	first, second, err := two(c, "FILE|IMAGE", "FILE|IMAGE")
	if err != nil {
		return err
	}
	a, err := p.source(c, first, c.String("from"))
	if err != nil {
		return unsure(err)
	}
	defer a.close()
	b, err := p.source(c, second, c.String("from2"))
	if err != nil {
		return unsure(err)
	}
	defer b.close()
	for _, s := range []*source{a, b} {
		if err := s.whole(); err != nil {
			return err
		}
	}
	if a.disk.Size() != b.disk.Size() && c.Bool("strict") {
		fmt.Fprintf(p.out, "they differ: %d and %d bytes\n", a.disk.Size(), b.disk.Size())
		return errNo
	}
	g := p.track("comparing", max(a.disk.Size(), b.disk.Size()))
	at, err := difference(c.Context, a.disk, b.disk, g)
	g.finish()
	switch {
	case err != nil:
		return unsure(err)
	case at >= 0:
		fmt.Fprintf(p.out, "they differ, first at byte %d\n", at)
		return errNo
	case a.disk.Size() != b.disk.Size():
		fmt.Fprintf(p.out, "equal, but for zeros at the end: %d and %d bytes\n", a.disk.Size(), b.disk.Size())
		return nil
	}
	fmt.Fprintln(p.out, "equal")
	return nil
}

// unsure gives an error a code that cannot be taken for "they differ".
func unsure(err error) error {
	if exitCode(err) == exitFailed {
		return &hinted{err: err, hint: hintFor(err), code: exitFile}
	}
	return err
}

const piece = 2 << 20

// difference returns where a and b first differ, or -1.
func difference(ctx context.Context, a, b block.Reader, g *progress) (int64, error) {
	bufA, bufB := make([]byte, piece), make([]byte, piece)
	total := max(a.Size(), b.Size())
	for off := int64(0); off < total; {
		n, empty, err := step(ctx, a, b, off, total)
		if err != nil {
			return -1, err
		}
		if !empty {
			n = min(n, piece)
			at, err := differ(ctx, a, b, off, bufA[:n], bufB[:n])
			if err != nil || at >= 0 {
				return at, err
			}
		}
		off += n
		g.set(off, total)
	}
	return -1, nil
}

// step returns how far both disks are of one kind, and whether there is
// nothing to read in either.
func step(ctx context.Context, a, b block.Reader, off, total int64) (n int64, empty bool, err error) {
	n, empty = total-off, true
	for _, r := range []block.Reader{a, b} {
		if off >= r.Size() {
			continue
		}
		e, err := block.ExtentAt(ctx, r, off, min(n, r.Size()-off))
		if err != nil {
			return 0, false, err
		}
		n, empty = e.Len, empty && e.Kind != block.Data
	}
	return n, empty, nil
}

func differ(ctx context.Context, a, b block.Reader, off int64, bufA, bufB []byte) (int64, error) {
	var group errgroup.Group
	group.Go(func() error { return readPadded(ctx, a, bufA, off) })
	group.Go(func() error { return readPadded(ctx, b, bufB, off) })
	if err := group.Wait(); err != nil {
		return -1, err
	}
	if bytes.Equal(bufA, bufB) {
		return -1, nil
	}
	for i := range bufA {
		if bufA[i] != bufB[i] {
			return off + int64(i), nil
		}
	}
	return -1, nil
}

// readPadded reads zeros behind the end.
func readPadded(ctx context.Context, r block.Reader, p []byte, off int64) error {
	n := max(0, min(int64(len(p)), r.Size()-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	return r.ReadAt(ctx, p[:n], off)
}
