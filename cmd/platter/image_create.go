package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const imageCreateHelp = `Makes an image and, with --file, uploads its bytes. The format of the disk is
found in the file unless --disk-format says it. If the upload fails, the image
is deleted again, unless --keep is given.

Examples:
   platter image create debian --file debian.qcow2
   platter image create debian --file - --disk-format raw < debian.img
   platter image create empty --disk-format qcow2`

func (p *program) imageCreateCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "the image's `NAME`; the same as the argument"},
		&cli.StringFlag{Name: "file", Usage: "upload this `FILE`; - is the standard input"},
		&cli.StringFlag{Name: "disk-format", Usage: "`FORMAT` of the bytes: qcow2, raw, ..."},
		&cli.StringFlag{Name: "container-format", Value: "bare", Usage: "`FORMAT` around the bytes"},
		&cli.StringFlag{Name: "id", Usage: "the image's `UUID` (default: the gateway makes one)"},
		&cli.StringSliceFlag{Name: "property", Usage: "a property, `KEY=VALUE`; may be repeated"},
		&cli.StringSliceFlag{Name: "tag", Usage: "a `TAG`; may be repeated"},
		&cli.StringFlag{Name: "owner", Usage: "the `PROJECT` it belongs to"},
		&cli.IntFlag{Name: "min-disk", Usage: "smallest disk to boot from it, in `GB`"},
		&cli.IntFlag{Name: "min-ram", Usage: "smallest memory to boot from it, in `MB`"},
		&cli.BoolFlag{Name: "protected", Usage: "it cannot be deleted"},
		&cli.BoolFlag{Name: "hidden", Usage: "leave it out of listings"},
		&cli.BoolFlag{Name: "keep", Usage: "keep the record if the upload fails"},
	}
	return &cli.Command{
		Name:        "create",
		Usage:       "make an image and upload its bytes",
		ArgsUsage:   "[NAME]",
		Description: imageCreateHelp,
		Flags:       append(append(flags, visibilityFlags()...), formatFlags()...),
		Action:      p.imageCreate,
	}
}

func (p *program) imageCreate(c *cli.Context) error {
	fields, err := createFields(c)
	if err != nil {
		return err
	}
	up, err := p.openUpload(c.Context, c.String("file"))
	if err != nil {
		return err
	}
	defer up.Close()
	if err := up.chooseFormat(fields); err != nil {
		return err
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	img, err := cl.CreateImage(c.Context, fields)
	if err != nil {
		return err
	}
	if up.body != nil {
		if err := p.upload(c.Context, cl, img.ID(), up); err != nil {
			return p.uploadFailed(c, cl, img.ID(), img.Text("disk_format"), err)
		}
		if img, err = cl.Image(c.Context, img.ID()); err != nil {
			return err
		}
	}
	return p.showImage(c, img)
}

// createFields reads the record from the flags.
func createFields(c *cli.Context) (map[string]any, error) {
	if c.NArg() > 1 {
		return nil, usagef("image create takes one NAME, not %d words; quote a name with spaces", c.NArg())
	}
	if c.NArg() == 1 && c.IsSet("name") && c.Args().First() != c.String("name") {
		return nil, usagef("two names are given, %q and %q", c.Args().First(), c.String("name"))
	}
	properties, err := pairs(c.StringSlice("property"))
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	for key, value := range properties {
		fields[key] = value
	}
	for flag, key := range map[string]string{"disk-format": "disk_format", "container-format": "container_format",
		"id": "id", "owner": "owner"} {
		if v := c.String(flag); v != "" {
			fields[key] = v
		}
	}
	for flag, key := range map[string]string{"min-disk": "min_disk", "min-ram": "min_ram"} {
		if c.IsSet(flag) {
			fields[key] = c.Int(flag)
		}
	}
	for flag, key := range map[string]string{"protected": "protected", "hidden": "os_hidden"} {
		if c.Bool(flag) {
			fields[key] = true
		}
	}
	if name := cmp.Or(c.Args().First(), c.String("name")); name != "" {
		fields["name"] = name
	}
	if tags := c.StringSlice("tag"); len(tags) > 0 {
		fields["tags"] = tags
	}
	who, err := visibility(c)
	if who != "" {
		fields["visibility"] = who
	}
	return fields, err
}

// An upload is the bytes that are to be sent, if there are any.
type upload struct {
	body io.ReadCloser
	size int64 // -1 if nobody knows
	head []byte
	name string
}

// openUpload opens a file, or the standard input, and looks at its beginning.
func (p *program) openUpload(ctx context.Context, name string) (*upload, error) {
	up := &upload{size: -1, name: name}
	switch name {
	case "":
		return up, nil
	case "-":
		up.body, up.name = io.NopCloser(patiently(ctx, p.in)), "the standard input"
	default:
		f, err := os.Open(name)
		if err != nil {
			return nil, fileError(err)
		}
		up.body = f
		if st, err := f.Stat(); err == nil && st.IsDir() {
			f.Close()
			return nil, usagef("%s is a directory; --file takes a disk image", name)
		} else if err == nil && st.Mode().IsRegular() {
			up.size = st.Size()
		} else {
			up.body = struct {
				io.Reader
				io.Closer
			}{patiently(ctx, f), f}
		}
	}
	up.head = make([]byte, 512)
	n, err := io.ReadFull(up.body, up.head)
	up.head = up.head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		up.Close()
		return nil, fileError(fmt.Errorf("reading %s: %w", up.name, err))
	}
	return up, nil
}

// Close closes the file.
func (u *upload) Close() error {
	if u.body == nil {
		return nil
	}
	return u.body.Close()
}

// chooseFormat fills in the disk format from the file's first bytes.
func (u *upload) chooseFormat(fields map[string]any) error {
	if u.body == nil || fields["disk_format"] != nil {
		return nil
	}
	for _, f := range format.List() {
		if f.Probe(u.head) {
			fields["disk_format"] = f.Name
			return nil
		}
	}
	fields["disk_format"] = "raw"
	return nil
}

// upload sends the bytes and shows how far it is.
func (p *program) upload(ctx context.Context, cl *client.Client, id string, up *upload) error {
	return p.sendBytes(ctx, id, up, "uploading", cl.Upload)
}

func (p *program) sendBytes(ctx context.Context, id string, up *upload, doing string, send func(context.Context, string, io.Reader, int64) error) error {
	g := p.track(doing, up.size)
	defer g.finish()
	body := io.MultiReader(newHead(up.head), up.body)
	return send(ctx, id, io.TeeReader(body, g), up.size)
}

// uploadFailed takes the record away again, so that what is left of a mistake
// is nothing.
func (p *program) uploadFailed(c *cli.Context, cl *client.Client, id, declared string, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 30*time.Second)
	defer cancel()
	if c.Bool("keep") || cl.DeleteImage(ctx, id) != nil {
		return hint(err, "the record of image %s is still there, without bytes; once a gateway answers again, "+
			"platter image delete %[1]s takes it away", id)
	}
	var answer *client.Error
	if errors.As(err, &answer) && answer.Status == http.StatusUnsupportedMediaType && c.String("file") != "-" {
		return hint(err, "nothing was created; platter check --format %s %s says the same without a gateway", declared, c.String("file"))
	}
	return hint(err, "nothing was created")
}
