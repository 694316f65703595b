package policy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A Config says where the rules come from. Its zero value is the defaults.
type Config struct {
	File     string       // a policy file, YAML or JSON; "": the defaults
	AnyScope bool         // tokens for a domain or the system may use all rules
	Logger   *slog.Logger // hears what is odd in the file; nil is silence
}

// An Engine is a [wire.Policy] that asks rules.
type Engine struct {
	cfg   Config
	rules atomic.Pointer[ruleset]
	spare sync.Pool // of *env: a list asks once for each image
}

// New builds an Engine. The error says every mistake of the file, each with
// its line.
func New(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg}
	return e, e.Reload()
}

// Reload reads the file again. If it has mistakes, the rules stay as they are.
func (e *Engine) Reload() error {
	var file []fileRule
	if e.cfg.File != "" {
		var err error
		if file, err = readFile(e.cfg.File); err != nil {
			return fmt.Errorf("policy file %s: %w", e.cfg.File, err)
		}
	}
	set, err := compile(Rules(), file)
	if err != nil {
		return fmt.Errorf("policy file %s: %w", e.cfg.File, err)
	}
	for _, w := range set.warnings {
		e.cfg.Logger.Warn("policy file: "+w, "file", e.cfg.File)
	}
	e.rules.Store(set)
	return nil
}

// Allow tells whether who may do what rule names to target; the error of a
// refusal has status 403. A rule that is not defined lets nobody in.
func (e *Engine) Allow(_ context.Context, who wire.Identity, rule string, target wire.Target) error {
	entry := e.rules.Load().entries[rule]
	if entry == nil {
		return refusal(rule)
	}
	if !e.inScope(&who, entry) {
		return entry.denied
	}
	q, _ := e.spare.Get().(*env)
	if q == nil {
		q = new(env)
	}
	q.who, q.target = who, target
	ok := entry.check.holds(q)
	*q = env{} // it must not keep what it was asked about
	e.spare.Put(q)
	if !ok {
		return entry.denied
	}
	return nil
}

// inScope tells whether a token of this scope may use the rule. Glance's rules
// are all for projects.
func (e *Engine) inScope(who *wire.Identity, entry *entry) bool {
	return e.cfg.AnyScope || entry.rule.AnyScope || entry.rule.Calls == nil || who.SystemScope == "" && who.DomainID == ""
}

func refusal(rule string) error {
	return wire.Errorf(http.StatusForbidden, "You may not do this: the policy rule %q does not allow it to you.", rule)
}

// An Effective rule is one in force.
type Effective struct {
	Rule
	Text string // the rule as it is
	Line int    // where in the file it is; 0: it is the default
}

// Effective returns the rules in force: those that operations ask in the order
// of the documentation, then those of the file's own.
func (e *Engine) Effective() []Effective {
	set := e.rules.Load()
	var out []Effective
	known := map[string]bool{}
	add := func(e *entry) { out = append(out, Effective{e.rule, e.text, e.line}) }
	for _, r := range Rules() {
		known[r.Name] = true
		add(set.entries[r.Name])
	}
	for _, entry := range set.sorted() {
		if !known[entry.rule.Name] {
			add(entry)
		}
	}
	return out
}
