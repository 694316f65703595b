package policy

import (
	"fmt"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// A Decision is what a rule says, with the reasons.
type Decision struct {
	Allowed bool
	Text    string   // the rule
	Why     []string // one line for each check, indented as they are nested
}

// Explain asks a rule as Allow does, and tells why it answers so. A rule that
// is not defined is an error.
func (e *Engine) Explain(who wire.Identity, rule string, target wire.Target) (Decision, error) {
	entry := e.rules.Load().entries[rule]
	if entry == nil {
		return Decision{}, fmt.Errorf("there is no policy rule %q; platterd policy lists them", rule)
	}
	d := Decision{Text: entry.text}
	if !e.inScope(&who, entry) {
		scope := "domain"
		if who.SystemScope != "" {
			scope = "system"
		}
		d.Why = []string{"no   the token is for a " + scope + ", and this rule takes tokens for projects only"}
		return d, nil
	}
	env := &env{who, target}
	d.Allowed = entry.check.holds(env)
	entry.check.explain(env, 0, &d.Why)
	return d, nil
}

// maxWhy bounds an explanation, in lines.
const maxWhy = 1000

// explain writes what n and its parts answer.
func (n *node) explain(e *env, depth int, out *[]string) {
	if len(*out) >= maxWhy {
		return
	}
	word := "no "
	if n.holds(e) {
		word = "yes"
	}
	line := fmt.Sprintf("%s  %s", word, strings.Repeat("  ", depth))
	switch n.op {
	case opTrue:
		line += "everybody may"
	case opFalse:
		line += "nobody may"
	case opNot:
		line += "not this:"
	case opAnd:
		line += "all of these:"
	case opOr:
		line += "any of these:"
	default:
		line += n.source + n.reason(e)
	}
	*out = append(*out, line)
	for _, kid := range n.kids {
		kid.explain(e, depth+1, out)
	}
}

// reason says what a check has compared.
func (n *node) reason(e *env) string {
	if n.op == opRule {
		return ":"
	}
	if n.op == opNone {
		return ", a credential that nobody has"
	}
	want, ok := n.pattern.expand(&e.target)
	if !ok {
		return ", and it has no such attribute"
	}
	switch n.op {
	case opRole:
		return fmt.Sprintf(", of the roles %s", listed(e.who.Roles))
	case opText:
		have, _ := n.text(&e.who)
		return fmt.Sprintf(", %q against %q", have, want)
	case opList:
		return fmt.Sprintf(", %s against %q", listed(n.list(&e.who)), want)
	}
	return fmt.Sprintf(", %q against %q", n.name, want)
}

func listed(words []string) string {
	if len(words) == 0 {
		return "(none)"
	}
	return strings.Join(words, ", ")
}
