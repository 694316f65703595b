// Command platter is the command line of Platter: a client of a gateway's
// API, and tools that look at image files without one.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := untilInterrupted()
	code := run(ctx, os.Args, streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv,
		tty: term.IsTerminal(int(os.Stderr.Fd())), ttyOut: term.IsTerminal(int(os.Stdout.Fd())),
	})
	stop()
	os.Exit(code)
}

// untilInterrupted ends its context with the first signal, so that what is
// half done can be undone; the second one ends the program as it is. What the
// caller had ignored, as nohup does, is still ignored.
func untilInterrupted() (context.Context, context.CancelFunc) {
	var heard []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			heard = append(heard, s)
		}
	}
	if len(heard) == 0 { // none would mean all
		return context.WithCancel(context.Background())
	}
	ctx, stop := signal.NotifyContext(context.Background(), heard...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
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
	if len(args) > 1 && args[1] == completeWord {
		(&program{s}).complete(ctx, app, args[2:])
		return exitOK
	}
	err := app.RunContext(ctx, hoist(app, args))
	if err != nil && ctx.Err() != nil {
		err = &hinted{err: errors.New("interrupted"), hint: hintFor(err), code: exitInterrupted}
	}
	return report(s, err)
}
