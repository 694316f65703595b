//go:build integration

package integration

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// scratch is where checks may write; what is before and behind it stays as in
// the image.
const scratch, scratchEnd = 2 << 20, 38 << 20

// nbdDoor is an export as one transport has it.
type nbdDoor struct {
	name, network, addr, export string

	long bool        // extended headers where it does not matter
	tls  *tls.Config // network "tls"

	base      []byte // its bytes, outside of the scratch area if it is writable
	size      uint64
	writable  bool
	multi     bool   // must be announced
	exclusive bool   // one connection at a time
	other     string // another export that is there, of other size
	otherSize uint64
	listed    bool
}

// dial connects, when nobody else has the export any more.
func (d *nbdDoor) dial(t *testing.T) *peer {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); d.exclusive; time.Sleep(2 * time.Millisecond) {
		p := d.connect(t).greet(3)
		i := p.ask(oInfo, d.export)
		p.want(rAck, oAbort)
		p.closed()
		if i.refused == 0 {
			break
		}
		if i.refused != rPolicy || time.Now().After(end) {
			t.Fatalf("%s: %#x %s", d.export, i.refused, i.why)
		}
	}
	return d.connect(t)
}

// connect connects at once.
func (d *nbdDoor) connect(t *testing.T) *peer {
	t.Helper()
	network := d.network
	if d.tls != nil {
		network = "tcp"
	}
	p := dialPeer(t, network, d.addr)
	p.tls = d.tls
	return p
}

// open enters the export with structured replies, or extended headers, and its
// context.
func (d *nbdDoor) open(t *testing.T) *peer { t.Helper(); return d.dial(t).full(d.export, d.long) }

// simple enters the export without.
func (d *nbdDoor) simple(t *testing.T) *peer {
	t.Helper()
	p := d.dial(t).greet(3)
	p.enter(d.export)
	return p
}

// nbdCheck is one check of the protocol.
type nbdCheck struct {
	name string
	on   string // "ro", "rw", or "" for both
	run  func(t *testing.T, d *nbdDoor)
}

