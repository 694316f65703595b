//go:build integration

package interop

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// diskSize is of the disks here; what is at free is nothing, and may be
// written.
const diskSize, free, freeSize = 24 << 20, 12 << 20, 8 << 20

// A door is one way to a gateway.
type door struct {
	name  string
	g     *gateway.Gateway
	certs string // folder of the client's certificates, for TLS
}

// uri is for libnbd and fio.
func (d door) uri(export string) string {
	switch d.name {
	case "unix":
		return d.g.Export(export)
	case "tcp":
		return "nbd://" + d.g.NBD + "/" + export
	}
	return "nbds://localhost" + d.g.NBD[strings.LastIndexByte(d.g.NBD, ':'):] + "/" + export + "?tls-certificates=" + d.certs
}

// qemu is for QEMU's programs: the words to put before, and the disk.
func (d door) qemu(export string) (before []string, disk string) {
	nbd := map[string]any{"driver": "nbd", "export": export}
	host, port, _ := strings.Cut(d.g.NBD, ":")
	switch d.name {
	case "unix":
		nbd["server"] = map[string]any{"type": "unix", "path": d.g.Socket}
	case "tcp":
		nbd["server"] = map[string]any{"type": "inet", "host": host, "port": port}
	case "tls":
		nbd["server"], nbd["tls-creds"] = map[string]any{"type": "inet", "host": "localhost", "port": port}, "c"
		before = []string{"--object", "tls-creds-x509,id=c,endpoint=client,dir=" + d.certs}
	}
	b, _ := json.Marshal(map[string]any{"driver": "raw", "file": nbd})
	return before, "json:" + string(b)
}

// A kind is a kind of export.
type kind struct {
	name, file, format string // what was uploaded
	writable           bool
	export             func(t *testing.T) string // makes one
}

