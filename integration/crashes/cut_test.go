//go:build integration

package crashes

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A loss is a loss of power: the journal as it was when all of it up to kept
// was on stable storage, as the kernel had it at the end, and what may have
// become of it.
//
// Each page behind kept has what it held before, or at the end, or zeros, or
// part of this and part of that, or anything at all, whatever becomes of its
// neighbours. Names that were not synced may be there or not.
type loss struct {
	rng           *rand.Rand
	before, after *journalState
	kept          int64
	named         bool // whether the last file's name must be there

	bounds []int64 // where what is left may end, by chance
}

// newLoss returns a loss of what is behind pos and of which nothing says that
// it was on stable storage.
func newLoss(rng *rand.Rand, before, after *journalState, pos int64) *loss {
	l := &loss{rng: rng, before: before, after: after, kept: max(pos, after.synced)}
	// A sync ends the page that it ends in.
	l.kept = (l.kept + page - 1) &^ (page - 1)
	l.bounds = after.boundaries(l.kept)
	rng.Shuffle(len(l.bounds), func(i, j int) { l.bounds[i], l.bounds[j] = l.bounds[j], l.bounds[i] })
	last := after.files[len(after.files)-1]
	l.named = l.kept > last.number*after.fileSize
	return l
}

// cut does one thing that may happen to the journal in its folder, in which all
// is as the kernel had it, and says what it was.
func (l *loss) cut(t *testing.T) (what string) {
	t.Helper()
	files := make(map[int64][]byte)
	for _, f := range l.after.files {
		files[f.number] = slices.Clone(f.data)
	}
	switch k := l.rng.IntN(10); {
	case k < 5 && len(l.bounds) > 0:
		at := l.bounds[0]
		l.bounds = l.bounds[1:]
		what = l.end(files, at)
	case k < 8:
		p := []float64{0.02, 0.1, 0.5, 0.9}[l.rng.IntN(4)]
		n := 0
		l.pages(files, func(int) bool {
			lost := l.rng.Float64() < p
			if lost {
				n++
			}
			return lost
		})
		what = fmt.Sprintf("%d pages of what is behind %d", n, l.kept)
	default:
		which := l.rng.IntN(max(l.count(), 1))
		l.pages(files, func(i int) bool { return i == which })
		what = fmt.Sprintf("page %d behind %d, and none of the others", which, l.kept)
	}
	what += l.write(t, files)
	if l.rng.IntN(3) == 0 {
		what += l.slot(t)
	}
	return what
}

// end lets the records end at a position.
func (l *loss) end(files map[int64][]byte, at int64) string {
	how := []string{"cut off", "zeros", "as before"}[l.rng.IntN(3)]
	for n, p := range files {
		base := n * l.after.fileSize
		from := at - base
		if from >= int64(len(p)) {
			continue
		}
		from = max(from, 0)
		switch how {
		case "cut off":
			files[n] = p[:from]
		case "zeros":
			clear(p[from:])
		default:
			copy(p[from:], l.old(n, from, int64(len(p))))
		}
	}
	return fmt.Sprintf("all behind %d %s", at, how)
}

// old returns what a range of a file held before. A file that there was not
// held zeros.
func (l *loss) old(number, from, to int64) []byte {
	p := make([]byte, to-from)
	if was := l.was(number); was != nil && from < int64(len(was.data)) {
		copy(p, was.data[from:])
	}
	return p
}

// was returns the file that is called number now, as it was before, under
// whatever name.
func (l *loss) was(number int64) *logFile {
	now := l.after.file(number)
	for _, f := range l.before.files {
		if f.inode == now.inode {
			return f
		}
	}
	return nil
}

// count is how many pages may be lost.
func (l *loss) count() (n int) {
	l.eachPage(func(int64, int64) { n++ })
	return n
}

// eachPage calls f for the pages that are behind kept and not as they were.
func (l *loss) eachPage(f func(number, off int64)) {
	for _, now := range l.after.files {
		base := now.number * l.after.fileSize
		for off := max(l.kept-base, 0) &^ (page - 1); off < int64(len(now.data)); off += page {
			end := min(off+page, int64(len(now.data)))
			if string(now.data[off:end]) != string(l.old(now.number, off, end)) {
				f(now.number, off)
			}
		}
	}
}

// pages loses those of which lost says so.
func (l *loss) pages(files map[int64][]byte, lost func(i int) bool) {
	i := 0
	l.eachPage(func(number, off int64) {
		p := files[number]
		p = p[off:min(off+page, int64(len(p)))]
		if lost(i) {
			l.spoil(p, l.old(number, off, off+int64(len(p))))
		}
		i++
	})
}

// spoil does to a page that was being written what may happen to it.
func (l *loss) spoil(p, old []byte) {
	switch l.rng.IntN(4) {
	case 0:
		clear(p)
	case 1:
		for i := range p {
			p[i] = byte(l.rng.Uint32())
		}
	case 2:
		for at := 0; at < len(p); at += sector {
			if l.rng.IntN(2) == 0 {
				copy(p[at:min(at+sector, len(p))], old[at:])
			}
		}
	default:
		copy(p, old)
	}
}

// write writes the files, and lets names be lost, or come back, that nobody
// made last.
func (l *loss) write(t *testing.T, files map[int64][]byte) (what string) {
	t.Helper()
	last := l.after.files[len(l.after.files)-1]
	for number, p := range files {
		name := l.after.file(number).name
		if number == last.number && !l.named && l.rng.IntN(4) == 0 {
			what += ", " + name + " has no name yet"
			l.remove(t, name)
			if was := l.was(number); was == nil {
				continue
			} else if name = was.name; l.after.file(was.number) != nil {
				continue
			}
			what += " but its old one"
		}
		l.put(t, name, p)
	}
	for _, f := range l.before.files { // removed, and nobody synced that
		gone := l.after.file(f.number) == nil && !slices.ContainsFunc(l.after.files, func(n *logFile) bool { return n.inode == f.inode })
		if gone && l.rng.IntN(2) == 0 {
			what += ", " + f.name + " is still there"
			l.put(t, f.name, f.data)
		}
	}
	return what
}

// slot loses the newer slot, if nothing was done yet that needs it.
func (l *loss) slot(t *testing.T) string {
	t.Helper()
	older := l.after.starts[0]
	if older == 0 {
		return ""
	}
	for n := older / l.after.fileSize; n < l.after.files[len(l.after.files)-1].number; n++ {
		// The first file of a journal is number 1, and its start lies before.
		if n > 0 && l.after.file(n) == nil {
			return ""
		}
	}
	p := slices.Clone(l.after.state)
	at := page * (1 + l.after.newer)
	l.spoil(p[at:][:sector], l.before.state[at:][:sector])
	l.put(t, "journal", p)
	return ", the last trim is lost"
}

func (l *loss) put(t *testing.T, name string, p []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.after.dir, name), p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *loss) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(l.after.dir, name)); err != nil {
		t.Fatal(err)
	}
}
