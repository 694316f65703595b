package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// policyRules are the policy of a gateway, which may be read again while it runs.
type policyRules struct {
	*policy.Engine
	protect *protect.Rules // nil: properties are not protected
	log     *slog.Logger

	mu  sync.Mutex
	err error // why the file could not be read again
}

func openPolicy(cfg *config.Config, log *slog.Logger) (*policyRules, error) {
	engine, err := policy.New(policy.Config{File: cfg.Policy.File, AnyScope: cfg.Policy.AnyScope, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("policy.file: %w", err)
	}
	rules := &policyRules{Engine: engine, log: log}
	if file := cfg.Policy.PropertyProtectionFile; file != "" {
		policies := cfg.Policy.PropertyProtectionFormat == "policies"
		if rules.protect, err = protect.Open(protect.Config{File: file, Policies: policies, Policy: engine}); err != nil {
			return nil, fmt.Errorf("policy.property_protection_file: %w", err)
		}
	}
	return rules, nil
}

// reload reads the file again. A file with mistakes changes nothing.
func (r *policyRules) reload() {
	if r == nil { // the API is off
		return
	}
	err := r.Reload()
	if err != nil {
		r.log.Error("the policy file was not read again; the rules from before are in force", "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// ailing says what is wrong, or "".
func (r *policyRules) ailing() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return ""
	}
	return "the rules from before are in force: " + r.err.Error()
}

func policyCommand() *cli.Command {
	return &cli.Command{
		Name: "policy", Usage: "show the policy rules in force, or ask one",
		Description: "Prints every rule as it is in force, as a policy file (YAML): what is not in\npolicy.file is a default, and stands there as a comment.\n\nExit codes: 0 shown, 1 something failed, 2 wrong usage, or mistakes in the policy file.",
		Action:      showPolicy,
		Subcommands: []*cli.Command{{
			Name: "check", Usage: "say whether somebody may do something, and why", ArgsUsage: "RULE [IMAGE]",
			Description: "Asks RULE for a token of this user, project and roles. With IMAGE it is asked\nabout that image, which is read from the catalog (the gateway may run\nmeanwhile); without, about something that belongs to the project itself.\nRoles are as in the token: Keystone puts implied roles in, so an administrator\nusually has --roles admin,member,reader.\n\nExit codes: 0 yes, 3 no, 1 something failed, 2 wrong usage, or mistakes in the\npolicy file.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "user", Usage: "the user `ID`"},
				&cli.StringFlag{Name: "project", Usage: "the `ID` of the project that the token is for"},
				&cli.StringFlag{Name: "domain", Usage: "the `ID` of the domain that the token is for, instead"},
				&cli.BoolFlag{Name: "system", Usage: "the token is for the whole system, instead"},
				&cli.StringFlag{Name: "roles", Usage: "the `ROLES` of the token, with commas between them"},
				&cli.StringFlag{Name: "service-roles", Usage: "the `ROLES` of the service token that comes along, if one does"},
			},
			Action: checkPolicy,
		}},
	}
}

// openRules reads the configuration and the policy file for a command.
func openRules(c *cli.Context) (*config.Config, *policyRules, error) {
	cfg, err := load(c)
	if err != nil {
		return nil, nil, err
	}
	r, err := openPolicy(cfg, newLogger(cfg, os.Stderr))
	if err != nil {
		return nil, nil, usageError{err}
	}
	return cfg, r, nil
}

func showPolicy(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Errorf("no command %q; see platterd policy --help", c.Args().First())}
	}
	cfg, r, err := openRules(c)
	if err != nil {
		return err
	}
	from := cmp.Or(cfg.Policy.File, "no policy file")
	fmt.Fprintf(c.App.Writer, "# The policy rules in force (%s). A rule after a # is the default.\n", from)
	for _, e := range r.Effective() {
		writeRule(c.App.Writer, e)
	}
	return nil
}

