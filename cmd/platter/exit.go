package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
	"github.com/seed-478a8fee/platter/cmd/platter/cloud"
	"github.com/seed-478a8fee/platter/cmd/spelling"
)

// The exit codes. They are part of the help text.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitNotAllowed
	exitConflict
	exitNoGateway
	exitFile

	exitInterrupted = 130 // as a shell says it
)

// A usage error is the caller's: the command line makes no sense.
type usage struct{ msg string }

func (u *usage) Error() string { return u.msg }

func usagef(format string, args ...any) error { return &usage{fmt.Sprintf(format, args...)} }

// A hinted error carries what to do next, and a code of its own if it is not
// that of the error inside.
type hinted struct {
	err  error
	hint string
	code int
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func hint(err error, format string, args ...any) error {
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// fileError is an error of a file on this machine.
func fileError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.Canceled) {
		return err
	}
	return &hinted{err: err, code: exitFile, hint: hintFor(err)}
}

// errNo is the error of a question whose answer, already printed, is no, and
// of what has been reported already.
var errNo = errors.New("no")

// report prints an error, with what it is about and what to do, and returns
// the exit code.
func report(s streams, err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errNo) {
		return exitCode(err)
	}
	fmt.Fprintf(s.err, "platter: %s\n", strings.TrimSpace(err.Error()))
	var answer *client.Error
	if errors.As(err, &answer) && answer.RequestID != "" {
		fmt.Fprintf(s.err, "request id: %s\n", answer.RequestID)
	}
	if text := hintFor(err); text != "" {
		fmt.Fprintf(s.err, "hint: %s\n", text)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var u *usage
	var h *hinted
	var unreached *client.UnreachedError
	var answer *client.Error
	var refused *cloud.RefusedError
	switch {
	case errors.As(err, &u):
		return exitUsage
	case errors.As(err, &h) && h.code != 0:
		return h.code
	case h != nil:
		return exitCode(h.err)
	case errors.As(err, &refused):
		return exitNotAllowed
	case errors.As(err, &unreached):
		return exitNoGateway
	case errors.As(err, &answer) && answer.Status == http.StatusServiceUnavailable:
		return exitNoGateway
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, fs.ErrPermission):
		return exitNotAllowed
	case errors.Is(err, fs.ErrExist):
		return exitConflict
	}
	return exitFailed
}

// hintFor says what to do next, if the error does not say it itself.
func hintFor(err error) string {
	var h *hinted
	var unreached *client.UnreachedError
	var answer *client.Error
	var missing *client.MissingError
	var u *usage
	switch {
	case errors.As(err, &h) && h.hint != "":
		return h.hint
	case errors.As(err, &u):
		return "add --help to see how it is used"
	case errors.As(err, &unreached):
		return "start a gateway with platterd, or say where it is with --url or PLATTER_URL; platter doctor looks closer"
	case errors.As(err, &answer):
		return hintForStatus(answer)
	case errors.As(err, &missing):
		return fmt.Sprintf("platter %s list shows what there is", missing.Kind)
	}
	return ""
}

func hintForStatus(answer *client.Error) string {
	switch answer.Status {
	case http.StatusConflict:
		return hintForConflict(answer.Message)
	case http.StatusUnauthorized:
		return "the gateway wants a token: set OS_CLOUD, or OS_AUTH_URL with a user and password, or give one with --token or OS_TOKEN"
	case http.StatusRequestEntityTooLarge:
		return "make room or raise the limit on the gateway; platter doctor shows the disk"
	case http.StatusServiceUnavailable:
		return "the catalog or a store is away: try again in a few seconds; platter doctor looks closer"
	case http.StatusInternalServerError, http.StatusBadGateway:
		return "the gateway's log has the cause under the request id"
	}
	return ""
}

// hintForConflict names the verbs that end a conflict. The gateway speaks to
// programs, too, and cannot.
func hintForConflict(message string) string {
	switch {
	case strings.Contains(message, "attachment "):
		return "platter attachment list shows the attachments, platter detach ends one"
	case strings.Contains(message, "overlay "):
		return "platter overlay list shows the overlays, platter overlay delete deletes one and what was written to it"
	case strings.Contains(message, "deactivated"):
		return "platter image activate makes an image usable again"
	}
	return ""
}

// unknownCommand answers for a word that is no command.
func unknownCommand(c *cli.Context) error {
	word := c.Args().First()
	commands := c.App.Commands
	path := "platter"
	if c.Command != nil && len(c.Command.Subcommands) > 0 {
		commands, path = c.Command.Subcommands, c.Command.HelpName
	}
	var names []string
	for _, cmd := range commands {
		if !cmd.Hidden {
			names = append(names, cmd.Name)
		}
	}
	msg := fmt.Sprintf("%s has no command %q", path, word)
	if near := spelling.Nearest(word, names); near != "" {
		msg += fmt.Sprintf("; did you mean %q?", near)
	}
	return hint(&usage{msg}, "there are: %s", strings.Join(names, ", "))
}
