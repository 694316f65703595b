package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
	"github.com/seed-478a8fee/platter/cmd/platter/cloud"
)

const defaultURL = "http://127.0.0.1:9292"

func connectFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "url", Usage: "the gateway's `URL` (default: $PLATTER_URL, $OS_IMAGE_ENDPOINT_OVERRIDE, $OS_ENDPOINT, the cloud's catalog, or " + defaultURL + ")"},
		&cli.StringFlag{Name: "token", Usage: "a `TOKEN` to send (default: $OS_TOKEN, or from Keystone)"},
	}
}

// connect returns a client of the gateway that the flags and the environment
// mean.
func (p *program) connect(c *cli.Context) (*client.Client, error) {
	return p.reach(c.Context, c.String("url"), c.String("token"))
}

// reach returns a client of the gateway at a URL, or of the one that the
// environment means. With a cloud in the environment, the client logs in to
// that if the gateway wants a token.
func (p *program) reach(ctx context.Context, target, token string) (*client.Client, error) {
	target = cmp.Or(target, p.env("PLATTER_URL"), p.env("OS_IMAGE_ENDPOINT_OVERRIDE"), p.env("OS_ENDPOINT"))
	if token = cmp.Or(token, p.env("OS_TOKEN")); token != "" && target != "" {
		return p.client(client.Config{URL: target, Token: token})
	}
	home, err := cloud.Find(p.env)
	if err != nil {
		return nil, hint(err, "name the gateway with --url or PLATTER_URL and give a token, or set OS_AUTH_TYPE=none")
	}
	if home == nil {
		return p.client(client.Config{URL: cmp.Or(target, defaultURL), Token: token})
	}
	cfg := client.Config{URL: target, HTTP: home.HTTP(), Login: home.Token}
	if target == "" { // who has a cloud expects its catalog to be asked
		if cfg.URL, err = home.Endpoint(ctx); err != nil {
			return nil, err
		}
		if cfg.Token, err = home.Token(ctx, ""); err != nil {
			return nil, err
		}
	}
	if token != "" {
		cfg.Token, cfg.Login = token, nil
	}
	return p.client(cfg)
}

// client returns a client of the gateway at a URL, which may lack its scheme.
func (p *program) client(cfg client.Config) (*client.Client, error) {
	if !strings.Contains(cfg.URL, "://") {
		cfg.URL = "http://" + cfg.URL
	}
	cl, err := client.New(cfg)
	if err != nil {
		return nil, hint(&usage{err.Error()}, "give it with --url or PLATTER_URL")
	}
	return cl, nil
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
