//go:build integration

package differ

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestGlance has all conversations with both sides. What differs and is not
// in the list of known differences is a failure, and so is an entry of that
// list that nothing needs.
func TestGlance(t *testing.T) {
	w := newWorld(t, "")
	all := append(listing(), readConversations(t, "testdata/*.txt")...)
	all = append(all, generated()...)
	all = append(all, walks(20, 80)...)
	if pairs := w.judge(t, all, known); pairs < 1500 {
		t.Errorf("%d pairs of requests are not enough", pairs)
	}
}

// TestProtected is TestGlance where some properties are not everybody's.
func TestProtected(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.conf")
	if err := os.WriteFile(rules, []byte(protection), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "property_protection_file = "+rules, "PLATTER_POLICY_PROPERTY_PROTECTION_FILE="+rules)
	w.judge(t, readConversations(t, "testdata/protected/*.txt"), knownProtected)
}

// protection is who may do what with which properties.
const protection = `[^secret_.*]
create = admin
read = admin
update = admin
delete = admin
[^seen_.*]
create = admin
read = admin,member
update = admin
delete = admin
[^once_.*]
create = admin,member
read = admin,member,reader
update = !
delete = !
[^mine_.*]
create = @
read = @
update = admin
delete = admin,member
[.*]
create = @
read = @
update = @
delete = @
`

// judge has conversations, and tells of what differs without a reason, and of
// reasons without a difference. It returns how many pairs of requests there
// were.
func (w *world) judge(t *testing.T, all []conversation, known []*reason) (pairs int) {
	t.Helper()
	different := 0
	for _, c := range all {
		for _, d := range w.hold(c) {
			if !d.explained(known) {
				different++
				t.Errorf("%s", d)
			}
		}
		pairs += len(c.steps)
	}
	for _, k := range known {
		if k.seen == 0 {
			t.Errorf("nothing differs any more as in %q %q; take it out of the list", k.step, k.part)
		}
	}
	t.Logf("%d pairs of requests, %d differences without a reason; statuses of Glance: %v", pairs, different, w.statuses)
	return pairs
}

// A difference is a part of an answer that is not the same.
type difference struct {
	conversation string
	step         step
	text         string // part: glance → gateway
	why          string // what the two said in their errors
}

func (d difference) String() string {
	return fmt.Sprintf("%s\n  %s\n  %s\n  %s", d.conversation, short(d.step.String()), d.text, d.why)
}

// hold has a conversation with both sides.
func (w *world) hold(c conversation) (all []difference) {
	var n [2]names
	for i := range n {
		n[i] = names{c.name, w.fixed, map[string]string{}, map[string]bool{}}
	}
	for _, st := range c.steps {
		var answers [2]answer
		var both sync.WaitGroup
		for i, s := range w.sides {
			both.Go(func() { answers[i] = s.do(w, st, n[i]) })
		}
		both.Wait()
		if st.keep != "" {
			for i := range n {
				if id := answers[i].field("id"); id != "" {
					n[i].kept[st.keep] = id
				}
			}
		}
		w.statuses[answers[0].status]++
		a, b := w.sides[0].picture(st, answers[0], n[0]), w.sides[1].picture(st, answers[1], n[1])
		for _, text := range differences(a, b) {
			all = append(all, difference{c.name, st, text, said(answers[0]) + " | " + said(answers[1])})
		}
	}
	return all
}

func said(a answer) string {
	if a.err != nil {
		return a.err.Error()
	}
	if m := a.field("message"); m != "" {
		return short(m)
	}
	return ""
}
