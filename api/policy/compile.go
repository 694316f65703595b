package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An entry is a rule in force.
type entry struct {
	rule   Rule
	check  *node
	text   string // as it is written
	line   int    // of the file; 0: the default
	asked  bool   // it is one of the rules that operations ask, or defaults name
	denied error  // what a refusal says
}

// A ruleset is all rules in force. It does not change.
type ruleset struct {
	entries  map[string]*entry
	warnings []string
}

// compile puts the rules of a file over the defaults and resolves the names.
func compile(defaults []Rule, file []fileRule) (*ruleset, error) {
	set := &ruleset{entries: map[string]*entry{}}
	var errs []error
	wrong := func(e *entry, err error) {
		if len(errs) < maxMistakes {
			errs = append(errs, fmt.Errorf("line %d: the rule %.100q: %w", e.line, e.rule.Name, err))
		}
	}
	for _, r := range defaults {
		n, err := parseRule(r.Check)
		if err != nil {
			return nil, fmt.Errorf("the default of %q: %w", r.Name, err)
		}
		set.entries[r.Name] = &entry{rule: r, check: n, text: r.Check, asked: true}
	}
	for _, fr := range file {
		e := &entry{rule: Rule{Name: fr.name}, line: fr.line}
		old := set.entries[fr.name]
		if old != nil {
			e.rule, e.asked = old.rule, true
		}
		var err error
		if fr.lists != nil {
			if e.check, err = parseLists(fr.lists); err == nil {
				e.text = e.check.String()
			}
		} else {
			e.check, err = parseRule(fr.text)
			e.text = fr.text
		}
		if err != nil {
			wrong(e, err)
			continue
		}
		if old != nil && old.text == e.text {
			set.warn("line %d: the rule %q is what it would be without the file", fr.line, fr.name)
		}
		set.entries[fr.name] = e
	}
	set.rename()
	if len(errs) == 0 { // or names would miss what is there, only wrong
		set.resolve(wrong)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	set.look()
	return set, nil
}

func (set *ruleset) warn(format string, args ...any) {
	set.warnings = append(set.warnings, fmt.Sprintf(format, args...))
}

// sorted is all entries by name, so that what is said of them does not depend
// on chance.
func (set *ruleset) sorted() []*entry {
	var out []*entry
	for _, name := range slices.Sorted(maps.Keys(set.entries)) {
		out = append(out, set.entries[name])
	}
	return out
}

// rename gives rules what the file says of their old names.
func (set *ruleset) rename() {
	for _, e := range set.sorted() {
		old := set.entries[e.rule.Formerly]
		if e.rule.Formerly == "" || old == nil || old.line == 0 {
			continue
		}
		old.asked = true // it means something, so it is not unknown
		set.warn("line %d: the rule %q is called %q now; please rename it", old.line, old.rule.Name, e.rule.Name)
		if e.line == 0 && old.text != "rule:"+e.rule.Name {
			e.check, e.text, e.line = old.check, old.text, old.line
		}
	}
}

// resolve finds the rules that rules name, and counts what each comes to.
func (set *ruleset) resolve(wrong func(*entry, error)) {
	costs := map[*entry]int{}
	for _, e := range set.sorted() {
		set.cost(e, costs, wrong)
	}
}

// underWay marks, among the costs, a rule that is being counted.
const underWay = -1

// cost counts the checks of e and of all that it names, and ties the names to
// their rules. One that names itself, through others or not, has no count.
func (set *ruleset) cost(e *entry, costs map[*entry]int, wrong func(*entry, error)) int {
	if n, ok := costs[e]; ok {
		return n
	}
	costs[e] = underWay
	total := e.check.size()
	e.check.each(func(n *node) {
		named := set.entries[n.name]
		if named == nil {
			wrong(e, fmt.Errorf("it names rule:%.100s, which is defined nowhere: define it, or correct the name", n.name))
			return
		}
		part := set.cost(named, costs, wrong)
		if part == underWay {
			wrong(e, fmt.Errorf("it names rule:%.100s, which leads back to it: break the circle", n.name))
			return
		}
		n.kids = []*node{named.check}
		total = min(total+part, MaxChecks+1)
	})
	if total > MaxChecks {
		wrong(e, fmt.Errorf("with all rules that it names it comes to more than %d checks: make it simpler", MaxChecks))
		total = 1 // said once is enough
	}
	costs[e] = total
	return total
}

// size counts the nodes of one rule.
func (n *node) size() int {
	total := 1
	if n.op != opRule {
		for _, kid := range n.kids {
			total += kid.size()
		}
	}
	return total
}

// look warns of what is no mistake but may not be meant.
func (set *ruleset) look() {
	named := map[string]bool{}
	for _, e := range set.sorted() {
		e.check.each(func(n *node) { named[n.name] = true })
	}
	for _, e := range set.sorted() {
		e.denied = refusal(e.rule.Name)
		if e.line == 0 {
			continue
		}
		if !e.asked && !named[e.rule.Name] {
			set.warn("line %d: no operation asks the rule %.100q and no rule names it: it has no effect", e.line, e.rule.Name)
		}
		if e.rule.Unused {
			set.warn("line %d: no operation asks the rule %q any more", e.line, e.rule.Name)
		}
		for _, name := range e.check.unknown(nil) {
			set.warn("line %d: the rule %.100q asks for the credential %.60q, which nobody has here: that check refuses", e.line, e.rule.Name, name)
		}
	}
}

// unknown lists the credentials that nobody has.
func (n *node) unknown(out []string) []string {
	if n.op == opNone {
		kind, _, _ := strings.Cut(n.source, ":")
		return append(out, kind)
	}
	if n.op != opRule {
		for _, kid := range n.kids {
			out = kid.unknown(out)
		}
	}
	return out
}
