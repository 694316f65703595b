package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/seed-478a8fee/platter/api"
	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
	"github.com/seed-478a8fee/platter/cmd/platterd/exports"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"platter": main})
}

// TestScripts runs sentences that a person would type against a gateway that
// lives in this process: the real handlers on a catalog and a store in memory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			g, err := startGateway(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(g.stop)
			env.Setenv("PLATTER_URL", g.url)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a second for each command, otherwise
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mkdisk": mkdisk, "setenvout": setenvout, "nbdopen": nbdopen},
	})
}

// mkdisk NAME SIZE [OFFSET:LENGTH]... writes a raw disk with some data.
func mkdisk(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	size, err := parseSize(args[1])
	ts.Check(err)
	ts.Check(f.Truncate(size))
	for _, part := range args[2:] {
		off, n, _ := strings.Cut(part, ":")
		at, err := parseSize(off)
		ts.Check(err)
		length, err := parseSize(n)
		ts.Check(err)
		_, err = f.WriteAt([]byte(strings.Repeat("platter!", int(length/8))), at)
		ts.Check(err)
	}
}

// setenvout NAME keeps the last standard output as a variable.
func setenvout(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// nbdopen EXPORT opens an export on the gateway's socket and keeps it open.
func nbdopen(ts *testscript.TestScript, _ bool, args []string) {
	c, err := nbdtest.Open("unix", ts.MkAbs(socketName), args[0])
	ts.Check(err)
	ts.Defer(func() { c.Close() })
}

// socketName is where a gateway serves NBD in its script's folder. A script that
// has a file closedName finds nobody there.
const socketName, closedName = ".nbd.sock", "closed"

type gateway struct {
	url    string
	nbd    *nbd.Server
	server *httptest.Server
	cat    *catalog.Catalog
	own    *platter.Server
	imp    *importer.Importer
	exp    *exports.Exports
	end    context.CancelFunc
	ended  chan struct{}
}

func startGateway(dir string) (*gateway, error) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{end: cancel, ended: make(chan struct{})}
	cat, err := catalog.Open(ctx, memkv.New(), catalog.Config{GatewayID: "test"})
	if err != nil {
		return nil, err
	}
	g.cat = cat
	stores := map[string]backends.Store{"local": mem.New(), "other": mem.New()}
	in, err := ingest.New(ingest.Config{Catalog: cat, Stores: stores, DefaultStore: "local", GatewayID: "test"})
	if err != nil {
		return nil, err
	}
	g.exp, err = exports.New(exports.Config{Catalog: cat, Stores: stores, Opener: disk.New(disk.Config{}), Ingest: in,
		DataDir: filepath.Join(dir, ".data"), GatewayID: "test", Socket: filepath.Join(dir, socketName), TCP: "127.0.0.1:10809"})
	if err != nil {
		return nil, err
	}
	if g.nbd, err = nbd.New(nbd.Config{Exports: g.exp}); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, closedName)); err != nil {
		l, err := net.Listen("unix", filepath.Join(dir, socketName))
		if err != nil {
			return nil, err
		}
		go func() { _ = g.nbd.Serve(ctx, exports.Peers(l)) }()
	}
	if err := g.exp.Recover(ctx); err != nil {
		return nil, err
	}
	go func() {
		defer close(g.ended)
		_ = g.exp.Run(ctx)
	}()
	if g.own, err = platter.New(platter.Config{Catalog: cat, Overlays: g.exp, Attachments: g.exp, Disks: g.exp, Conns: exports.Conns{Server: g.nbd}}); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	g.server = httptest.NewServer(mux)
	g.imp = importer.New(importer.Config{Catalog: cat, Bytes: in, GatewayID: "test", Staging: mem.New()})
	image, err := api.New(api.Config{Catalog: cat, Data: in, Platter: g.own, Importer: g.imp, DefaultStore: "local",
		Stores: []api.Store{{ID: "local", Default: true}, {ID: "other"}}, Listen: g.server.Listener.Addr().String()})
	if err != nil {
		return nil, err
	}
	mux.Handle("/", image)
	g.url = g.server.URL
	return g, nil
}

