package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

const completionHelp = `Prints a script that completes commands and flags in your shell.

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
		BashComplete: func(*cli.Context) {
			fmt.Fprintln(p.out, "bash\nzsh\nfish")
		},
		Action: p.completion,
	}
}

const bashCompletion = `_platter() {
  local cur="${COMP_WORDS[COMP_CWORD]}" words
  local ask=("${COMP_WORDS[@]:0:COMP_CWORD}")
  case "$cur" in -*) ask+=("$cur") ;; esac
  words=$("${ask[@]}" --generate-bash-completion 2>/dev/null)
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _platter platter
`

const zshCompletion = `_platter() {
  local -a words_found ask
  local cur=${words[CURRENT]}
  ask=(${words[1,CURRENT-1]})
  [[ "$cur" == -* ]] && ask+=("$cur")
  words_found=("${(@f)$(_CLI_ZSH_AUTOCOMPLETE_HACK=1 ${ask} --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${words_found[1]}" ]]; then
    _describe 'platter' words_found
  else
    _files
  fi
}
compdef _platter platter
`

func (p *program) completion(c *cli.Context) error {
	shell, err := one(c, "shell: bash, zsh or fish")
	if err != nil {
		return err
	}
	script := ""
	switch shell {
	case "bash":
		script = bashCompletion
	case "zsh":
		script = zshCompletion
	case "fish":
		if script, err = c.App.ToFishCompletion(); err != nil {
			return err
		}
	default:
		return usagef("there is no completion for %q; there are bash, zsh and fish", shell)
	}
	_, err = fmt.Fprint(p.out, script)
	return err
}