// disk makes a disk with data, borders and holes.
func disk(t testing.TB) (path string, data []byte) {
	t.Helper()
	data = make([]byte, diskSize)
	rng := rand.NewChaCha8([32]byte{4})
	for _, r := range [][2]int{{0, 1 << 20}, {2<<20 + 65536, 2<<20 + 3*65536}, {21 << 20, 21<<20 + 512<<10}, {diskSize - 65536, diskSize}} {
		rng.Read(data[r[0]:r[1]])
	}
	for i := 5 << 20; i < 6<<20; i++ {
		data[i] = 0x5a
	}
	path = filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < diskSize; at += 65536 {
		if strings.Trim(string(data[at:at+65536]), "\x00") == "" {
			continue
		}
		if _, err := f.WriteAt(data[at:at+65536], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	return path, data
}

// kinds uploads every format and returns every kind of export of them.
func kinds(t *testing.T, g *gateway.Gateway, raw string) []kind {
	t.Helper()
	var all []kind
	image := ""
	for _, f := range []struct {
		name   string
		format string
		flags  []string
	}{
		{"raw", "raw", nil},
		{"zlib", "qcow2", []string{"-c"}},
		{"zstd", "qcow2", []string{"-c", "-o", "compression_type=zstd"}},
		{"qcow2", "qcow2", nil},
	} {
		file := raw
		if f.format != "raw" {
			file = filepath.Join(t.TempDir(), f.name)
			g.Command(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", f.format}, f.flags...), raw, file)...)
		}
		id := g.Upload(t, f.name, f.format, file)
		image = id
		all = append(all, kind{f.name, file, f.format, false, func(*testing.T) string { return id }})
	}
	last := all[len(all)-1]
	return append(all,
		kind{"overlay", last.file, last.format, true, func(t *testing.T) string { return "overlay/" + g.NewOverlay(t, image, `,"name":"o"`) }},
		kind{"ephemeral", last.file, last.format, true, func(*testing.T) string { return "ephemeral/" + image }})
}

// TestMatrix has each client on each kind of export over each transport. Of the
// places that only read, a third is left out unless PLATTER_SOAK is set.
func TestMatrix(t *testing.T) {
	old, newer := debian12(t), debian13(t)
	ca := nbdtest.NewAuthority(t, "interop")
	g := gateway.Start(t, append(gateway.ServeTLS(t, ca, "optional"), "--mount", "off", "--log-level", "warn")...)
	raw, data := disk(t)
	certs := ca.Folder(t, "client", nbdtest.Subject{Name: "client"})
	seed := uint64(time.Now().UnixNano())
	rng, all := rand.New(rand.NewPCG(seed, 0)), os.Getenv("PLATTER_SOAK") != ""
	t.Logf("seed %d", seed)
	for _, k := range kinds(t, g, raw) {
		for i, d := range []door{{"unix", g, ""}, {"tcp", g, ""}, {"tls", g, certs}} {
			for _, with := range []tools{old, newer} {
				if !all && !k.writable && rng.IntN(3) == 0 {
					continue
				}
				t.Run(k.name+" "+d.name+" "+with.name, func(t *testing.T) {
					c := cell{t: t, tools: with, door: d, kind: k, raw: raw, data: data, g: g, export: k.export(t)}
					c.looks()
					c.maps()
					c.copies()
					c.reads()
					if i == 0 || all || k.writable {
						c.through()
					}
					if k.writable {
						c.writes()
					}
				})
			}
		}
	}
}

// A cell of the matrix is one export, over one transport, for the tools of one
// release.
type cell struct {
	t *testing.T
	tools
	door
	kind
	raw    string // the disk
	data   []byte // and its bytes
	g      *gateway.Gateway
	export string
}

// qemu runs a program of QEMU with the export in the place of DISK.
func (c cell) qemu(name string, args ...string) string {
	c.t.Helper()
	before, at := c.door.qemu(c.export)
	if name == "qemu-img" { // which has a verb first
		before, args = append(args[:1:1], before...), args[1:]
	}
	line := before
	for _, a := range args {
		line = append(line, strings.ReplaceAll(a, "DISK", at))
	}
	return c.tools.run(c.t, name, line...)
}

// sum is the digest of a part of the disk, as the lines of sumLines print it.
func (c cell) sum(off, n int) string { return fmt.Sprintf("%x", sha256.Sum256(c.data[off:off+n])) }

// headers returns what the gateway says of the only connection that there is.
func (c cell) headers() string {
	var list struct {
		Connections []struct{ Transport, Headers string }
	}
	b := c.g.Call(c.t, "GET", "/platter/v1/nbd/connections", "", 200)
	if err := json.Unmarshal(b, &list); err != nil {
		c.t.Fatal(err)
	}
	for _, k := range list.Connections {
		if k.Transport == c.door.name && k.Headers != "" {
			return k.Headers
		}
	}
	return ""
}

// looks has nbdinfo and qemu-img tell what the export is.
func (c cell) looks() {
	t, uri := c.t, c.uri(c.export)
	var out struct {
		Protocol        string
		TLS, Structured bool
		Exports         []struct {
			Size     int64    `json:"export-size"`
			ReadOnly bool     `json:"is_read_only"`
			Contexts []string `json:"contexts"`
		}
	}
	if err := json.Unmarshal([]byte(c.run(t, "nbdinfo", "--json", uri)), &out); err != nil || len(out.Exports) != 1 {
		t.Fatalf("%v %+v", err, out)
	}
	if x := out.Exports[0]; out.Protocol != "newstyle-fixed" || out.TLS != (c.door.name == "tls") || x.Size != diskSize || x.ReadOnly == c.writable ||
		strings.Join(x.Contexts, " ") != "base:allocation qemu:allocation-depth" {
		t.Errorf("nbdinfo says %+v", out)
	}
	for word, want := range map[string]bool{"--can=write": c.writable, "--can=multi-conn": !c.writable || c.kind.name == "overlay" && c.door.name == "unix",
		"--can=zero": c.writable, "--can=flush": true, "--can=df": true, "--is=rotational": false} {
		if _, err := c.try(t, "nbdinfo", word, uri); (err == nil) != want {
			t.Errorf("nbdinfo %s: %v, want %v", word, err, want)
		}
	}
	if list := c.run(t, "nbdinfo", "--list", "--no-content", c.uri("")); !strings.Contains(list, c.export) && c.kind.name != "ephemeral" {
		t.Errorf("nbdinfo does not list %s:\n%s", c.export, list)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(c.qemu("qemu-img", "info", "--output=json", "DISK")), &info); err != nil || info.Size != diskSize {
		t.Errorf("qemu-img info: %v %+v", err, info)
	}
}

// A piece of a map.
type piece struct {
	Start, Offset, Length int64
	Zero                  bool
	Type                  int
}

// zeros tells for each 64 KiB whether a map says that it is zero, in a string
// of 0 and 1.
func zeros(t testing.TB, text string, bit bool) string {
	t.Helper()
	var list []piece
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	out := []byte(strings.Repeat("1", diskSize>>16))
	sum := int64(0)
	for _, p := range list {
		zero, at := p.Zero, p.Start
		if bit {
			zero, at = p.Type&2 != 0, p.Offset
		}
		if at != sum {
			t.Fatalf("a map with a gap at %d: %s", sum, text)
		}
		sum += p.Length
		for i := at >> 16; !zero && i <= (at+p.Length-1)>>16; i++ {
			out[i] = '0'
		}
	}
	if sum != diskSize {
		t.Fatalf("a map of %d bytes: %s", sum, text)
	}
	return string(out)
}

// maps compares what nbdinfo and qemu-img say of the export with what qemu-img
// says of the file.
func (c cell) maps() {
	t := c.t
	want := zeros(t, c.run(t, "qemu-img", "map", "--output=json", "-f", c.format, c.file), false)
	if got := zeros(t, c.run(t, "nbdinfo", "--map", "--json", c.uri(c.export)), true); got != want {
		t.Errorf("nbdinfo --map\n%s, want\n%s", got, want)
	}
	if got := zeros(t, c.qemu("qemu-img", "map", "--output=json", "DISK"), false); got != want {
		t.Errorf("qemu-img map\n%s, want\n%s", got, want)
	}
	if c.export[:8] == "overlay/" || c.kind.name == "ephemeral" {
		return
	}
	for _, line := range strings.Split(strings.TrimSpace(c.run(t, "nbdinfo", "--map=qemu:allocation-depth", c.uri(c.export))), "\n") {
		if depth := strings.Fields(line)[2]; depth != "0" && depth != "1" {
			t.Errorf("an image without anything below has the depth %s", depth)
		}
	}
}

// same wants a file to be the disk.
func (c cell) same(path string) {
	c.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	if string(got) != string(c.data) {
		c.t.Errorf("%s is not the disk", filepath.Base(path))
	}
	os.Remove(path)
}

// copies has nbdcopy and qemu-img take the whole disk.
func (c cell) copies() {
	t, dir := c.t, c.t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c.run(t, "nbdcopy", "--connections=4", c.uri(c.export), file("nbdcopy"))
	c.same(file("nbdcopy"))
	c.run(t, "nbdcopy", "--synchronous", "--request-size=1048576", c.uri(c.export), file("nbdcopy --synchronous"))
	c.same(file("nbdcopy --synchronous"))
	c.qemu("qemu-img", "convert", "-O", "raw", "DISK", file("qemu-img convert"))
	c.same(file("qemu-img convert"))
	if out := c.qemu("qemu-img", "compare", "DISK", c.file); !strings.Contains(out, "identical") {
		t.Errorf("qemu-img compare: %s", out)
	}
}

// reads reads with each kind of headers, and has the gateway say that they
// were used.
func (c cell) reads() {
	t := c.t
	lines := []string{"import hashlib, urllib.request", fmt.Sprintf("h.connect_uri(%q)", c.uri(c.export)),
		"print(hashlib.sha256(h.pread(3000001, 999)).hexdigest())", fmt.Sprintf("print(urllib.request.urlopen(%q).read().decode())", c.g.URL+"/platter/v1/nbd/connections")}
	want := map[string]string{"simple": "h.set_request_structured_replies(False)", "structured": "pass"}
	if c.root != "" {
		want["simple"] += "; h.set_request_extended_headers(False)"
		want["structured"] = "h.set_request_extended_headers(False)"
		want["extended"] = "pass"
	}
	for headers, first := range want {
		out := c.shell(t, append([]string{"h.set_uri_allow_local_file(True)", first}, lines...)...)
		if !strings.HasPrefix(out, c.sum(999, 3000001)) || !strings.Contains(out, fmt.Sprintf("%q:%q", "headers", headers)) {
			t.Errorf("nbdsh with %s headers: %s", headers, out)
		}
	}
	for end := time.Now().Add(time.Minute); c.headers() != "" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
	}
	before, at := c.door.qemu(c.export)
	stop := c.start(t, "qemu-io", append(append(before, "-r"), "-c", "read -P 0x5a 5M 1M", "-c", "read -P 0 13M 1M", "-c", "sleep 700", at)...)
	used := ""
	for end := time.Now().Add(time.Minute); used == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		used = c.headers()
	}
	if want := map[bool]string{false: "structured", true: "extended"}[c.root != ""]; used != want {
		t.Errorf("qemu-io uses %q headers, want %s", used, want)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// through has qemu-nbd serve the export as its own image, and reads that.
func (c cell) through() {
	t, dir := c.t, c.t.TempDir()
	before, at := c.door.qemu(c.export)
	socket := filepath.Join(dir, "s")
	stop := c.start(t, "qemu-nbd", append(before, "--read-only", "--shared=1", "--socket="+socket, at)...)
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.run(t, "nbdcopy", "--connections=1", "nbd+unix:///?socket="+socket, filepath.Join(dir, "through qemu-nbd"))
	c.same(filepath.Join(dir, "through qemu-nbd"))
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// writes changes the free part and puts it back.
func (c cell) writes() {
	t := c.t
	c.qemu("qemu-io", "-d", "unmap", "-c", "write -P 1 12M 1M", "-c", "write -f -P 2 13M 64k", "-c", "write -z 12M 4k", "-c", "write -z -u 12292k 64k", "-c", "discard 14M 1M",
		"-c", "flush", "-c", "read -P 0 12M 68k", "-c", "read -P 1 12356k 100k", "-c", "read -P 2 13M 64k", "-c", "write -z 12M 8M", "-c", "read -P 0 12M 8M", "DISK")
	c.shell(t, "h.set_uri_allow_local_file(True)", fmt.Sprintf("h.connect_uri(%q)", c.uri(c.export)),
		"h.pwrite(b'x' * 70001, 12582913, nbd.CMD_FLAG_FUA)", "h.zero(4096, 12586000, nbd.CMD_FLAG_NO_HOLE)", "h.zero(65536, 12648448, nbd.CMD_FLAG_FAST_ZERO)",
		"b = h.pread(70001, 12582913)", "assert b == b'x' * 3087 + bytes(4096) + b'x' * (65535 - 7183) + bytes(70001 - 65535), b[:10]",
		"h.trim(1048576, 13631488)", "h.cache(1048576, 0)", "h.zero(8388608, 12582912)", "h.flush()", "h.shutdown()")
	if c.root == "" && c.door.name != "tls" { // fio lets no URI name a folder of certificates
		out := c.run(t, "fio", "--name=j", "--ioengine=nbd", "--uri="+c.uri(c.export), "--thread=1", fmt.Sprintf("--offset=%d", free), fmt.Sprintf("--size=%d", freeSize),
			"--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--fsync=16", "--verify_state_save=0", "--group_reporting")
		if strings.Contains(out, "bad ") {
			t.Errorf("fio: %s", out)
		}
		c.qemu("qemu-io", "-c", "write -z 12M 8M", "DISK")
	}
	if c.kind.name == "overlay" { // a disk that stays: write all of it, and read it back
		other := filepath.Join(t.TempDir(), "other.raw")
		if err := os.WriteFile(other, append(append([]byte{}, c.data[free:]...), c.data[:free]...), 0o600); err != nil {
			t.Fatal(err)
		}
		c.run(t, "nbdcopy", "--connections=4", "--flush", other, c.uri(c.export))
		c.qemu("qemu-img", "compare", "DISK", other)
		c.run(t, "nbdcopy", "--allocated", "--flush", c.raw, c.uri(c.export))
		c.qemu("qemu-img", "compare", "DISK", c.raw)
	}
}
