package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// probe takes a small hidden image through the gateway: written, read,
// attached, seen as a file, deleted. Nothing else tells that all of that works.
func (d *diagnosis) probe(ctx context.Context, cl *client.Client) {
	img, err := cl.CreateImage(ctx, map[string]any{"name": "platter-doctor", "disk_format": "raw",
		"container_format": "bare", "visibility": "private", "os_hidden": true})
	if err != nil {
		d.trouble("store", "cannot make an image to try it with", err)
		return
	}
	written := d.store(ctx, cl, img.ID())
	if written {
		d.doors(ctx, cl, img.ID())
	}
	if err := cl.DeleteImage(context.WithoutCancel(ctx), img.ID()); err != nil {
		d.trouble("store", "cannot delete image "+img.ID()+", which was made to try it", err)
	} else if written {
		d.ok("store", "writes, reads and deletes")
	}
}

// trouble is an error of the gateway, with its request and what to do.
func (d *diagnosis) trouble(what, doing string, err error) {
	text := doing + ": " + err.Error()
	var answer *client.Error
	if errors.As(err, &answer) {
		text += " (" + answer.RequestID + ")"
	}
	if to := hintFor(err); to != "" {
		text += ". " + to
	}
	d.fail(what, "%s", text)
}

func (d *diagnosis) store(ctx context.Context, cl *client.Client, id string) bool {
	want := bytes.Repeat([]byte("platter!"), 512)
	if err := cl.Upload(ctx, id, bytes.NewReader(want), int64(len(want))); err != nil {
		var answer *client.Error
		if errors.As(err, &answer) && answer.Status == http.StatusRequestEntityTooLarge {
			d.trouble("store", "cannot write, its disk may be full", err)
		} else {
			d.trouble("store", "cannot write", err)
		}
		return false
	}
	body, _, err := cl.Download(ctx, id, 0)
	if err != nil {
		d.trouble("store", "cannot read", err)
		return false
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("other bytes come back than were written")
	}
	if err != nil {
		d.trouble("store", "cannot read", err)
	}
	return err == nil
}

// doors opens the image over NBD, where an attachment says, and looks for it
// in the trees of files. Both can only be done on the gateway's own machine.
func (d *diagnosis) doors(ctx context.Context, cl *client.Client, id string) {
	secure := false
	for _, transport := range []string{"unix", "tls", "tcp"} {
		a, err := cl.Attach(ctx, map[string]any{"image_id": id, "transport": transport})
		if errors.Is(err, fs.ErrExist) && (transport == "tls" || secure) {
			continue // not served here: TLS need not be, and beside it plain TCP need not be
		}
		if err != nil {
			d.warn("nbd "+transport, "cannot attach: %v", err)
			continue
		}
		secure = secure || transport == "tls"
		if here(cl.URL()) {
			d.greet(ctx, "nbd "+transport, doorOf(a.Text("uri")))
		} else {
			d.ok("nbd "+transport, "attaches; from here it cannot be opened")
		}
		if err := cl.Detach(context.WithoutCancel(ctx), a.ID()); err != nil {
			d.trouble("nbd "+transport, "cannot detach "+a.ID(), err)
		}
	}
	if here(cl.URL()) {
		d.fuse(id)
	}
}

// doorOf returns the address in an NBD URI.
func doorOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if socket := u.Query().Get("socket"); socket != "" {
		return socket
	}
	return u.Host
}

// fuse looks for an image among the trees that are mounted here.
func (d *diagnosis) fuse(id string) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		d.warn("fuse", "/dev/fuse is missing: load the module (modprobe fuse), or give the container --device /dev/fuse --cap-add SYS_ADMIN; images are then not shown as files")
		return
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.warn("fuse", "%v", err)
		return
	}
	found := false
	for _, dir := range trees(string(table)) {
		_, err := os.Stat(filepath.Join(dir, "by-id", id, "disk.raw"))
		switch {
		case err == nil:
			d.ok("fuse", "images are files under %s", dir)
			found = true
		case errors.Is(err, syscall.ENOTCONN):
			d.fail("fuse", "the tree at %s is dead: start its gateway again, it takes the mount over; or umount -l %s", dir, dir)
			found = true
		case errors.Is(err, fs.ErrPermission):
			d.warn("fuse", "the tree at %s is not for this user: [fuse] allow_other in the configuration lets others look", dir)
			found = true
		}
	}
	if !found {
		d.warn("fuse", "no tree of this gateway's images is mounted here; its log says why")
	}
}

// trees finds the mounts of gateways in a mountinfo table.
func trees(table string) []string {
	var dirs []string
	for line := range strings.Lines(table) {
		left, right, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(left); strings.HasPrefix(right, "fuse.platter ") && len(fields) > 4 {
			dirs = append(dirs, strings.ReplaceAll(fields[4], `\040`, " "))
		}
	}
	return dirs
}
