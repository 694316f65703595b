// Command platterd serves VM images over HTTP, as NBD exports and as files.
//
// With no configuration at all it keeps everything in one data directory,
// with an embedded etcd, and listens on loopback only. See "platterd --help".
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// version is set by the linker.
var version = "unknown"

const description = `platterd serves VM images: a Glance v2 API over a catalog in etcd, and the very
same images, unconverted, as NBD exports and as a tree of files.

Without a configuration it uses an embedded etcd and a file store in the data
directory and listens on loopback only, without authentication. Every key of
the configuration file can also come from PLATTER_SECTION_KEY; flags win.
"off" as an address, socket or mount switches that door off.

SIGTERM stops it when requests in flight have ended. SIGHUP reads certificates
again, which also happens when their files change, and the policy file. SIGUSR2 starts the program
anew with --takeover: the new process gets the sockets and the NBD clients.

Exit codes: 0 stopped as asked or taken over, 1 something failed, 2 wrong usage or
configuration.`

// flagPaths says which key of the configuration each flag sets.
var flagPaths = map[string]string{
	"data-dir":     "data_dir",
	"api-listen":   "api.listen",
	"nbd-listen":   "nbd.listen",
	"nbd-socket":   "nbd.socket",
	"mount":        "fuse.mount",
	"debug-listen": "debug.listen",
	"etcd":         "catalog.etcd",
	"auth":         "auth.mode",
	"log-level":    "log_level",
	"log-format":   "log_format",
}

// sameWish is for how long after a signal another one says nothing new.
const sameWish = time.Second

func main() {
	os.Exit(exitCode(newApp().Run(os.Args)))
}

func newApp() *cli.App {
	return &cli.App{
		Name:            "platterd",
		Usage:           "serve VM images over HTTP, NBD and FUSE",
		Description:     description,
		Version:         version,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE` (TOML)", EnvVars: []string{"PLATTER_CONFIG"}},
			&cli.StringFlag{Name: "data-dir", Usage: "keep everything in `DIR` (default /var/lib/platter)"},
			&cli.StringFlag{Name: "api-listen", Usage: "serve the API on `ADDR` (default 127.0.0.1:9292)"},
			&cli.StringFlag{Name: "nbd-listen", Usage: "serve NBD on `ADDR` (default 127.0.0.1:10809)"},
			&cli.StringFlag{Name: "nbd-socket", Usage: "serve NBD on the unix socket `PATH` (default DATA/nbd.sock)"},
			&cli.StringFlag{Name: "mount", Usage: "show the images as files in `DIR` (default DATA/mnt)"},
			&cli.StringFlag{Name: "debug-listen", Usage: "serve metrics and profiles on `ADDR` (default 127.0.0.1:9293)"},
			&cli.StringFlag{Name: "etcd", Usage: "keep the catalog in the etcd at `URL,...` (default: embedded)"},
			&cli.StringFlag{Name: "auth", Usage: "check who is asking with `MODE` none or keystone (default none)"},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` debug, info, warn or error (default info)"},
			&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT` text or json (default text)"},
			&cli.BoolFlag{Name: "takeover", Usage: "take the place of the platterd that runs on the data directory: its sockets and its NBD clients, who feel a pause"},
		},
		Action:   serve,
		Commands: commands(),
	}
}

// usageError is a mistake of who typed the command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, errNo) {
		return 3
	}
	fmt.Fprintf(os.Stderr, "platterd: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// load reads the configuration that the flags of c ask for.
func load(c *cli.Context) (*config.Config, error) {
	src := config.Sources{File: c.String("config"), Env: os.Environ(), Flags: map[string]string{}}
	for flag, path := range flagPaths {
		if c.IsSet(flag) {
			src.Flags[path] = c.String(flag)
		}
	}
	cfg, err := config.Load(src)
	if err != nil {
		return nil, usageError{fmt.Errorf("the configuration has mistakes:\n%w", err)}
	}
	return cfg, nil
}

// serve is platterd without a command: it serves until it is told to stop.
func serve(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Errorf("no command %q; see platterd --help", c.Args().First())}
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: a while after the first one
	// the default behaviour is back. One that comes right behind is the same
	// wish, by somebody between: make tells its children what its group was told.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameWish, stop) })
	return run(ctx, cfg, newLogger(cfg, os.Stderr), c.Bool("takeover"))
}
