package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const doctorHelp = `Looks at a gateway and at this machine: does the API answer, are the catalog,
Keystone, the stores and the cache well, do clocks agree, can a small hidden image be written, read, opened over
NBD, seen as a file and deleted, and are the usual tools installed. Every finding
says what to do. The exit code is 1 if something is wrong; warnings are not.`

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "look for what is wrong",
		Category:    "Help",
		Description: doctorHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "read-only", Usage: "look only; leave out what makes an image to try things with"},
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
		d.imageAPI(ctx, cl)
		if d.platterAPI(ctx, cl) {
			d.places(ctx, cl)
		}
	}
	if !d.bad && !c.Bool("read-only") {
		d.probe(ctx, cl)
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

// readiness asks whether the gateway could do what it is asked for.
func (d *diagnosis) readiness(ctx context.Context, cl *client.Client) {
	probe, err := cl.Probe(ctx, "/readyz")
	switch {
	case err != nil:
		d.fail("readiness", "%v", err)
	case probe.Status != http.StatusOK:
		d.fail("readiness", "%s: the gateway cannot do its work until that is back; its log says more", strings.TrimSpace(probe.Body))
	default:
		d.ok("readiness", "the catalog and the default store can be used")
	}
	if err == nil {
		d.keystone(ctx, cl, probe.Body)
	}
}

// keystone says how the gateway's Keystone is, if it has one: it wants tokens
// then, and /readyz tells of trouble with them.
func (d *diagnosis) keystone(ctx context.Context, cl *client.Client, ready string) {
	for line := range strings.Lines(ready) {
		if trouble, ok := strings.CutPrefix(line, "ailing: auth: "); ok {
			d.fail("keystone", "%s", strings.TrimSpace(trouble))
			return
		}
	}
	if probe, err := cl.Probe(ctx, "/v2/images?limit=1"); err == nil && probe.Status == http.StatusUnauthorized {
		d.ok("keystone", "the gateway asks it who is asking")
	}
}

// imageAPI asks a real question.
func (d *diagnosis) imageAPI(ctx context.Context, cl *client.Client) {
	for _, err := range cl.Images(ctx, url.Values{"limit": {"1"}}) {
		if err != nil {
			d.trouble("image api", "cannot list images", err)
			return
		}
		break
	}
	d.ok("image api", "lists images")
}

func (d *diagnosis) platterAPI(ctx context.Context, cl *client.Client) bool {
	probe, err := cl.Probe(ctx, "/platter/v1/openapi.json")
	if err != nil || probe.Status != http.StatusOK {
		d.warn("platter api", "overlays, attachments and captures are not there (%d): this is another image service, or an older gateway", probe.Status)
		return false
	}
	d.ok("platter api", "offers overlays, attachments and captures")
	return true
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

// greet waits for the eight letters with which every NBD server begins.
func (d *diagnosis) greet(ctx context.Context, what, address string) {
	network := "tcp"
	if strings.Contains(address, "/") {
		network = "unix"
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
	switch {
	case errors.Is(err, fs.ErrPermission):
		d.warn(what, "%s is not for this user: join the socket's group, or use --transport tcp", address)
		return
	case err != nil:
		d.fail(what, "%v: the gateway says that NBD is served there; see its log", err)
		return
	}
	defer conn.Close()
	magic := make([]byte, 8)
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, magic); err != nil || string(magic) != "NBDMAGIC" {
		d.fail(what, "%s is open but does not speak NBD: another program holds the address; give platterd another with --nbd-listen", address)
		return
	}
	d.ok(what, "%s speaks NBD", address)
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
