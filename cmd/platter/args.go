package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// hoist moves flags before the arguments of their command, and flags of the
// program before its commands, because the library stops looking for flags at
// the first word that is none. People write "platter attach IMAGE --mode ro".
// What stands behind "--" stays.
func hoist(app *cli.App, args []string) []string {
	if len(args) < 2 {
		return args
	}
	h := hoister{global: app.Flags, commands: app.Commands, out: args[:1:1]}
	h.walk(args[1:])
	out := append(h.out, h.globals...)
	return slices.Concat(out, h.words, h.flags, h.rest)
}

type hoister struct {
	global   []cli.Flag
	commands []*cli.Command // what the next word may be
	local    []cli.Flag     // of the command found so far

	out     []string
	globals []string // flags of the program
	words   []string // the command's name
	flags   []string // its flags
	rest    []string // its arguments
}

func (h *hoister) walk(args []string) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			h.rest = append(append(h.rest, arg), args...)
			return
		case len(arg) > 1 && arg[0] == '-':
			args = h.flag(arg, args)
		case len(h.rest) == 0 && h.command(arg):
		default:
			h.rest = append(h.rest, arg)
		}
	}
}

// command goes down into the command called word, if there is one.
func (h *hoister) command(word string) bool {
	for _, c := range h.commands {
		if c.HasName(word) {
			h.words = append(append(h.words, h.flags...), word)
			h.commands, h.local, h.flags = c.Subcommands, c.Flags, nil
			return true
		}
	}
	h.commands = nil
	return false
}

// flag takes one flag with its value and returns what follows.
func (h *hoister) flag(arg string, args []string) []string {
	name, _, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	to := &h.flags
	f := find(h.local, name)
	if f == nil {
		if f = find(h.global, name); f != nil {
			to = &h.globals
		}
	}
	*to = append(*to, arg)
	if f != nil && !joined && takesValue(f) && len(args) > 0 {
		*to = append(*to, args[0])
		args = args[1:]
	}
	return args
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