// writeRule writes a rule as a policy file has it.
func writeRule(w io.Writer, e policy.Effective) {
	about := e.About
	switch {
	case e.Unused:
		about = "no operation asks this one any more"
	case about == "":
		about = "of the file's own"
	}
	fmt.Fprintf(w, "\n# %s\n", about)
	for _, call := range e.Calls {
		fmt.Fprintf(w, "#   %s\n", call)
	}
	line := yamlText(e.Name) + ": " + yamlText(e.Text)
	if e.Line == 0 {
		line = "#" + line
	}
	fmt.Fprintln(w, line)
}

// yamlText quotes a text for YAML, which takes JSON's quoting.
func yamlText(s string) string {
	if strings.ContainsAny(s, "\"\\") && !strings.ContainsAny(s, "'\n\r\t") {
		return "'" + s + "'"
	}
	return strconv.Quote(s)
}

func checkPolicy(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usageError{errors.New("policy check takes RULE and perhaps IMAGE, after the flags; see platterd policy check --help")}
	}
	who := wire.Identity{
		UserID: c.String("user"), ProjectID: c.String("project"), DomainID: c.String("domain"), Roles: words(c.String("roles")),
		Service: wire.Service{Roles: words(c.String("service-roles"))},
	}
	if c.Bool("system") {
		who.SystemScope = "all"
	}
	if scopes := len(words(who.ProjectID + "," + who.DomainID + "," + who.SystemScope)); scopes > 1 {
		return usageError{errors.New("a token is for one of --project, --domain and --system, not for several")}
	}
	cfg, r, err := openRules(c)
	if err != nil {
		return err
	}
	who.Admin = r.Allow(c.Context, who, "context_is_admin", wire.Target{}) == nil
	target := wire.Target{Kind: "image", Owner: who.ProjectID, Visibility: string(catalog.VisibilityPrivate)}
	rule, id := c.Args().Get(0), c.Args().Get(1)
	if id != "" {
		var hidden string
		if target, hidden, err = imageTarget(c.Context, cfg, who, id); err != nil {
			return err
		}
		if hidden != "" {
			fmt.Fprintf(c.App.Writer, "no: %s\n", hidden)
			return errNo
		}
	}
	d, err := r.Explain(who, rule, target)
	if err != nil {
		return usageError{err}
	}
	return tell(c.App.Writer, rule, d)
}

// errNo is the end of a check whose answer, already said, is no.
var errNo = errors.New("no")

// tell writes a decision with its reasons.
func tell(w io.Writer, rule string, d policy.Decision) error {
	answer := "no"
	if d.Allowed {
		answer = "yes"
	}
	fmt.Fprintf(w, "%s: the rule %q is %q\n", answer, rule, cmp.Or(d.Text, "@"))
	for _, line := range d.Why {
		fmt.Fprintln(w, "  "+line)
	}
	if !d.Allowed {
		return errNo
	}
	return nil
}

// words cuts at commas and leaves out what is empty.
func words(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' })
}

// imageTarget describes an image of the catalog to the policy. Of one that
// who cannot know of, hidden says so.
func imageTarget(ctx context.Context, cfg *config.Config, who wire.Identity, id string) (_ wire.Target, hidden string, err error) {
	db, err := openRecords(ctx, cfg, newLogger(cfg, io.Discard), true)
	if err != nil {
		return wire.Target{}, "", err
	}
	defer db.close()
	cat, err := catalog.Open(ctx, db.kv, catalog.Config{})
	if err != nil {
		return wire.Target{}, "", err
	}
	defer cat.Close()
	img, err := cat.Image(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no image %s in the catalog; give an id, not a name", id)
	}
	if err != nil {
		return wire.Target{}, "", err
	}
	if !cat.CanSee(catalog.Viewer{Project: who.ProjectID, Admin: who.Admin}, img) {
		return wire.Target{}, fmt.Sprintf("the image is %s and belongs to project %q: the API answers 404, whatever the rules say", img.Visibility, img.Owner), nil
	}
	member := ""
	if img.Visibility == catalog.VisibilityShared && who.ProjectID != "" && who.ProjectID != img.Owner {
		if _, err := cat.Member(ctx, id, who.ProjectID); err == nil {
			member = who.ProjectID
		}
	}
	return policy.TargetOf(&img, member), "", nil
}
