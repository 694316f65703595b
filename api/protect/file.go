package protect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A section is one of the file.
type section struct {
	name string
	line int
	keys map[string]string
}

// parse reads sections of keys as Python's configparser has them: lines with
// "=" or ":", comments behind "#" and ";" at the beginning of a line, values
// that go on in lines that are indented, and a section DEFAULT for what others
// do not say.
func parse(file io.Reader) ([]section, error) {
	var all []section
	var errs []error
	var last string // the key that an indented line goes on with
	defaults := map[string]string{}
	n := 0
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("line %d: "+format, append([]any{n}, args...)...))
	}
	keys := map[string]string(nil)
	lines := bufio.NewScanner(io.LimitReader(file, maxFile+1))
	size := 0
	for lines.Scan() {
		n++
		size += len(lines.Bytes()) + 1
		text := strings.TrimSpace(lines.Text())
		indented := strings.HasPrefix(lines.Text(), " ") || strings.HasPrefix(lines.Text(), "\t")
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case indented && last != "":
			keys[last] += "," + text
		case text[0] == '[':
			name, ok := strings.CutSuffix(text[1:], "]")
			last, keys = "", map[string]string{}
			switch {
			case !ok || name == "":
				bad("%q is no section: [REGULAR EXPRESSION]", text)
			case name == "DEFAULT":
				keys = defaults
			case slices.ContainsFunc(all, func(s section) bool { return s.name == name }):
				bad("the section [%s] is there already", name)
			default:
				all = append(all, section{name, n, keys})
			}
		default:
			at := strings.IndexAny(text, "=:")
			if at <= 0 || keys == nil {
				bad("%q is not OPERATION = WHO below a section", text)
				continue
			}
			last = strings.ToLower(strings.TrimSpace(text[:at]))
			if _, twice := keys[last]; twice {
				bad("%q is there already", last)
			}
			keys[last] = strings.TrimSpace(text[at+1:])
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, err)
	}
	if size > maxFile {
		errs = append(errs, fmt.Errorf("it has more than %d bytes", maxFile))
	}
	if len(all) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("it has no section, so that nobody could use any property"))
	}
	for i := range all {
		for key, value := range defaults {
			if _, ok := all[i].keys[key]; !ok {
				all[i].keys[key] = value
			}
		}
	}
	return all, errors.Join(errs...)
}

// compile makes a rule of a section.
func (s section) compile(policies bool) (rule, error) {
	var r rule
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("line %d: section [%s]: "+format, append([]any{s.line, s.name}, args...)...))
	}
	var err error
	if r.name, err = regexp.Compile(s.name); err != nil {
		bad("%w", err)
	}
	for op, word := range operations() {
		value, ok := s.keys[word]
		if !ok {
			bad("%s is missing; \"%s = !\" lets nobody", word, word)
		}
		for _, who := range strings.Split(value, ",") {
			if who = strings.ToLower(strings.TrimSpace(who)); who != "" {
				r.who[op] = append(r.who[op], who)
			}
		}
		switch list := r.who[op]; {
		case policies && len(list) > 1:
			bad("%s names several policies, and one is allowed: combine them in the policy file", word)
		case slices.Contains(list, "@") && slices.Contains(list, "!"):
			bad("%s says everybody (@) and nobody (!)", word)
		}
	}
	for key := range s.keys {
		if all := operations(); !slices.Contains(all[:], key) {
			bad("%q is no operation: create, read, update, delete", key)
		}
	}
	return r, errors.Join(errs...)
}
