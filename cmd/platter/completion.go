package main

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const completionHelp = `Prints a script that completes commands, flags, their values, and the names of
images, overlays, attachments and tasks in your shell.

   bash   source <(platter completion bash)
   zsh    source <(platter completion zsh)
   fish   platter completion fish | source

Put the line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish.`

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "print a completion script for a shell",
		Category:    "Help",
		ArgsUsage:   "bash|zsh|fish",
		Description: completionHelp,
		Action:      p.completion,
	}
}

// completeWord is the word that a script begins with to ask what may stand in
// place of the last word. It is no command, so that it shows nowhere.
const completeWord = "__complete"

const bashCompletion = `_platter() {
  local cur="${COMP_WORDS[COMP_CWORD]}" IFS=$'\n'
  COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _platter platter
`

const zshCompletion = `_platter() {
  local -a found
  found=("${(@f)$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then
    compadd -a found
  else
    _files
  fi
}
compdef _platter platter
`

const fishCompletion = `function __platter_words
  set -l words (commandline -opc)
  set -e words[1]
  set -l current (commandline -ct)
  platter __complete $words "$current" 2>/dev/null
end
complete -c platter -a '(__platter_words)'
`

func (p *program) completion(c *cli.Context) error {
	shell, err := one(c, "shell: bash, zsh or fish")
	if err != nil {
		return err
	}
	script := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[shell]
	if script == "" {
		return usagef("there is no completion for %q; there are bash, zsh and fish", shell)
	}
	_, err = fmt.Fprint(p.out, script)
	return err
}

// A completer knows where in a command line a word stands.
type completer struct {
	app      *cli.App
	command  *cli.Command   // nil: of the program itself
	commands []*cli.Command // what may follow; nil behind an argument
	flag     cli.Flag       // whose value comes next
	args     int            // arguments of the command so far
	set      map[string]string
}

// complete prints what the last of the words may become, one to a line.
func (p *program) complete(ctx context.Context, app *cli.App, words []string) {
	if len(words) == 0 {
		return
	}
	at := completer{app: app, commands: app.Commands, set: map[string]string{}}
	for _, word := range words[:len(words)-1] {
		at.pass(word)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // somebody waits for the cursor
	defer cancel()
	current := words[len(words)-1]
	for word := range p.candidates(ctx, at, current) {
		if strings.HasPrefix(word, current) {
			fmt.Fprintln(p.out, word)
		}
	}
}

// pass goes over one word.
func (at *completer) pass(word string) {
	switch {
	case word == "=": // bash makes a word of it
	case at.flag != nil:
		at.set[at.flag.Names()[0]] = word
		at.flag = nil
	case len(word) > 1 && word[0] == '-':
		name, _, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if f := find(at.flags(), name); f != nil && takesValue(f) && !joined {
			at.flag = f
		}
	default:
		for _, c := range at.commands {
			if c.HasName(word) {
				at.command, at.commands = c, c.Subcommands
				return
			}
		}
		at.commands = nil
		at.args++
	}
}

// flags are those that may stand here.
func (at *completer) flags() []cli.Flag {
	if at.command == nil {
		return at.app.Flags
	}
	return append(at.command.Flags[:len(at.command.Flags):len(at.command.Flags)], at.app.Flags...)
}

// candidates yields what may stand here.
func (p *program) candidates(ctx context.Context, at completer, current string) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch {
		case at.flag != nil:
			p.values(ctx, at, yield)
		case strings.HasPrefix(current, "-"):
			for _, f := range at.flags() {
				if name := f.Names()[0]; len(name) > 1 && !yield("--"+name) {
					return
				}
			}
			yield("--help")
		case len(at.commands) > 0:
			for _, c := range at.commands {
				if !c.Hidden && !yield(c.Name) {
					return
				}
			}
		case at.command != nil:
			p.arguments(ctx, at, yield)
		}
	}
}

// values yields the values of a flag.
func (p *program) values(ctx context.Context, at completer, yield func(string) bool) {
	name := at.flag.Names()[0]
	var words []string
	switch name {
	case "format":
		words = []string{"table", "json", "yaml", "value"}
		if at.command.Name == "check" {
			words = declarable()
		}
	case "disk-format":
		words = declarable()
	case "mode":
		words = []string{"ro", "rw", "ephemeral"}
	case "transport":
		words = []string{"unix", "tcp", "tls"}
	case "print":
		words = []string{"qemu", "libvirt", "uri", "nbd-client"}
	case "device":
		words = []string{"auto"}
	case "to", "as", "from", "from2":
		words = []string{"raw", "qcow2"}
	case "compression":
		words = []string{"zlib", "zstd"}
	case "visibility":
		words = []string{"private", "shared", "community", "public"}
	case "image", "overlay":
		p.named(ctx, at, name, "", yield)
	}
	for _, word := range words {
		if !yield(word) {
			return
		}
	}
}

// arguments yields what may be the command's next argument. Where that is a
// file, the shell knows better.
func (p *program) arguments(ctx context.Context, at completer, yield func(string) bool) {
	usage := strings.Fields(at.command.ArgsUsage)
	if len(usage) == 0 {
		return
	}
	what := usage[min(at.args, len(usage)-1)]
	if at.args >= len(usage) && !strings.HasSuffix(what, "...") {
		return
	}
	switch what = strings.TrimSuffix(what, "..."); what {
	case "IMAGE", "OVERLAY", "ATTACHMENT", "TASK":
		p.named(ctx, at, strings.ToLower(what), "", yield)
	case "ATTACHMENT|DEVICE":
		p.named(ctx, at, "attachment", "", yield)
	case "IMAGE|overlay/OVERLAY":
		p.named(ctx, at, "image", "", yield)
		p.named(ctx, at, "overlay", "overlay/", yield)
	case "bash|zsh|fish":
		for word := range strings.SplitSeq(what, "|") {
			yield(word)
		}
	}
}

// named yields the names of what the gateway has, or ids where there is no
// name. A name that a shell could take for more than a word is not offered.
func (p *program) named(ctx context.Context, at completer, kind, prefix string, yield func(string) bool) {
	cl, err := p.reach(ctx, at.set["url"], at.set["token"])
	if err != nil {
		return
	}
	list := map[string]func(context.Context, url.Values) iter.Seq2[client.Record, error]{
		"image": cl.Images, "overlay": cl.Overlays, "attachment": cl.Attachments, "task": cl.Tasks,
	}[kind]
	plain := regexp.MustCompile(`^[A-Za-z0-9._+][A-Za-z0-9._+-]*$`)
	for r, err := range list(ctx, url.Values{"limit": {"1000"}}) {
		word := r.Text("name")
		if !plain.MatchString(word) {
			word = r.ID()
		}
		if err != nil || !yield(prefix+word) {
			return
		}
	}
}
