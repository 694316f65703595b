package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageSaveHelp = `Downloads the bytes of an image, as they were uploaded, and checks them against
the checksum on record. A connection that breaks is taken up again where it
broke. The file appears under its name only when it is whole.

With --as the gateway converts the disk on the way; there is then no checksum
to check.

Examples:
   platter image save debian debian.qcow2
   platter image save debian - | sha256sum
   platter image save debian --as raw debian.img`

func (p *program) imageSaveCommand() *cli.Command {
	return &cli.Command{
		Name:        "save",
		Usage:       "download an image",
		ArgsUsage:   "IMAGE FILE",
		Description: imageSaveHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "write to this `FILE`; the same as the argument; - is the standard output"},
			&cli.StringFlag{Name: "as", Usage: "convert to this `FORMAT`: raw or qcow2"},
		},
		Action: p.imageSave,
	}
}

func (p *program) imageSave(c *cli.Context) error {
	file := cmp.Or(c.String("file"), c.Args().Get(1))
	if c.NArg() < 1 || c.NArg() > 2 || file == "" {
		return usagef("image save takes an IMAGE and a FILE; - is the standard output")
	}
	if file == "-" && p.ttyOut {
		return usagef("an image is not for a terminal; name a FILE, or redirect the output")
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	img, err := cl.FindImage(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	if img.Text("status") == "queued" || img.Text("status") == "saving" {
		return hint(fmt.Errorf("image %s has no bytes yet: its status is %s", img.ID(), img.Text("status")),
			"platter image show %s tells when it is active", img.ID())
	}
	return p.writeWhole(file, func(w io.Writer) error {
		if as := c.String("as"); as != "" {
			return p.export(c.Context, cl, img, as, w)
		}
		return p.download(c.Context, cl, img, w)
	})
}

func (p *program) export(ctx context.Context, cl *client.Client, img client.Record, as string, w io.Writer) error {
	body, n, err := cl.Export(ctx, img.ID(), as)
	if err != nil {
		return err
	}
	defer body.Close()
	g := p.track("downloading", n)
	defer g.finish()
	if _, err := io.Copy(io.MultiWriter(w, g), body); err != nil {
		return fmt.Errorf("downloading image %s: %w", img.ID(), err)
	}
	return nil
}

// retries is how often a download is taken up again without a byte between.
const retries = 5

func (p *program) download(ctx context.Context, cl *client.Client, img client.Record, w io.Writer) error {
	total := img.Int("size")
	sum, want := digest(img)
	g := p.track("downloading", total)
	defer g.finish()
	var off int64
	for failures := 0; off != total; {
		n, err := copyFrom(ctx, cl, img.ID(), off, io.MultiWriter(w, sum, g))
		off += n
		if err == nil {
			break
		}
		if n > 0 {
			failures = 0
		}
		var answer *client.Error
		if failures++; failures > retries || errors.As(err, &answer) || errors.Is(err, errWrite) || ctx.Err() != nil {
			return fmt.Errorf("downloading image %s: %w", img.ID(), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(failures) * time.Second):
		}
	}
	if got := sum.Sum(nil); want != nil && !bytes.Equal(got, want) {
		return fmt.Errorf("image %s arrived damaged: its checksum is %x and should be %x", img.ID(), got, want)
	}
	return nil
}

// errWrite says that our own side failed, which no retry mends.
var errWrite = errors.New("writing")

type ownSide struct{ w io.Writer }

func (o ownSide) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		err = fmt.Errorf("%w: %w", errWrite, err)
	}
	return n, err
}

func copyFrom(ctx context.Context, cl *client.Client, id string, off int64, w io.Writer) (int64, error) {
	body, _, err := cl.Download(ctx, id, off)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return io.Copy(ownSide{w}, body)
}

// digest returns the strongest hash that the record has a value of.
func digest(img client.Record) (hash.Hash, []byte) {
	known := map[string]func() hash.Hash{"sha512": sha512.New, "sha256": sha256.New, "md5": md5.New}
	if want, err := hex.DecodeString(img.Text("os_hash_value")); err == nil && len(want) > 0 {
		if f := known[img.Text("os_hash_algo")]; f != nil {
			return f(), want
		}
	}
	if want, err := hex.DecodeString(img.Text("checksum")); err == nil && len(want) == md5.Size {
		return md5.New(), want
	}
	return md5.New(), nil
}

func newHead(b []byte) io.Reader { return bytes.NewReader(b) }
