// Command platter is the command line of Platter: a client of a gateway's
// API, and tools that look at image files without one.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv,
		tty: term.IsTerminal(int(os.Stderr.Fd())), ttyOut: term.IsTerminal(int(os.Stdout.Fd())),
	})
	stop()
	os.Exit(code)
}

// streams is what the program has of the outside world.
type streams struct {
	in          io.Reader
	out, err    io.Writer
	env         func(string) string
	tty, ttyOut bool // whether err and out are terminals
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	app := newApp(s)
	err := app.RunContext(ctx, hoist(app, args))
	return report(s, err)
}
