//go:build integration

package crashes

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestPowerLost kills the gateway while it writes, and does to the files of its
// journal what a loss of power may do to all that was not synced: many times
// from the same moment, each with the bucket and the catalog as they were then.
// Each time nothing may be missing that a flush covered, and what is there must
// be a moment of the order of all writes.
func TestPowerLost(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		name         string
		more         []string
		synced       bool // a flush syncs the journal
		reuses       bool // files of the journal are used again
		kills, cuts  int
		fullK, fullC int
	}{
		{"gateway", nil, true, false, 1, 3, 6, 40},
		{"gateway/small journal", []string{"PLATTER_LIMITS_JOURNAL_BYTES=16MiB"}, true, true, 1, 3, 8, 40},
		{"store", []string{"PLATTER_STORES_COLD_DURABILITY=store"}, false, false, 1, 2, 5, 30},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			v := servers.StartVersity(t, servers.VersityConfig{})
			v.MakeBucket(t, "power")
			g := gateway.Start(t, append(gateway.S3Store(v.S3, "power"), flags(k.more...)...)...)
			p := &power{rig: newRig(t, g, true, "raw"), store: v.Process, copies: t.TempDir(), synced: k.synced, reuses: k.reuses}
			p.world = []string{v.Data, v.Meta, g.Dir}
			p.run(times(k.kills, k.fullK), times(k.cuts, k.fullC))
		})
	}
}

// A power is a rig whose power is lost.
type power struct {
	*rig
	store          *servers.Process
	world          []string // folders that are brought back for each cut
	copies         string   // folder for what they were at the kill
	synced, reuses bool

	kills, cuts, killed, lost, gone, reused, names, trims int
}

func (p *power) run(kills, cuts int) {
	t := p.t
	start := time.Now()
	for range kills {
		before, pos := p.work()
		p.save()
		after := readJournal(t, p.g.Dir, p.overlay)
		if !p.synced {
			before, pos = &journalState{state: after.state}, 0
		}
		if p.synced && !p.reuses && p.kills == 1 {
			p.damage(after, pos)
			p.restore()
		}
		l := newLoss(p.rng, before, after, pos)
		for i := range cuts {
			if i > 0 {
				p.restore()
			}
			p.try(l, pos, i == cuts-1)
			if t.Failed() {
				t.Fatalf("kept %d, flushed to %d\nbefore: %v\nafter: %v", l.kept, pos, before, after)
			}
		}
	}
	t.Logf("%d kills, %d cuts, %d and killed again, %d and cut again, in %v; %d writes and %d flushes, %d requests gone; names were lost or came back %d times, trims %d, files were used again %d",
		p.kills, p.cuts, p.killed, p.lost, time.Since(start).Round(time.Second), p.h.writes, p.h.flushed, p.gone, p.names, p.trims, p.reused)
	if p.gone == 0 {
		t.Error("no cut took anything away")
	}
	if p.reuses && p.reused == 0 {
		t.Error("no file of the journal was used again")
	}
}

// work writes with flushes, then without any, and kills the gateway. It returns
// the journal in between, when all that it had was flushed, and where that
// ended.
func (p *power) work() (before *journalState, pos int64) {
	t := p.t
	c := p.open()
	for end := time.Now().Add(time.Minute); ; {
		stop := p.write(c)
		p.between(50, 350)
		stop()
		before = readJournal(t, p.g.Dir, p.overlay)
		if !p.reuses || before.end > 5*before.fileSize || time.Now().After(end) {
			break
		}
	}
	if err := p.h.flush(c); err != nil {
		t.Fatal(err)
	}
	before = readJournal(t, p.g.Dir, p.overlay)
	p.h.calm(true)
	stop := p.write(c)
	p.between(50, 500)
	if p.reuses { // until one of the files is
		end := time.Now().Add(5 * time.Second)
		for !p.reusedSince(before) && time.Now().Before(end) {
			p.between(20, 50)
		}
		p.between(1, 400) // perhaps beyond the next trim, whose files are there then
	}
	p.g.Kill(t)
	p.kills++
	c.Close()
	stop()
	p.h.calm(false)
	if p.h.failed != nil {
		t.Fatalf("before the crash: %v", p.h.failed)
	}
	return before, before.end
}

// reusedSince tells whether a file of the journal bears another name now.
func (p *power) reusedSince(before *journalState) bool {
	for _, f := range readJournal(p.t, p.g.Dir, p.overlay).files {
		for _, was := range before.files {
			if f.inode == was.inode && f.name != was.name {
				p.reused++
				return true
			}
		}
	}
	return false
}

