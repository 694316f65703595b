package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// The bounds of a policy file.
const (
	MaxFile   = 1 << 20 // bytes of a file
	MaxRules  = 10_000  // rules in a file
	MaxDepth  = 64      // parentheses and nots within each other
	MaxChecks = 10_000  // checks of a rule and of all rules that it names
)

// A token is a word of a rule.
type token struct {
	kind  byte // ( ) a(nd) o(r) n(ot) c(heck)
	check string
}

// tokenize cuts a rule into words. A parenthesis belongs to the language only
// at the ends of a word, since %(attribute)s has some as well.
func tokenize(rule string) []token {
	var out []token
	for _, word := range strings.FieldsFunc(rule, unicode.IsSpace) {
		for strings.HasPrefix(word, "(") {
			out, word = append(out, token{kind: '('}), word[1:]
		}
		bare := strings.TrimRight(word, ")")
		switch strings.ToLower(bare) {
		case "":
		case "and", "or", "not":
			out = append(out, token{kind: bare[0] | 0x20})
		default:
			out = append(out, token{'c', bare})
		}
		for range len(word) - len(bare) {
			out = append(out, token{kind: ')'})
		}
	}
	return out
}

// A parser reads tokens.
type parser struct {
	rest  []token
	depth int
}

// parseRule reads a rule in the language.
func parseRule(rule string) (*node, error) {
	if rule == "" {
		return &node{op: opTrue, source: "@"}, nil
	}
	p := parser{rest: tokenize(rule)}
	n, err := p.join(opOr)
	if err == nil && len(p.rest) > 0 {
		err = fmt.Errorf("%s does not belong after a whole rule", p.rest[0])
	}
	return n, err
}

func (t token) String() string {
	switch t.kind {
	case 'a':
		return `"and"`
	case 'o':
		return `"or"`
	case 'n':
		return `"not"`
	case 'c':
		return strconv.Quote(t.check)
	}
	return strconv.Quote(string(t.kind))
}

// join reads what is joined by "or", or within that by "and".
func (p *parser) join(by op) (*node, error) {
	word, part := byte('a'), p.unary
	if by == opOr {
		word, part = 'o', func() (*node, error) { return p.join(opAnd) }
	}
	n, err := part()
	if err != nil || len(p.rest) == 0 || p.rest[0].kind != word {
		return n, err
	}
	out := &node{op: by, kids: []*node{n}}
	for len(p.rest) > 0 && p.rest[0].kind == word {
		p.rest = p.rest[1:]
		if n, err = part(); err != nil {
			return nil, err
		}
		out.kids = append(out.kids, n)
	}
	return out, nil
}

// unary reads a check, a negation or what is in parentheses.
func (p *parser) unary() (*node, error) {
	if len(p.rest) == 0 {
		return nil, errors.New("a check is missing at the end")
	}
	if p.depth++; p.depth > MaxDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", MaxDepth)
	}
	defer func() { p.depth-- }()
	tok := p.rest[0]
	p.rest = p.rest[1:]
	switch tok.kind {
	case 'c':
		return parseCheck(tok.check)
	case 'n':
		n, err := p.unary()
		return &node{op: opNot, kids: []*node{n}}, err
	case '(':
		n, err := p.join(opOr)
		if err != nil {
			return nil, err
		}
		if len(p.rest) == 0 || p.rest[0].kind != ')' {
			return nil, errors.New("a closing parenthesis is missing")
		}
		p.rest = p.rest[1:]
		return n, nil
	}
	return nil, fmt.Errorf("a check is missing before %s", tok)
}

// parseCheck reads a check. KIND:TEXT is cut at the first colon.
func parseCheck(s string) (*node, error) {
	switch s {
	case "@":
		return &node{op: opTrue, source: s}, nil
	case "!":
		return &node{op: opFalse, source: s}, nil
	}
	kind, match, ok := strings.Cut(s, ":")
	if n := len(s); !ok || (s[0] == '\'' || s[0] == '"') && s[n-1] == s[0] {
		return nil, fmt.Errorf("%.60q is no check: a check is KIND:TEXT, for example role:admin", s)
	}
	n := &node{source: s}
	switch kind {
	case "rule":
		n.op, n.name = opRule, match
		return n, nil
	case "http", "https":
		return nil, fmt.Errorf("%.60q asks another server, which is not done here: write the rule with roles and projects", s)
	case "role":
		n.op = opRole
	default:
		if err := n.credential(kind); err != nil {
			return nil, err
		}
	}
	var err error
	if n.pattern, err = parsePattern(match); err != nil {
		return nil, err
	}
	return n, nil
}

// credential sets the left side of a check.
func (n *node) credential(kind string) error {
	if text, ok := parseLiteral(kind); ok {
		n.op, n.name = opLiteral, text
		return nil
	}
	if !isName(kind) {
		return fmt.Errorf("%.60q, before the colon, is neither the name of a credential nor a literal such as 'text', 1, True or None", kind)
	}
	if n.text = credentialText(kind); n.text != nil {
		n.op = opText
		return nil
	}
	if n.list = credentialList(kind); n.list != nil {
		n.op = opList
		return nil
	}
	n.op = opNone // credentials of other services: oslo.policy takes them and refuses
	return nil
}

// parseLiteral reads what Python would read as a literal, and returns it as
// Python would print it.
func parseLiteral(s string) (string, bool) {
	switch s {
	case "True", "False", none:
		return s, true
	}
	if n := len(s); n >= 2 && (s[0] == '\'' || s[0] == '"') && s[n-1] == s[0] {
		inner := s[1 : n-1]
		return inner, !strings.ContainsAny(inner, `\`+s[:1])
	}
	if s == "" || len(s) > 18 {
		return "", false
	}
	digits := strings.TrimPrefix(s, "-")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || digits[0] == '+' || digits[0] == '0' && len(digits) > 1 {
		return "", false
	}
	return strconv.FormatInt(n, 10), true
}

// isName tells whether s is words of letters, digits, _ and - with dots
// between them.
func isName(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || word[0] == '-' || word[0] >= '0' && word[0] <= '9' {
			return false
		}
		for _, c := range word {
			if c != '_' && c != '-' && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
				return false
			}
		}
	}
	return true
}

// parseLists reads the old form: alternatives, each of which is checks that
// must all hold.
func parseLists(lists [][]string) (*node, error) {
	if len(lists) == 0 {
		return &node{op: opTrue, source: "@"}, nil
	}
	or := &node{op: opOr}
	for _, list := range lists {
		and := &node{op: opAnd}
		for _, check := range list {
			if words := tokenize(check); len(words) != 1 || words[0] != (token{'c', check}) {
				return nil, fmt.Errorf("%.60q is no single check, which is what the old form holds", check)
			}
			n, err := parseCheck(check)
			if err != nil {
				return nil, err
			}
			and.kids = append(and.kids, n)
		}
		switch len(and.kids) {
		case 0:
		case 1:
			or.kids = append(or.kids, and.kids[0])
		default:
			or.kids = append(or.kids, and)
		}
	}
	switch len(or.kids) {
	case 0:
		return &node{op: opFalse, source: "!"}, nil
	case 1:
		return or.kids[0], nil
	}
	return or, nil
}
