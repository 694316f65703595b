package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	nbdclient "github.com/seed-478a8fee/platter/nbd/client"
)

const benchHelp = `Reads a disk through one layer after the other and says how fast each is, so
that you see which one costs what: one request at a time, 1 MiB in sequence,
then 4 KiB at random places. Each layer stands on the ones before it.

Of a file (no gateway is needed):
   file       the file as it is
   format     decoded, if it is not raw
   disk       as a gateway opens it, shared and with its caches
   nbd        that disk served over NBD to a client, on a socket

Of an image:
   api        the bytes as stored, downloaded over HTTP
   nbd file   the same bytes over NBD: store, cache, NBD
   nbd disk   the disk over NBD: store, cache, format, NBD

Of an NBD URI:
   nbd        whatever the server has

The first layer is read once before it is measured, so that all find the page
cache as warm. Nothing is written. Run it while the machine is idle.

Examples:
   platter bench debian.qcow2
   platter bench debian --seconds 5 -f json
   platter bench nbd+unix:///export?socket=/run/nbd.sock`

func (p *program) benchCommand() *cli.Command {
	return &cli.Command{
		Name:        "bench",
		Usage:       "measure a stack layer by layer",
		Category:    "Image files",
		ArgsUsage:   "FILE|IMAGE|NBD-URI",
		Description: benchHelp,
		Flags: append([]cli.Flag{
			&cli.Float64Flag{Name: "seconds", Value: 2, Usage: "how `LONG` to measure each layer"},
			&cli.StringFlag{Name: "transport", Usage: "of an image: `TRANSPORT` of the attachment, unix, tcp or tls (default: unix)"},
			&cli.StringFlag{Name: "tls-dir", Usage: "`FOLDER` with ca-cert.pem and, where the server wants one, client-cert.pem and client-key.pem"},
			fromFlag(),
		}, formatFlags()...),
		Action: p.bench,
	}
}

// A stage is one layer to measure.
type stage struct {
	name  string
	size  int64
	read  func(ctx context.Context, p []byte, off int64) error
	whole func(ctx context.Context) (io.ReadCloser, error) // reads it from its start, where that is another way; nil: by read
}

const (
	benchSmall = 4 << 10
	benchLarge = 1 << 20
	benchMost  = 600 // seconds
)

func (p *program) bench(c *cli.Context) error {
	what, err := one(c, "FILE, IMAGE or NBD URI")
	if err != nil {
		return err
	}
	seconds := c.Float64("seconds")
	if !(seconds >= 0.01 && seconds <= benchMost) {
		return usagef("--seconds takes a number from 0.01 to %d", benchMost)
	}
	stages, closeAll, err := p.stages(c, what)
	defer closeAll()
	if err != nil {
		return err
	}
	half := time.Duration(seconds / 2 * float64(time.Second))
	out := sheet{columns: []string{"layer", "test", "mib_per_s", "iops", "p50_us", "p99_us"}}
	for i, s := range stages {
		if s.size < benchSmall {
			return fmt.Errorf("%s has %d bytes; to measure takes %d", s.name, s.size, benchSmall)
		}
		if i == 0 {
			if _, err := s.sequential(c.Context, half); err != nil {
				return benchError(s, err)
			}
		}
		for _, test := range []struct {
			name string
			run  func(context.Context, time.Duration) (sample, error)
		}{{"1 MiB sequential read", s.sequential}, {"4 KiB random read", s.random}} {
			if p.tty {
				fmt.Fprintf(p.err, "\r\x1b[K%s: %s", s.name, test.name)
			}
			got, err := test.run(c.Context, half)
			if p.tty {
				fmt.Fprint(p.err, "\r\x1b[K")
			}
			if err != nil {
				return benchError(s, err)
			}
			out.rows = append(out.rows, got.row(s.name, test.name))
		}
	}
	return p.show(c, out)
}

func benchError(s stage, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("measuring %s: %w", s.name, err)
}

// row is what a sheet shows of a sample.
func (s *sample) row(layer, test string) []any {
	seconds := s.took.Seconds()
	rate, iops := float64(s.bytes)/seconds/(1<<20), float64(s.count)/seconds
	micro := func(d time.Duration) any {
		us := float64(d.Nanoseconds()) / 1000
		return cell{us, fmt.Sprintf("%.1f", us)}
	}
	return []any{layer, test, cell{rate, fmt.Sprintf("%.1f", rate)}, cell{iops, fmt.Sprintf("%.0f", iops)}, micro(s.quantile(0.5)), micro(s.quantile(0.99))}
}

