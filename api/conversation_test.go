package api

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// TestConversations plays the files in testdata/conversations, each on a
// server of its own. A line of a file is one of
//
//	# words                 a comment
//	>>> METHOD PATH         a request begins
//	> Key: value            its header
//	| body                  its body, or what the answer's body has
//	<<< STATUS              the answer
//	< Key: value            a header of it; "< Key:" says there is none
//	set NAME key            keeps a key of the answer as $NAME
//
// The body of an answer that is JSON must have what the file says; it may
// have more keys. Any other body must contain the text.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, data := newServer(t, func(c *Config) {
				if strings.Contains(string(text), "# with tokens") {
					c.Auth = headerAuth{}
				}
				if strings.Contains(string(text), "# with two stores") {
					c.Stores = []Store{{ID: "fast", Type: "rbd", Default: true, Weight: 7}, {ID: "web", Type: "http", ReadOnly: true, Description: "elsewhere"}}
				}
			})
			addTask(t, data.cat)
			(&conversation{t: t, s: s, vars: map[string]string{}}).play(string(text))
		})
	}
}

// addTask puts a task into the catalog, since no request makes one.
func addTask(t *testing.T, cat *catalog.Catalog) {
	t.Helper()
	_, err := cat.CreateTask(t.Context(), catalog.Task{
		ID: "11111111-2222-3333-4444-555555555555", Type: "import", Status: catalog.TaskPending, Owner: "p1",
		ImageID: "aaaaaaaa-0000-0000-0000-000000000001", RequestID: "req-1", Input: map[string]any{"a": "b"}, ExpiresAt: time.Unix(2e9, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
}

type conversation struct {
	t    *testing.T
	s    *Server
	vars map[string]string
}

type turn struct {
	line         int
	method, path string
	header       []string
	body         []string
	status       int
	wantHeader   []string
	wantBody     []string
	set          [][2]string
}

func (c *conversation) play(text string) {
	var now *turn
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, ">>> "):
			c.run(now)
			now = &turn{line: i + 1}
			now.method, now.path, _ = strings.Cut(line[4:], " ")
		case strings.HasPrefix(line, "<<< "):
			now.status, _ = strconv.Atoi(line[4:])
		case strings.HasPrefix(line, "> "):
			now.header = append(now.header, line[2:])
		case strings.HasPrefix(line, "< "):
			now.wantHeader = append(now.wantHeader, line[2:])
		case strings.HasPrefix(line, "| ") && now.status == 0:
			now.body = append(now.body, line[2:])
		case strings.HasPrefix(line, "| "):
			now.wantBody = append(now.wantBody, line[2:])
		case strings.HasPrefix(line, "set "):
			name, key, _ := strings.Cut(line[4:], " ")
			now.set = append(now.set, [2]string{name, key})
		default:
			c.t.Fatalf("line %d: %q", i+1, line)
		}
	}
	c.run(now)
}

func (c *conversation) expand(s string) string {
	for name, value := range c.vars {
		s = strings.ReplaceAll(s, "$"+name, value)
	}
	return s
}

func (c *conversation) run(now *turn) {
	if now == nil {
		return
	}
	c.t.Helper()
	where := fmt.Sprintf("line %d: %s %s", now.line, now.method, now.path)
	w := do(c.s, now.method, c.expand(now.path), c.expand(strings.Join(now.body, "\n")), now.header...)
	if w.Code != now.status {
		c.t.Fatalf("%s: %d, want %d: %s", where, w.Code, now.status, w.Body)
	}
	for _, h := range now.wantHeader {
		key, want, _ := strings.Cut(h, ":")
		if got := w.Header().Get(key); got != c.expand(strings.TrimSpace(want)) {
			c.t.Errorf("%s: header %s %q, want %q", where, key, got, c.expand(strings.TrimSpace(want)))
		}
	}
	var got, want any
	wantText := c.expand(strings.Join(now.wantBody, "\n"))
	err := json.Unmarshal(w.Body.Bytes(), &got)
	if json.Unmarshal([]byte(wantText), &want) == nil && err == nil {
		if missing := covers(got, want, "body"); missing != "" {
			c.t.Errorf("%s: %s in %s", where, missing, w.Body)
		}
	} else if !strings.Contains(w.Body.String(), wantText) {
		c.t.Errorf("%s: body %q, want %q in it", where, w.Body, wantText)
	}
	for _, kv := range now.set {
		obj, _ := got.(map[string]any)
		c.vars[kv[0]] = fmt.Sprint(obj[kv[1]])
	}
}

// covers tells what of want is not in got.
func covers(got, want any, at string) string {
	wantObj, isObj := want.(map[string]any)
	gotObj, alsoObj := got.(map[string]any)
	if isObj && alsoObj {
		for key, v := range wantObj {
			g, ok := gotObj[key]
			if !ok {
				return at + "." + key + " is missing"
			}
			if missing := covers(g, v, at+"."+key); missing != "" {
				return missing
			}
		}
		return ""
	}
	wantList, isList := want.([]any)
	gotList, alsoList := got.([]any)
	if isList && alsoList && len(wantList) == len(gotList) {
		for i := range wantList {
			if missing := covers(gotList[i], wantList[i], at+"["+strconv.Itoa(i)+"]"); missing != "" {
				return missing
			}
		}
		return ""
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Sprintf("%s is %v, want %v", at, got, want)
	}
	return ""
}
