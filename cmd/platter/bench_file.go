package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/nbd"
	nbdclient "github.com/seed-478a8fee/platter/nbd/client"
)

// attachPath is where the name of an export stands in an attachment's URI.
var attachPath = regexp.MustCompile(`/attach/[^?]*`)

// fileStages are the layers that a gateway puts on a file.
func (p *program) fileStages(c *cli.Context, s *source) ([]stage, func() error, error) {
	var opened []func() error
	closeAll := func() error { return closeReversed(opened) }
	list := []stage{{name: "file", size: s.native.Size(), read: s.native.ReadAt}}
	if err := s.decode(c.Context, c.String("from")); err != nil {
		return nil, closeAll, err
	}
	if s.image != nil {
		list = append(list, stage{name: "format " + s.format, size: s.disk.Size(), read: s.disk.ReadAt})
	}
	opener := disk.New(disk.Config{})
	opened = append(opened, opener.Close)
	as := s.format
	if s.image == nil {
		as = "raw"
	}
	view, err := opener.Open(c.Context, disk.Spec{Key: s.name, Store: lone{s.native}, Object: "file", Format: as})
	if err != nil {
		return nil, closeAll, fileError(err)
	}
	opened = append(opened, view.Close)
	list = append(list, stage{name: "disk", size: view.Size(), read: view.ReadAt})
	conn, stop, err := serveOne(c.Context, view)
	if err != nil {
		return nil, closeAll, fmt.Errorf("serve the disk over NBD: %w", err)
	}
	opened = append(opened, stop)
	return append(list, stage{name: "nbd", size: conn.Size(), read: conn.ReadAt}), closeAll, nil
}

// serveOne serves a disk over NBD on a socket in a folder of its own, and
// connects to it.
func serveOne(ctx context.Context, r block.Reader) (_ *nbdclient.Conn, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "platter-bench-")
	if err != nil {
		return nil, nil, err
	}
	server, err := nbd.New(nbd.Config{Exports: only{r}})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	l, err := net.Listen("unix", filepath.Join(dir, "nbd.sock"))
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	life := context.WithoutCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- server.Serve(life, l) }() // ends with Shutdown
	end := func() error { return errors.Join(server.Shutdown(life), <-done, os.RemoveAll(dir)) }
	conn, err := nbdclient.Dial(ctx, nbdclient.Target{Network: "unix", Address: l.Addr().String()}, nil)
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return conn, func() error { return errors.Join(conn.Close(), end()) }, nil
}

// A lone store has one object, whatever it is called.
type lone struct{ r block.Reader }

// Open opens the object. To close it does nothing: its owner does.
func (s lone) Open(context.Context, string) (block.ReadCloser, error) { return borrowed(s), nil }

// Create makes nothing.
func (s lone) Create(context.Context, string, int64) (backends.Writer, error) {
	return nil, errors.ErrUnsupported
}

// Delete removes nothing.
func (s lone) Delete(context.Context, string) error { return errors.ErrUnsupported }

// borrowed is a Reader that somebody else closes.
type borrowed struct{ r block.Reader }

// Size returns the number of bytes.
func (b borrowed) Size() int64 { return b.r.Size() }

// ReadAt reads them.
func (b borrowed) ReadAt(ctx context.Context, p []byte, off int64) error {
	return b.r.ReadAt(ctx, p, off)
}

// Extent tells what is worth reading.
func (b borrowed) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return block.ExtentAt(ctx, b.r, off, n)
}

// Close does nothing.
func (b borrowed) Close() error { return nil }

// only is one export, without a name.
type only struct{ r block.Reader }

// Open opens it.
func (o only) Open(_ context.Context, _ nbd.Client, name string) (nbd.Export, error) {
	if name != "" {
		return nbd.Export{}, fs.ErrNotExist
	}
	return nbd.Export{Disk: o.r, MultiConn: true}, nil
}

// List shows it.
func (o only) List(context.Context, nbd.Client) iter.Seq2[nbd.Info, error] {
	return func(yield func(nbd.Info, error) bool) { yield(nbd.Info{}, nil) }
}