// nbdBase makes a disk with data, holes and borders, not a whole number of
// sectors long.
func nbdBase(t testing.TB) (path string, data []byte) {
	t.Helper()
	data = make([]byte, 40<<20+1001)
	rng := rand.NewChaCha8([32]byte{7})
	for _, r := range [][2]int{{0, 1 << 20}, {1280 << 10, 1280<<10 + 100_000}, {scratch + 1<<20, scratch + 2<<20}, {len(data) - 70_000, len(data)}} {
		rng.Read(data[r[0]:r[1]])
	}
	path = filepath.Join(t.TempDir(), "base.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := 0; at < len(data); at += 4096 {
		b := data[at:min(at+4096, len(data))]
		if strings.Trim(string(b), "\x00") == "" {
			continue
		}
		if _, err := f.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	return path, data
}

// attachment makes an attachment and returns its id and export name.
func attachment(t testing.TB, g *gateway.Gateway, what, id, mode, transport string) (string, string) {
	t.Helper()
	body := fmt.Sprintf(`{%q:%q,"mode":%q,"transport":%q}`, what, id, mode, transport)
	out := call(t, g, "POST", "/platter/v1/attachments", body, 201)
	uri := field(t, out, "uri")
	at := strings.Index(uri, "attach/")
	if at < 0 {
		t.Fatalf("no export in %s", out)
	}
	name, _, _ := strings.Cut(uri[at:], "?")
	return field(t, out, "id"), name
}

// newOverlay makes an overlay and returns its id.
func newOverlay(t testing.TB, g *gateway.Gateway, image, more string) string {
	t.Helper()
	return field(t, call(t, g, "POST", "/platter/v1/overlays", fmt.Sprintf(`{"image_id":%q,"name":"o"%s}`, image, more), 201), "id")
}

// nbdDoors makes every kind of export on every transport, over TLS if the
// gateway's authority is given.
func nbdDoors(t *testing.T, g *gateway.Gateway, ca *nbdtest.Authority) []*nbdDoor {
	t.Helper()
	raw, data := nbdBase(t)
	packed := filepath.Join(t.TempDir(), "base.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, packed)
	native := readAll(t, packed)
	whole := append(data, make([]byte, -len(data)&511)...)
	odd, img := upload(t, g, "odd", "raw", raw), upload(t, g, "packed", "qcow2", packed)

	var doors []*nbdDoor
	for _, where := range [][2]string{{"unix", g.Socket}, {"tcp", g.NBD}, {"tls", g.NBD}} {
		if where[0] == "tls" && ca == nil {
			continue
		}
		add := func(name, export string, base []byte, change func(*nbdDoor)) {
			d := &nbdDoor{name: where[0] + " " + name, network: where[0], addr: where[1], export: export, base: base, size: uint64(len(base)),
				multi: true, other: odd + "/native", otherSize: uint64(len(data))}
			if where[0] == "tls" {
				d.tls = ca.Client(t, "")
			}
			change(d)
			doors = append(doors, d)
		}
		attached := func(what, id, mode string) string {
			_, name := attachment(t, g, what, id, mode, where[0])
			return name
		}
		writable := func(d *nbdDoor) { d.writable = true }
		add("IMAGE qcow2", img, whole, func(d *nbdDoor) { d.listed = true })
		add("IMAGE raw", odd, data, func(d *nbdDoor) { d.listed, d.other, d.otherSize = true, img, uint64(len(whole)) })
		add("IMAGE native", img+"/native", native, func(d *nbdDoor) {})
		add("attach ro", attached("image_id", img, "ro"), whole, func(*nbdDoor) {})
		add("ephemeral", "ephemeral/"+odd, whole, func(d *nbdDoor) { d.writable, d.multi = true, false })
		add("overlay", "overlay/"+newOverlay(t, g, img, ""), whole, func(d *nbdDoor) {
			d.writable, d.listed, d.exclusive, d.multi = true, true, where[0] != "unix", where[0] == "unix"
		})
		add("attach overlay", attached("overlay_id", newOverlay(t, g, odd, ""), "rw"), whole, writable)
		add("attach ephemeral", attached("image_id", odd, "ephemeral"), whole, writable)
	}
	return doors
}

// TestNBDConformance runs every check on every kind of export and every
// transport, and those about requests also with extended headers. Between the checks the gateway goes on, so that one check's
// leavings are the next one's trouble.
func TestNBDConformance(t *testing.T) {
	gateway.Need(t, "qemu-img")
	ca := nbdtest.NewAuthority(t, "conformance")
	g := gateway.Start(t, append(gateway.ServeTLS(t, ca, "optional"), "--mount", "off", "--log-level", "warn")...)
	checks := slices.Concat(nbdChecks(false, false), extendedChecks())
	names := map[string]bool{}
	for _, c := range checks {
		if names[c.name] {
			t.Fatalf("two checks are called %q", c.name)
		}
		names[c.name] = true
	}
	t.Logf("%d checks", len(checks))
	if len(checks) < 150 {
		t.Error("some checks are missing")
	}
	doors := nbdDoors(t, g, ca)
	for _, d := range doors {
		if d.network != "tcp" { // the bytes behind the handshake are the same
			long := *d
			long.name, long.long = d.name+" extended", true
			doors = append(doors, &long)
		}
	}
	for _, d := range doors {
		t.Run(d.name, func(t *testing.T) {
			for _, c := range nbdChecks(d.network == "tls", d.long) {
				if c.on == "rw" && !d.writable || c.on == "ro" && d.writable {
					continue
				}
				t.Run(c.name, func(t *testing.T) { c.run(t, d) })
			}
		})
	}
	resp, err := http.Get(g.Debug + "/debug/nbd")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out := string(page); strings.Contains(out, "attach/") {
		t.Errorf("a token is told to operators:\n%s", out)
	}
	for line := range strings.Lines(g.Log()) {
		words := strings.ReplaceAll(line, "attach/TOKEN", "") // what names there are is no secret
		if strings.Contains(words, "panic") || strings.Contains(words, "attach/") {
			t.Errorf("the log has a panic or a token: %s", line)
		}
	}
	idle(t, g)
}

// nbdChecks is all checks that make sense over TLS or not, with extended
// headers or not.
func nbdChecks(secure, long bool) []nbdCheck {
	requests := slices.Concat(requestChecks(), readChecks(), statusChecks(), writeChecks(), endChecks())
	if long {
		return append(requests, extendedChecks()...)
	}
	options := slices.Concat(greetingChecks(), optionChecks(), infoChecks(), contextChecks())
	if !secure {
		options = append(flagChecks(), options...)
	}
	return append(options, requests...)
}

// idle wants all connections to be gone soon.
func idle(t testing.TB, g *gateway.Gateway) {
	t.Helper()
	var text string
	for range 200 {
		if _, text = get(t, g.Debug+"/metrics"); metric(text, "platter_nbd_connections") == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("connections are left: %v", metric(text, "platter_nbd_connections"))
}

// metric returns the sum of a metric's values.
func metric(text, name string) (sum float64) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			var v float64
			fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v)
			sum += v
		}
	}
	return sum
}