// random reads small blocks at random places, one after the other.
func (s stage) random(ctx context.Context, long time.Duration) (sample, error) {
	p := make([]byte, benchSmall)
	rng := rand.New(rand.NewPCG(1, 2)) // the same places for every layer
	return repeat(ctx, long, func() (int, error) {
		return len(p), s.read(ctx, p, rng.Int64N(s.size/benchSmall)*benchSmall)
	})
}

// sequential reads from the start to the end, and again.
func (s stage) sequential(ctx context.Context, long time.Duration) (sample, error) {
	if s.whole != nil {
		return s.stream(ctx, long)
	}
	p := make([]byte, min(benchLarge, s.size))
	off := int64(0)
	return repeat(ctx, long, func() (int, error) {
		n := min(int64(len(p)), s.size-off)
		err := s.read(ctx, p[:n], off)
		if off += n; off == s.size {
			off = 0
		}
		return int(n), err
	})
}

// stream is sequential for what is one long answer.
func (s stage) stream(ctx context.Context, long time.Duration) (sample, error) {
	var body io.ReadCloser
	defer func() {
		if body != nil {
			body.Close()
		}
	}()
	p := make([]byte, benchLarge)
	return repeat(ctx, long, func() (int, error) {
		for {
			if body == nil {
				var err error
				if body, err = s.whole(ctx); err != nil {
					return 0, err
				}
			}
			n, err := io.ReadFull(body, p)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				body.Close()
				body, err = nil, nil
			}
			if n > 0 || err != nil {
				return n, err
			}
		}
	})
}

// stages opens what there is to measure. What it returns to close that is never
// nil.
func (p *program) stages(c *cli.Context, what string) ([]stage, func() error, error) {
	if isURI(what) {
		return p.uriStage(c, "nbd", what)
	}
	s, err := p.native(c, what)
	if err != nil {
		return nil, func() error { return nil }, err
	}
	open := p.fileStages
	if s.record != nil {
		open = p.imageStages
	}
	list, closeAll, err := open(c, s)
	return list, func() error { return errors.Join(closeAll(), s.close()) }, err
}

// uriStage opens an NBD export.
func (p *program) uriStage(c *cli.Context, name, uri string) ([]stage, func() error, error) {
	none := func() error { return nil }
	target, err := nbdclient.ParseURI(uri)
	if err != nil {
		return nil, none, &usage{err.Error()}
	}
	conf, err := nbdclient.LoadTLS(c.String("tls-dir"))
	if err != nil {
		return nil, none, fileError(err)
	}
	conn, err := nbdclient.Dial(c.Context, target, conf)
	var unreached *net.OpError
	if errors.As(err, &unreached) && unreached.Op == "dial" {
		err = &hinted{err: err, code: exitNoGateway, hint: "a socket is one of the server's own machine"}
	}
	if err != nil {
		return nil, none, err
	}
	return []stage{{name: name, size: conn.Size(), read: conn.ReadAt}}, conn.Close, nil
}

// imageStages are the ways to the bytes of an image through its gateway.
func (p *program) imageStages(c *cli.Context, s *source) ([]stage, func() error, error) {
	r, ok := s.native.(*remote)
	if !ok {
		return nil, func() error { return nil }, fmt.Errorf("image %s has no bytes", s.name)
	}
	list := []stage{{name: "api", size: r.size, whole: func(ctx context.Context) (io.ReadCloser, error) {
		body, _, err := r.cl.Download(ctx, r.id, 0)
		return body, err
	}, read: func(ctx context.Context, p []byte, off int64) error { return r.cl.ReadAt(ctx, r.id, p, off) }}}
	fields := map[string]any{"image_id": r.id, "mode": "ro"}
	if t := c.String("transport"); t != "" {
		fields["transport"] = t
	}
	a, err := r.cl.Attach(c.Context, fields)
	if err != nil {
		return nil, func() error { return nil }, err
	}
	closers := []func() error{func() error { return r.cl.Detach(context.WithoutCancel(c.Context), a.ID()) }}
	closeAll := func() error { return closeReversed(closers) }
	native, err := p.uriDoor(c, "nbd file", attachPath.ReplaceAllLiteralString(a.Text("uri"), "/"+r.id+"/native"), &closers)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // a gateway may take tokens only
		return nil, closeAll, err
	}
	disk, err := p.uriDoor(c, "nbd disk", a.Text("uri"), &closers)
	return slices.Concat(list, native, disk), closeAll, err
}

// uriDoor is uriStage whose end joins others.
func (p *program) uriDoor(c *cli.Context, name, uri string, closers *[]func() error) ([]stage, error) {
	list, end, err := p.uriStage(c, name, uri)
	*closers = append(*closers, end)
	return list, err
}

// closeReversed closes what was opened last first.
func closeReversed(closers []func() error) error {
	var errs []error
	for _, f := range slices.Backward(closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
