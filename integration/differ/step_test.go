//go:build integration

package differ

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A step is one request of a conversation. In a file it is a line
//
//	WHO METHOD PATH [<Header: value>]... [BODY]
//
// WHO is one of the people, "*" for all of them, one after the other and who
// may do least first. $name is an id, the same in all of a conversation; of a
// project, if one has the name. "@name" before WHO keeps the id in the answer
// as $name. A body @N is N bytes. PATCH and PUT …/file have the content type
// that they need unless one is there, as has POST.
//
// The method WAIT asks each side until the answer has a field with a value,
// which the body says, status=active, and no import is under way. PAGES asks for a list and for all the
// pages after it.
type step struct {
	who, method, path string
	header            []string // "Key: value"
	body              string
	keep              string // name of the id in the answer
}

func (s step) String() string {
	text := s.who + " " + s.method + " " + s.path
	for _, h := range s.header {
		text += " <" + h + ">"
	}
	if s.body != "" {
		text += " " + strings.ToValidUTF8(s.body, "?")
	}
	return text
}

// A conversation is a list of steps that share their names.
type conversation struct {
	name  string
	steps []step
}

// readConversations reads the files that fit. "# name" begins a conversation.
func readConversations(t *testing.T, pattern string) (all []conversation) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			name, isName := strings.CutPrefix(line, "# ")
			switch {
			case isName:
				all = append(all, conversation{name: filepath.Base(file) + ": " + name})
			case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "##"):
			default:
				c := &all[len(all)-1]
				c.steps = append(c.steps, parseStep(line)...)
			}
		}
	}
	return all
}

// parseStep reads a line, which may be several steps.
func parseStep(line string) []step {
	var s step
	if strings.HasPrefix(line, "@") {
		name, rest, _ := strings.Cut(line[1:], " ")
		s.keep, line = name, rest
	}
	words := strings.SplitN(line, " ", 4)
	if len(words) < 3 {
		panic("a step has WHO METHOD PATH, not " + line)
	}
	s.who, s.method, s.path = words[0], words[1], words[2]
	if len(words) == 4 {
		s.body = words[3]
	}
	for strings.HasPrefix(s.body, "<") {
		h, rest, ok := strings.Cut(s.body[1:], ">")
		if !ok {
			panic("a header does not end: " + line)
		}
		s.header, s.body = append(s.header, h), strings.TrimPrefix(rest, " ")
	}
	if s.who != "*" {
		return []step{s}
	}
	var all []step
	for _, who := range people {
		s.who = who
		all = append(all, s)
	}
	return all
}

// names are what $name stands for in a conversation.
type names struct {
	conversation string
	fixed        map[string]string // projects
	kept         map[string]string // by the answers of one side
	chosen       map[string]bool   // ids that were made of names
}

var nameInText = regexp.MustCompile(`\$[a-zA-Z][a-zA-Z0-9]*`)

// fill puts ids where names are.
func (n names) fill(text string) string {
	return nameInText.ReplaceAllStringFunc(text, func(name string) string {
		name = name[1:]
		if id, ok := n.kept[name]; ok {
			return id
		}
		if id, ok := n.fixed[name]; ok {
			return id
		}
		return n.id(name)
	})
}

// id is a UUID that both sides get, made of the name.
func (n names) id(name string) string {
	h := sha1.Sum([]byte(n.conversation + "/" + name))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
	n.chosen[id] = true
	return id
}

// unfill puts names where the ids are that only one side has.
func (n names) unfill(text string) string {
	for _, name := range slices.Sorted(maps.Keys(n.kept)) {
		text = strings.ReplaceAll(text, n.kept[name], "$"+name)
	}
	return text
}

// madeHere tells whether an id is one that the test chose, and which both
// sides therefore share.
func (n names) madeHere(id string) bool { return n.chosen[id] }
