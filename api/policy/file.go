package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

// A fileRule is a rule as a file has it.
type fileRule struct {
	name  string
	text  string     // in the language
	lists [][]string // in the old form, if it is not nil
	line  int
}

// readFile reads a policy file.
func readFile(name string) ([]fileRule, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	return parseFile(data)
}

// parseFile reads the contents of a policy file, JSON or YAML.
func parseFile(data []byte) ([]fileRule, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes, which no policy needs", MaxFile)
	}
	if json.Valid(data) {
		return parseJSON(data)
	}
	return parseYAML(data)
}

// A collector gathers rules and mistakes.
type collector struct {
	rules []fileRule
	seen  map[string]bool
	errs  []error
}

// maxMistakes bounds what is said at once.
const maxMistakes = 20

func (c *collector) wrong(line int, format string, args ...any) {
	if len(c.errs) < maxMistakes {
		c.errs = append(c.errs, fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...)))
	}
}

// key notes a rule's name and tells whether the rule is to be read.
func (c *collector) key(name string, line int) bool {
	switch {
	case len(c.seen) >= MaxRules:
		if len(c.seen) == MaxRules {
			c.wrong(line, "there are more than %d rules, which no policy needs", MaxRules)
			c.seen[name] = true
		}
		return false
	case c.seen[name]:
		c.wrong(line, "the rule %.100q is there twice: keep one", name)
		return false
	}
	c.seen[name] = true
	return true
}

func (c *collector) done() ([]fileRule, error) { return c.rules, errors.Join(c.errs...) }

const wantObject = `a policy file is an object of rules by name, for example "delete_image": "role:admin"`

// parseYAML walks the nodes itself: nothing is expanded, so that aliases
// cannot make a small file large.
func parseYAML(data []byte) ([]fileRule, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // empty, or comments only: every rule keeps its default
	} else if err != nil {
		return nil, err
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second YAML document; put all rules into one")
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New(wantObject)
	}
	c := collector{seen: map[string]bool{}}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if !isText(key) {
			c.wrong(key.Line, "the name of a rule must be a text")
			continue
		}
		if c.key(key.Value, key.Line) {
			c.yamlRule(key.Value, value)
		}
	}
	return c.done()
}

func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" }

// yamlRule reads the value of a rule.
func (c *collector) yamlRule(name string, n *yaml.Node) {
	r := fileRule{name: name, line: n.Line}
	switch {
	case isText(n):
		r.text = n.Value
	case n.Kind == yaml.SequenceNode:
		r.lists = [][]string{}
		for _, item := range n.Content {
			list, ok := yamlList(item)
			if !ok {
				c.wrong(item.Line, notRule, name)
				return
			}
			r.lists = append(r.lists, list)
		}
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		c.wrong(n.Line, noValue, name)
		return
	default:
		c.wrong(n.Line, notRule, name)
		return
	}
	c.rules = append(c.rules, r)
}

const (
	notRule = "the rule %.100q is neither a text nor a list of lists of texts"
	noValue = `the rule %.100q has no value: write "@" to let everybody in, "!" to let nobody in`
)

// yamlList reads an alternative of the old form.
func yamlList(n *yaml.Node) ([]string, bool) {
	if isText(n) {
		return oneCheck(n.Value), true
	}
	if n.Kind != yaml.SequenceNode {
		return nil, false
	}
	var list []string
	for _, item := range n.Content {
		if !isText(item) {
			return nil, false
		}
		list = append(list, item.Value)
	}
	return list, true
}

// oneCheck is an alternative that is one check, or an empty text: none.
func oneCheck(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func parseJSON(data []byte) ([]fileRule, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	switch tok, err := dec.Token(); {
	case err != nil:
		return nil, err
	case tok == nil:
		return nil, nil
	case tok != json.Delim('{'):
		return nil, errors.New(wantObject)
	}
	c := collector{seen: map[string]bool{}}
	lines, from := 1, int64(0)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		at := dec.InputOffset()
		lines, from = lines+bytes.Count(data[from:at], []byte{'\n'}), at
		if name := key.(string); c.key(name, lines) {
			c.jsonRule(name, value, lines)
		}
	}
	return c.done()
}

// jsonRule reads the value of a rule.
func (c *collector) jsonRule(name string, value any, line int) {
	r := fileRule{name: name, line: line}
	switch v := value.(type) {
	case string:
		r.text = v
	case []any:
		r.lists = [][]string{}
		for _, item := range v {
			list, ok := jsonList(item)
			if !ok {
				c.wrong(line, notRule, name)
				return
			}
			r.lists = append(r.lists, list)
		}
	case nil:
		c.wrong(line, noValue, name)
		return
	default:
		c.wrong(line, notRule, name)
		return
	}
	c.rules = append(c.rules, r)
}

func jsonList(item any) ([]string, bool) {
	if s, ok := item.(string); ok {
		return oneCheck(s), true
	}
	items, ok := item.([]any)
	var list []string
	for _, item := range items {
		s, isString := item.(string)
		ok = ok && isString
		list = append(list, s)
	}
	return list, ok
}
