package policy

import (
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

type op uint8

const (
	opTrue op = iota
	opFalse
	opNot
	opAnd
	opOr
	opRule // one kid, once it is resolved
	opRole
	opLiteral
	opText // a credential that is one text
	opList // a credential that is a list
	opNone // a credential that nobody has
)

// A node is a rule, or a part of one, ready to be asked.
type node struct {
	op   op
	kids []*node

	source  string // of a check, as it is written
	name    string // of opRule: the rule; of opLiteral: the literal
	pattern pattern
	text    func(*wire.Identity) (string, bool)
	list    func(*wire.Identity) []string
}

// An env is a question: who, to what.
type env struct {
	who    wire.Identity
	target wire.Target
}

// holds answers the question.
func (n *node) holds(e *env) bool {
	switch n.op {
	case opTrue:
		return true
	case opNot:
		return !n.kids[0].holds(e)
	case opAnd:
		for _, kid := range n.kids {
			if !kid.holds(e) {
				return false
			}
		}
		return true
	case opOr:
		for _, kid := range n.kids {
			if kid.holds(e) {
				return true
			}
		}
		return false
	case opRule:
		return n.kids[0].holds(e)
	case opRole, opLiteral, opText, opList:
		return n.compare(e)
	}
	return false
}

// compare asks a check that has something to compare.
func (n *node) compare(e *env) bool {
	want, ok := n.pattern.expand(&e.target)
	if !ok {
		return false
	}
	switch n.op {
	case opLiteral:
		return n.name == want
	case opText:
		have, ok := n.text(&e.who)
		return ok && have == want
	case opRole:
		for _, role := range e.who.Roles {
			if strings.EqualFold(role, want) {
				return true
			}
		}
		return false
	}
	for _, have := range n.list(&e.who) {
		if have == want {
			return true
		}
	}
	return false
}

// String writes the rule in the language.
func (n *node) String() string {
	switch n.op {
	case opNot:
		return "not " + n.kids[0].String()
	case opAnd, opOr:
		parts := make([]string, len(n.kids))
		for i, kid := range n.kids {
			parts[i] = kid.String()
		}
		return "(" + strings.Join(parts, map[op]string{opAnd: " and ", opOr: " or "}[n.op]) + ")"
	}
	return n.source
}

// each calls f with every rule that n names.
func (n *node) each(f func(rule *node)) {
	if n.op == opRule {
		f(n)
		return
	}
	for _, kid := range n.kids {
		kid.each(f)
	}
}