func (g *gateway) stop() {
	g.end()
	<-g.ended
	g.server.Close()
	_ = g.nbd.Shutdown(context.Background())
	g.imp.Close()
	_ = g.exp.Close()
	_ = g.cat.Close()
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "512": 512, "1K": 1024, "20G": 20 << 30, "20GiB": 20 << 30, "1.5M": 3 << 19, "2tb": 2 << 40} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "G", "-1", "10X", "1KK", "9E9", "99999999999E", "1 G"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d", s, got)
		}
	}
}

func TestHoist(t *testing.T) {
	app := newApp(streams{env: os.Getenv})
	for in, want := range map[string]string{
		"attach debian --mode ro":                  "attach --mode ro debian",
		"image show x -f json --url u":             "--url u image show -f json x",
		"image show -- -x":                         "image show -- -x",
		"convert in out --to=raw -c":               "convert --to=raw -c in out",
		"image save x -":                           "image save x -",
		"image set x --property a=b --property c=": "image set --property a=b --property c= x",
		"image list image":                         "image list image",
		"nosuch --flag x":                          "--flag nosuch x",
	} {
		got := strings.Join(hoist(app, append([]string{"platter"}, strings.Fields(in)...)), " ")
		if in == "nosuch --flag x" {
			continue // whatever it is, it is an error
		}
		if got != "platter "+want {
			t.Errorf("hoist(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestYAMLText(t *testing.T) {
	for in, want := range map[string]string{
		"debian": "debian", "yes": `"yes"`, "": `""`, "12": `"12"`, "a: b": `"a: b"`, "# x": `"# x"`,
		"2024-01-01T00:00:00Z": `"2024-01-01T00:00:00Z"`, "a\nb": `"a\nb"`, "null": `"null"`, "Debian GNU/Linux": "Debian GNU/Linux", "a ": `"a "`,
	} {
		if got := yamlText(in); got != want {
			t.Errorf("yamlText(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10 << 30: "10 GiB", -1: ""} {
		if got := human(n); got != want {
			t.Errorf("human(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31mb\x07ü\n"); strings.ContainsAny(got, "\x1b\x07\n") || !strings.Contains(got, "ü") {
		t.Errorf("printable: %q", got)
	}
}

func TestProgressLine(t *testing.T) {
	g := &progress{verb: "uploading", tty: true}
	g.set(50<<20, 100<<20)
	if line := g.line(); !strings.Contains(line, "[===============               ]  50%  50 MiB of 100 MiB") {
		t.Errorf("line: %s", line)
	}
	g.set(50<<20, -1)
	if line := g.line(); !strings.HasPrefix(line, "uploading 50 MiB") {
		t.Errorf("line: %s", line)
	}
}

// TestObjectOrder keeps JSON in the order of the columns, which people chose.
func TestObjectOrder(t *testing.T) {
	out, err := json.Marshal(object{{"z", 1}, {"a", "x"}})
	if err != nil || string(out) != `{"z":1,"a":"x"}` {
		t.Errorf("%s, %v", out, err)
	}
}

// TestExitCodesInHelp keeps the table in the help true.
func TestExitCodesInHelp(t *testing.T) {
	for code, word := range map[int]string{exitOK: "done", exitFailed: "failed", exitUsage: "wrong usage", exitNotFound: "not found",
		exitNotAllowed: "not allowed", exitConflict: "conflict", exitNoGateway: "no gateway", exitFile: "a local file", exitInterrupted: "interrupted"} {
		if !strings.Contains(description, strconv.Itoa(code)+"  "+word) {
			t.Errorf("the help does not explain exit code %d", code)
		}
	}
}

// TestEveryCommandHasHelp wants a text for everybody who asks.
func TestEveryCommandHasHelp(t *testing.T) {
	app := newApp(streams{env: os.Getenv})
	for _, c := range app.Commands {
		if c.Usage == "" || !c.Hidden && c.Description == "" && len(c.Subcommands) == 0 {
			t.Errorf("%s has no help", c.Name)
		}
		for _, sub := range c.Subcommands {
			if sub.Usage == "" {
				t.Errorf("%s %s has no help", c.Name, sub.Name)
			}
		}
	}
}
