package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const doctorHelp = `Looks at a gateway and at this machine: does the API answer, is every part of
the gateway ready, do clocks agree, are NBD and the file tree there, and are the
usual tools installed. Every finding says what to do. The exit code is 1 if
something is wrong; warnings are not.`

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "look for what is wrong",
		Category:    "Help",
		Description: doctorHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "nbd", Value: "127.0.0.1:10809", Usage: "where NBD is served, `HOST:PORT` or a socket's path, for a gateway on this machine"},
		}, formatFlags()...),
		Action: p.doctor,
	}
}

// A diagnosis is a list of findings.
type diagnosis struct {
	rows [][]any
	bad  bool
}

func (d *diagnosis) ok(what, format string, args ...any) { d.add(what, "ok", format, args...) }
func (d *diagnosis) warn(what, format string, args ...any) {
	d.add(what, "warning", format, args...)
}
func (d *diagnosis) fail(what, format string, args ...any) {
	d.bad = true
	d.add(what, "WRONG", format, args...)
}
func (d *diagnosis) add(what, result, format string, args ...any) {
	d.rows = append(d.rows, []any{what, result, fmt.Sprintf(format, args...)})
}

func (p *program) doctor(c *cli.Context) error {
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	d := &diagnosis{}
	if d.gateway(ctx, cl) {
		d.readiness(ctx, cl)
		d.api(ctx, cl)
	}
	if here(cl.URL()) {
		d.nbd(ctx, c.String("nbd"))
		d.fuse()
	}
	d.programs()
	if err := p.show(c, sheet{columns: []string{"check", "result", "finding"}, rows: d.rows}); err != nil {
		return err
	}
	if d.bad {
		return errNo
	}
	return nil
}

// gateway asks whether anybody is there.
func (d *diagnosis) gateway(ctx context.Context, cl *client.Client) bool {
	probe, err := cl.Probe(ctx, "/healthz")
	switch {
	case err != nil:
		d.fail("gateway", "%v: start one with platterd, or say where it is with --url or PLATTER_URL", err)
		return false
	case probe.Status != http.StatusOK:
		d.fail("gateway", "%s answers %d to /healthz: is this a Platter gateway, and is the proxy before it up?", cl.URL(), probe.Status)
		return false
	}
	d.ok("gateway", "%s answers in %s", cl.URL(), probe.Took.Round(100*time.Microsecond))
	if skew := time.Since(probe.Date).Abs(); !probe.Date.IsZero() && skew > 5*time.Second {
		d.warn("clock", "the gateway's clock and this one are %s apart: set them by NTP", skew.Round(time.Second))
	}
	return true
}

// readiness shows every part of the gateway: catalog, stores, disk, doors.
func (d *diagnosis) readiness(ctx context.Context, cl *client.Client) {
	probe, err := cl.Probe(ctx, "/readyz")
	if err != nil {
		d.fail("ready", "%v", err)
		return
	}
	var body struct {
		Parts []struct {
			Name   string `json:"name"`
			Ready  bool   `json:"ready"`
			Reason string `json:"reason"`
		} `json:"parts"`
	}
	if json.Unmarshal([]byte(probe.Body), &body) != nil || len(body.Parts) == 0 {
		if probe.Status == http.StatusOK {
			d.ok("ready", "all parts of the gateway are ready")
		} else {
			d.fail("ready", "the gateway is not ready (%d): %s", probe.Status, strings.TrimSpace(probe.Body))
		}
		return
	}
	for _, part := range body.Parts {
		if part.Ready {
			d.ok(part.Name, "ready")
		} else {
			d.fail(part.Name, "%s: see the gateway's log", part.Reason)
		}
	}
}

// api asks a real question.
func (d *diagnosis) api(ctx context.Context, cl *client.Client) {
	for _, err := range cl.Images(ctx, url.Values{"limit": {"1"}}) {
		if err != nil {
			d.fail("image api", "%v. %s", err, hintFor(err))
			return
		}
		break
	}
	d.ok("image api", "lists images")
	probe, err := cl.Probe(ctx, "/platter/v1/openapi.json")
	if err != nil || probe.Status != http.StatusOK {
		d.warn("platter api", "overlays, attachments and captures are not there (%d): this is another image service, or an older gateway", probe.Status)
		return
	}
	d.ok("platter api", "offers overlays, attachments and captures")
}

// here reports whether a URL is of this machine.
func here(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// nbd waits for the eight letters with which every NBD server begins.
func (d *diagnosis) nbd(ctx context.Context, address string) {
	network := "tcp"
	if strings.Contains(address, "/") {
		network = "unix"
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		d.warn("nbd", "%v: if NBD is served elsewhere, name it with --nbd", err)
		return
	}
	defer conn.Close()
	magic := make([]byte, 8)
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(magic); err != nil || string(magic) != "NBDMAGIC" {
		d.fail("nbd", "%s is open but does not speak NBD: another program holds the port; give platterd another with --nbd-listen", address)
		return
	}
	d.ok("nbd", "%s speaks NBD", address)
}

// fuse looks for the file tree among the mounts.
func (d *diagnosis) fuse() {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		d.warn("fuse", "/dev/fuse is missing: load the module (modprobe fuse), or give the container --device /dev/fuse --cap-add SYS_ADMIN; images are then not shown as files")
		return
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.warn("fuse", "%v", err)
		return
	}
	for line := range strings.Lines(string(table)) {
		left, right, _ := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if !strings.HasPrefix(right, "fuse.platter ") || len(fields) < 5 {
			continue
		}
		dir := strings.ReplaceAll(fields[4], `\040`, " ")
		if _, err := os.ReadFile(filepath.Join(dir, ".platter", "status")); err != nil {
			d.fail("fuse", "the tree at %s is dead (%v): start platterd again, it takes the mount over; or umount -l %s", dir, err, dir)
		} else {
			d.ok("fuse", "images are files under %s", dir)
		}
		return
	}
	d.warn("fuse", "no tree of images is mounted in this mount namespace; platterd's log says why")
}

// programs looks for what people use with a gateway.
func (d *diagnosis) programs() {
	for _, prog := range [][2]string{
		{"qemu-system-x86_64", "to boot from images (package qemu-system-x86)"},
		{"qemu-img", "to look at disks over NBD (package qemu-utils)"},
		{"nbdcopy", "to copy disks over NBD (package libnbd-bin)"},
	} {
		if _, err := exec.LookPath(prog[0]); err != nil {
			d.warn(prog[0], "not installed; it serves %s", prog[1])
		} else {
			d.ok(prog[0], "installed")
		}
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		d.warn("kvm", "%v: guests boot, but slowly", err)
	} else {
		f.Close()
		d.ok("kvm", "guests run at full speed")
	}
}
