package main

import (
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/spelling"
)

const description = `Platter serves VM images: as an OpenStack Image API, as NBD block devices,
and as files. This is its command line.

The gateway is found by --url, else PLATTER_URL, else OS_IMAGE_ENDPOINT_OVERRIDE
or OS_ENDPOINT, else in the catalog of the cloud that OS_CLOUD (clouds.yaml) or
OS_AUTH_URL names, else at http://127.0.0.1:9292. If the gateway wants a token,
that cloud's Keystone is asked for one; OS_AUTH_TYPE=none prevents it. info, map, compare, convert,
check and bench work on files of this machine as well, without a gateway.

Where a FILE or an IMAGE may stand, an image is given by its id or its name;
what exists as a file is a file. Write image:NAME or file:PATH to be sure.

First steps:

   platter doctor                                  is everything in place?
   platter image create debian --file debian.qcow2
   platter attach debian --mode ephemeral          how to boot from it

EXIT CODES:
   0  done
   1  failed; or the answer is no (compare: they differ, check: refused,
      doctor: something is wrong)
   2  wrong usage
   3  not found
   4  not allowed
   5  conflict: in use, or already there
   6  no gateway answers, or it is not ready
   7  a local file cannot be read or written, or is corrupt
 130  interrupted`

// newApp builds the command table. There is one file for every verb.
func newApp(s streams) *cli.App {
	app := &cli.App{
		// A property may have a comma in it.
		DisableSliceFlagSeparator: true,

		Name:            "platter",
		Usage:           "work with VM images and a Platter gateway",
		Description:     description,
		Version:         versionText(),
		HideHelpCommand: true,
		Suggest:         true,
		Reader:          s.in,
		Writer:          s.out,
		ErrWriter:       s.err,
		Flags:           connectFlags(),
		ExitErrHandler:  func(*cli.Context, error) {}, // report does it
		OnUsageError:    usageError,
	}
	p := &program{streams: s}
	app.Commands = []*cli.Command{
		p.imageCommand(), p.memberCommand(), p.taskCommand(), p.mdCommand(),
		p.overlayCommand(), p.attachCommand(), p.attachmentCommand(), p.detachCommand(), p.captureCommand(),
		p.infoCommand(), p.mapCommand(), p.compareCommand(), p.convertCommand(), p.checkCommand(),
		p.benchCommand(), p.storeCommand(), p.cacheCommand(), p.nbdCommand(), p.doctorCommand(), p.migrateCommand(), p.completionCommand(),
	}
	app.Commands = append(app.Commands, notBuilt()...)
	app.Action = p.groupAction
	for _, c := range app.Commands {
		p.prepare(c)
	}
	return app
}

// A program is what the commands have in common.
type program struct {
	streams
}

// prepare gives a command what the library does not inherit.
func (p *program) prepare(c *cli.Command) {
	c.OnUsageError = usageError
	c.HideHelpCommand = true
	if find(c.Flags, "column") != nil {
		c.Before = checkFormat // before anything is created
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = p.groupAction
	}
	for _, sub := range c.Subcommands {
		p.prepare(sub)
	}
}

// groupAction is what a word does that only leads to others: help, or an
// error where the next word is not one of them.
func (p *program) groupAction(c *cli.Context) error {
	if !c.Args().Present() {
		if c.Command.Name == "" || c.App.Name == c.Command.Name {
			return cli.ShowAppHelp(c)
		}
		return cli.ShowSubcommandHelp(c)
	}
	return unknownCommand(c)
}

// usageError makes the library's complaint one of ours.
func usageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if m := regexp.MustCompile(`^invalid value "(.*)" for flag -+(\S+): parse error$`).FindStringSubmatch(text); m != nil {
		return usagef("--%s takes a whole number, not %q", m[2], m[1])
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: "); ok {
		return usagef("--%s takes a value", strings.TrimLeft(name, "-"))
	}
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: -")
	if !unknown {
		return &usage{msg: text}
	}
	name = strings.TrimLeft(name, "-")
	var names []string
	for _, f := range slices.Concat(c.App.Flags, c.Command.Flags) {
		names = append(names, f.Names()...)
	}
	names = slices.DeleteFunc(names, func(s string) bool { return len(s) < 2 })
	if near := spelling.Nearest(name, names); near != "" {
		return usagef("there is no flag --%s; did you mean --%s?", name, near)
	}
	return hint(usagef("there is no flag --%s", name),
		"add --help to see which there are; write -- before a name that begins with a dash")
}

// version is set by the linker.
var version = ""

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
