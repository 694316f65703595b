package crashfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// A fileHistory is what a file holds for certain and what it held since.
type fileHistory struct {
	synced *content
	sizes  []int64           // since the last sync
	pages  map[int64][]*page // by page, each content since the last sync
}

func newFileHistory(c *content) *fileHistory {
	return &fileHistory{synced: c.clone(), pages: make(map[int64][]*page)}
}

// changed notes what the touched pages, and the size, have become.
func (f *fileHistory) changed(now *content, touched []int64) {
	for _, i := range touched {
		f.pages[i] = append(f.pages[i], now.pages[i])
	}
	if last := f.latestSize(); now.size != last {
		f.sizes = append(f.sizes, now.size)
	}
}

func (f *fileHistory) latestSize() int64 {
	if len(f.sizes) == 0 {
		return f.synced.size
	}
	return f.sizes[len(f.sizes)-1]
}

// sync forgets the alternatives.
func (f *fileHistory) sync(now *content) {
	for i := range f.pages {
		f.synced.set(i, now.pages[i])
	}
	f.synced.size, f.synced.at = now.size, now.at
	f.sizes = nil
	clear(f.pages)
}

func (c *content) set(i int64, pg *page) {
	if pg == nil {
		delete(c.pages, i)
		return
	}
	c.pages[i] = pg
}

// A style is how one file fares in one crash. Pure styles are likelier to show
// a mistake than an even mixture of everything.
type style int

const (
	allOld style = iota
	allNew
	mixedPages   // blocks of 4096
	mixedSectors // blocks of 512
	styles
)

// crash chooses a content that the file could have now.
func (f *fileHistory) crash(rng *rand.Rand) *content {
	how := style(rng.IntN(int(styles)))
	c := f.synced.clone()
	for _, i := range slices.Sorted(maps.Keys(f.pages)) {
		c.set(i, choose(rng, how, f.synced.pages[i], f.pages[i]))
	}
	size := pick(rng, how, f.synced.size, f.sizes)
	// Blocks can be there that the size does not reach.
	c.size = max(c.size, f.latestSize(), slices.Max(append(f.sizes, 0)))
	c.apply(op{kind: opTruncate, off: size, at: c.at})
	return c
}

// pick chooses among what was and what came since.
func pick[T any](rng *rand.Rand, how style, old T, since []T) T {
	if len(since) == 0 || how == allOld {
		return old
	}
	if how == allNew {
		return since[len(since)-1]
	}
	if n := rng.IntN(len(since) + 1); n > 0 {
		return since[n-1]
	}
	return old
}

const sectorSize = 512

// choose is pick for a page, which with mixedSectors is put together from
// several.
func choose(rng *rand.Rand, how style, old *page, since []*page) *page {
	if how != mixedSectors {
		return pick(rng, how, old, since)
	}
	torn := new(page)
	for at := 0; at < pageSize; at += sectorSize {
		if from := pick(rng, how, old, since); from != nil {
			copy(torn[at:at+sectorSize], from[at:])
		}
	}
	return torn
}
