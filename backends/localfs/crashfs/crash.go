package crashfs

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// States yields n file systems, each as a loss of power at some moment of the
// record could have left it. The FS must not be in use meanwhile.
func (f *FS) States(rng *rand.Rand, n int) iter.Seq[localfs.FS] {
	return func(yield func(localfs.FS) bool) {
		for _, state := range f.Crashes(rng, n) {
			if !yield(state) {
				return
			}
		}
	}
}

// Crashes is States with the moment of each crash: how many operations had
// begun (see Len), ascending. Whatever was acknowledged when Len was at most
// the moment must be found in the state; what began after it cannot be.
func (f *FS) Crashes(rng *rand.Rand, n int) iter.Seq2[int, *FS] {
	moments := make([]int, n)
	for i := range moments {
		moments[i] = rng.IntN(f.Len() + 1)
	}
	slices.Sort(moments)
	return f.crashes(rng, moments)
}

// CrashesNow yields n states after a loss of power at this moment.
func (f *FS) CrashesNow(rng *rand.Rand, n int) iter.Seq2[int, *FS] {
	return f.crashes(rng, slices.Repeat([]int{f.Len()}, n))
}

func (f *FS) crashes(rng *rand.Rand, moments []int) iter.Seq2[int, *FS] {
	f.mu.Lock()
	log := f.log
	f.mu.Unlock()
	return func(yield func(int, *FS) bool) {
		h := newHistory(f.begin)
		at := 0
		for _, moment := range moments {
			for ; at < moment; at++ {
				h.apply(log[at])
			}
			if !yield(moment, newFS(h.crash(rng))) {
				return
			}
		}
	}
}

// A history follows the record and knows, at each moment, what is durable and
// what it could be instead.
type history struct {
	now     *world
	files   map[int]*fileHistory
	names   map[int]map[string]int // durable, by folder
	pending []*change              // not durable, in order
	last    map[place]*change      // the latest pending change of a name
}

func newHistory(begin *world) *history {
	h := &history{
		now:   begin.clone(),
		files: make(map[int]*fileHistory),
		names: begin.clone().dirs,
		last:  make(map[place]*change),
	}
	for node, c := range begin.files {
		h.files[node] = newFileHistory(c)
	}
	return h
}

func (h *history) apply(o op) {
	switch o.kind {
	case opWrite, opTruncate, opPunch:
		touched := h.now.files[o.node].touched(o)
		h.now.apply(o)
		h.files[o.node].changed(h.now.files[o.node], touched)
		return
	case opSync:
		h.files[o.node].sync(h.now.files[o.node])
		return
	case opSyncDir:
		h.syncDir(o.dir)
		return
	}
	h.now.apply(o)
	switch o.kind {
	case opCreate:
		h.files[o.node] = newFileHistory(h.now.files[o.node])
		h.change(o.dir, nil, put{o.name, o.node})
	case opMkdir:
		h.names[o.node] = make(map[string]int)
		h.change(o.dir, nil, put{o.name, o.node})
	case opRemove:
		h.change(o.dir, nil, put{o.name, gone})
	case opRename:
		h.rename(o)
	}
}

// crash builds one world that a loss of power could leave now.
func (h *history) crash(rng *rand.Rand) *world {
	names := h.crashNames(rng)
	w := newWorld()
	w.next = h.now.next
	var walk func(dir int)
	walk = func(dir int) {
		w.dirs[dir] = names[dir]
		for _, name := range slices.Sorted(maps.Keys(names[dir])) {
			node := names[dir][name]
			if f := h.files[node]; f != nil && w.files[node] == nil {
				w.files[node] = f.crash(rng)
			} else if f == nil && w.dirs[node] == nil {
				walk(node)
			}
		}
	}
	walk(root)
	return w
}