// TestNBDNames asks for exports that are none, in every way.
func TestNBDNames(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "--log-level", "warn")
	file, _ := randomFile(t, 1<<20)
	id := upload(t, g, "there", "raw", file)
	queued := newImage(t, g, "raw")
	_, unixToken := attachment(t, g, "image_id", id, "ro", "unix")
	deleted, gone := attachment(t, g, "image_id", id, "ro", "unix")
	call(t, g, "DELETE", "/platter/v1/attachments/"+deleted, "", 204)
	const none = "00000000-0000-4000-8000-000000000000"
	for _, c := range []struct {
		name string
		want uint32
	}{
		{"", rUnknown}, {"/", rUnknown}, {"disk", rUnknown}, {none, rUnknown}, {none + "/native", rUnknown}, {id + "/", rUnknown}, {"/" + id, rUnknown},
		{id + "/native/", rUnknown}, {id + "/disk", rUnknown}, {id + "/../" + id, rUnknown}, {"../" + id, rUnknown}, {" " + id, rUnknown},
		{strings.ToUpper(id) + "x", rUnknown}, {"ephemeral/", rUnknown}, {"ephemeral/" + none, rUnknown}, {"ephemeral/" + id + "/native", rUnknown},
		{"overlay/", rUnknown}, {"overlay/" + id, rUnknown}, {"overlay/../../etc/passwd", rUnknown}, {"attach/", rUnknown}, {"attach/" + id, rUnknown},
		{"attach/" + strings.Repeat("A", 43), rUnknown}, {strings.Repeat("x", 4096), rUnknown}, {queued, rUnknown}, {"ephemeral/" + queued, rUnknown},
		{gone, rUnknown}, {unixToken[:len(unixToken)-1], rUnknown}, {unixToken, rPolicy}, {"höhe", rUnknown}, {"a\x00b", rInvalid}, {"\xff\xfe", rInvalid},
		{strings.Repeat("x", 4097), rInvalid},
	} {
		t.Run(fmt.Sprintf("%.40q", c.name), func(t *testing.T) {
			p := dialPeer(t, "tcp", g.NBD).greet(3)
			for _, opt := range []uint32{oInfo, oGo} {
				i := p.ask(opt, c.name)
				if i.refused != c.want || i.why == "" || strings.Contains(i.why, unixToken[7:]) {
					t.Errorf("option %d: %#x %q, want %#x", opt, i.refused, i.why, c.want)
				}
			}
			p.want(rUnsup, oStartTLS) // this gateway has no certificate
			p.structure()
			for _, opt := range []uint32{oListMeta, oSetMeta} {
				p.want(c.want, opt, c.name, uint32(1), "base:allocation")
			}
			p.enter(id)
			p.alive()
			p = dialPeer(t, "tcp", g.NBD).greet(3)
			p.option(oExportName, []byte(c.name))
			p.closed()
		})
	}
}

// TestNBDToolsSeeIt has nbdinfo print what the export is.
func TestNBDToolsSeeIt(t *testing.T) {
	gateway.Need(t, "nbdinfo", "qemu-img")
	g := gateway.Start(t, "--mount", "off")
	for _, d := range nbdDoors(t, g, nil) {
		if d.network != "unix" {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			out := tool(t, "nbdinfo", "--json", g.Export(d.export))
			var all struct {
				Protocol        string
				TLS, Structured bool
				Exports         []map[string]any
			}
			if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Exports) != 1 || all.Protocol != "newstyle-fixed" || all.TLS || !all.Structured {
				t.Fatalf("%v\n%s", err, out)
			}
			x := all.Exports[0]
			for key, want := range map[string]any{
				"export-name": d.export, "export-size": float64(d.size), "is_read_only": !d.writable, "can_multi_conn": d.multi, "can_flush": true,
				"can_fua": true, "can_df": true, "can_cache": true, "can_trim": d.writable, "can_zero": d.writable, "can_fast_zero": d.writable,
				"is_rotational": false, "block_size_minimum": 1.0, "block_size_preferred": 4096.0, "block_size_maximum": float64(most),
			} {
				if got := x[key]; got != want {
					t.Errorf("%s is %v, want %v", key, got, want)
				}
			}
			if c, _ := x["contexts"].([]any); len(c) != 2 || c[0] != "base:allocation" || c[1] != "qemu:allocation-depth" {
				t.Errorf("contexts %v", x["contexts"])
			}
			if d, _ := x["description"].(string); d == "" {
				t.Error("no description")
			}
		})
	}
	// An overlay that is attached cannot be opened by its name, which nbdinfo
	// minds; it lists the others all the same.
	out, _ := g.Try(t.Context(), "nbdinfo", "--list", "--json", "nbd+unix://?socket="+g.Socket)
	if n := strings.Count(out, `"export-name"`); n != 4 || strings.Contains(out, "attach/") {
		t.Errorf("nbdinfo lists %d exports, want 2 images and 2 overlays by name:\n%s", n, out)
	}
}
