package main

import (
	"cmp"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

const defaultURL = "http://127.0.0.1:9292"

func connectFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "url", Usage: "the gateway's `URL` (default: $PLATTER_URL, $OS_IMAGE_ENDPOINT_OVERRIDE, $OS_ENDPOINT or " + defaultURL + ")"},
		&cli.StringFlag{Name: "token", Usage: "a `TOKEN` to send (default: $OS_TOKEN)"},
	}
}

// connect returns a client of the gateway that the flags and the environment
// mean.
func (p *program) connect(c *cli.Context) (*client.Client, error) {
	target, err := p.endpoint(c.String("url"))
	if err != nil {
		return nil, err
	}
	return p.client(target, c.String("token"))
}

// client returns a client of the gateway at a URL, which may lack its scheme.
func (p *program) client(target, token string) (*client.Client, error) {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	cl, err := client.New(client.Config{URL: target, Token: cmp.Or(token, p.env("OS_TOKEN"))})
	if err != nil {
		return nil, hint(&usage{err.Error()}, "give it with --url or PLATTER_URL")
	}
	return cl, nil
}

// endpoint finds the gateway's URL. Who has Keystone credentials in the
// environment expects the service catalog to be asked; to go to the default
// address instead would be a surprise.
func (p *program) endpoint(flag string) (string, error) {
	if url := cmp.Or(flag, p.env("PLATTER_URL"), p.env("OS_IMAGE_ENDPOINT_OVERRIDE"), p.env("OS_ENDPOINT")); url != "" {
		return url, nil
	}
	for _, name := range []string{"OS_CLOUD", "OS_AUTH_URL"} {
		if kind := p.env("OS_AUTH_TYPE"); p.env(name) != "" && kind != "none" && kind != "admin_token" {
			return "", hint(errors.New(name+" is set, but getting a token from Keystone is not built yet"),
				"name the gateway with --url or PLATTER_URL, and a token, if it wants one, with --token or OS_TOKEN")
		}
	}
	return defaultURL, nil
}

// one returns the only argument of a command.
func one(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", usagef("%s takes one %s, not %d", c.Command.HelpName, what, c.NArg())
	}
	return c.Args().First(), nil
}

// two returns the two arguments of a command.
func two(c *cli.Context, first, second string) (string, string, error) {
	if c.NArg() != 2 {
		return "", "", usagef("%s takes %s and %s", c.Command.HelpName, first, second)
	}
	return c.Args().Get(0), c.Args().Get(1), nil
}

// image connects and finds the only argument, which is an image.
func (p *program) image(c *cli.Context) (*client.Client, client.Record, error) {
	what, err := one(c, "IMAGE")
	if err != nil {
		return nil, nil, err
	}
	cl, err := p.connect(c)
	if err != nil {
		return nil, nil, err
	}
	img, err := cl.FindImage(c.Context, what)
	return cl, img, err
}

// each does something to every argument and goes on after an error, so that
// one bad name among many does not stop the rest.
func (p *program) each(c *cli.Context, what string, do func(cl *client.Client, arg string) error) error {
	if c.NArg() == 0 {
		return usagef("%s takes at least one %s", c.Command.HelpName, what)
	}
	cl, err := p.connect(c)
	if err != nil {
		return err
	}
	code := exitOK
	for _, arg := range c.Args().Slice() {
		err := do(cl, arg)
		switch {
		case err == nil:
		case c.NArg() == 1 || c.Context.Err() != nil:
			return err
		default:
			code = cmp.Or(code, report(p.streams, err))
		}
	}
	if code != exitOK {
		return &hinted{err: errNo, code: code}
	}
	return nil
}