// damage takes away what was flushed. The gateway must not open what is left,
// unless the store has what was taken.
func (p *power) damage(j *journalState, pos int64) {
	t := p.t
	f := j.file(pos / j.fileSize)
	data := slices.Clone(f.data)
	clear(data[(pos%j.fileSize-1)&^(page-1):][:page])
	if err := os.WriteFile(filepath.Join(j.dir, f.name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	p.g.Run(t)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		c, err := nbdtest.Open("unix", p.g.Socket, "overlay/"+p.overlay)
		if err == nil {
			_, missing := p.h.prefix(p.read(c), span{flushed: true})
			if c.Close(); missing != nil {
				t.Fatalf("a journal opens that lacks what was flushed: %v", missing)
			}
			t.Log("the store had what was damaged")
			break
		}
		if strings.Contains(err.Error(), "accept_loss") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a journal that lacks what was flushed: %v", err)
		}
	}
	p.g.Kill(t)
}

// save keeps the data directory and the bucket as they are.
func (p *power) save() {
	p.t.Helper()
	time.Sleep(50 * time.Millisecond) // for what the store has in hand
	p.store.Kill(p.t)
	for i, dir := range p.world {
		p.copy(dir, filepath.Join(p.copies, strconv.Itoa(i)))
	}
	p.store.Start(p.t)
}

// restore makes them what they were. The store is stopped meanwhile: what it
// still has in hand for a gateway that was killed must not come into a world in
// which that never ran.
func (p *power) restore() {
	p.t.Helper()
	p.store.Kill(p.t)
	for i, dir := range p.world {
		p.copy(filepath.Join(p.copies, strconv.Itoa(i)), dir)
	}
	p.store.Start(p.t)
}

// copy makes a folder like another one, with times and attributes.
func (p *power) copy(from, to string) {
	p.t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		p.t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(to, e.Name())); err != nil {
			p.t.Fatal(err)
		}
	}
	tool(p.t, "cp", "-a", "--sparse=always", from+"/.", to)
}

// try starts the gateway on what a cut left and looks. Then, at times, it kills
// it once more, after more work, and looks again, or even loses power again. On
// what the last one of a kill leaves the next kill's work begins.
func (p *power) try(l *loss, pos int64, last bool) {
	t := p.t
	what := l.cut(t)
	p.cuts++
	left := readJournal(t, p.g.Dir, p.overlay)
	if p.rng.IntN(5) == 0 {
		p.g.Launch(t)
		p.between(10, 300)
		p.g.Kill(t)
		what += "; killed while it started"
	}
	c, disk, cut := p.look(p.h, what)
	if t.Failed() {
		return
	}
	for i, l := range p.h.lanes {
		p.gone += len(l.ops) - cut[i]
	}
	switch {
	case last:
		p.killAgain(c, disk, what)
		return
	case p.rng.IntN(3) == 0:
		p.loseAgain(c, disk, cut, left, pos, what)
		return
	}
	p.g.Kill(t)
	c.Close()
}

// look starts the gateway and compares the disk with a history.
func (p *power) look(h *history, what string) (c *nbdtest.Client, disk []uint64, cut []int) {
	p.names += strings.Count(what, "name yet") + strings.Count(what, "still there")
	p.trims += strings.Count(what, "last trim")
	p.g.Run(p.t)
	c = p.open()
	disk = p.read(c)
	cut, err := h.prefix(disk, span{flushed: true})
	if err == nil {
		err = h.failed
	}
	if err != nil {
		p.t.Errorf("%s: %v", what, err)
	}
	return c, disk, cut
}

// killAgain goes on with the disk that a cut left, and with flushes, until the
// next kill, of the process alone.
func (p *power) killAgain(c *nbdtest.Client, disk []uint64, what string) {
	p.h = p.h.next(disk)
	stop := p.write(c)
	p.between(20, 150)
	p.g.Kill(p.t)
	c.Close()
	stop()
	p.killed++
	c, disk, _ = p.look(p.h, what+"; killed again")
	p.settle(c, disk)
	c.Close()
}

// loseAgain writes on, without flushes, what a cut left, and loses power again.
// Nobody has flushed what was seen after the first time; it may go, too.
func (p *power) loseAgain(c *nbdtest.Client, disk []uint64, cut []int, left *journalState, pos int64, what string) {
	t, h := p.t, p.h.clone()
	h.keep(disk, cut)
	h.calm(true)
	again := &rig{t: t, g: p.g, rng: p.rng, h: h, overlay: p.overlay}
	stop := again.write(c)
	p.between(20, 200)
	p.g.Kill(t)
	c.Close()
	stop()
	after := readJournal(t, p.g.Dir, p.overlay)
	if after.dir != left.dir { // all that was flushed is in the store
		left, pos = &journalState{state: after.state}, 0
	}
	p.lost++
	c, _, _ = p.look(h, what+"; then "+newLoss(p.rng, left, after, pos).cut(t))
	if t.Failed() {
		t.Logf("the second time\nbefore: %v\nafter: %v", left, after)
	}
	p.g.Kill(t)
	c.Close()
}
