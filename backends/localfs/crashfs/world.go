package crashfs

import (
	"io/fs"
	"maps"
	"slices"
	"time"
)

// root is the node of the folder that an FS begins with.
const root = 0

// The kinds of operation that are recorded.
type opKind uint8

const (
	opWrite    opKind = iota // node, off, n, data
	opTruncate               // node, off is the size
	opPunch                  // node, off, n
	opSync                   // node
	opCreate                 // node, dir, name
	opMkdir                  // node, dir, name
	opRemove                 // node, dir, name
	opRename                 // node, dir, name, dir2, name2
	opSyncDir                // dir
)

// An op is one change or one sync. Nodes stand for files and folders, so that
// an open file can be renamed or removed.
type op struct {
	kind        opKind
	node        int
	off, n      int64
	data        []byte
	dir, dir2   int
	name, name2 string
	at          time.Time
}

// A world is a file system at one moment.
type world struct {
	files map[int]*content
	dirs  map[int]map[string]int
	next  int // the node of what is created next
}

func newWorld() *world {
	return &world{
		files: make(map[int]*content),
		dirs:  map[int]map[string]int{root: {}},
		next:  root + 1,
	}
}

func (w *world) clone() *world {
	c := &world{
		files: make(map[int]*content, len(w.files)),
		dirs:  make(map[int]map[string]int, len(w.dirs)),
		next:  w.next,
	}
	for node, file := range w.files {
		c.files[node] = file.clone()
	}
	for node, dir := range w.dirs {
		c.dirs[node] = maps.Clone(dir)
	}
	return c
}

func (w *world) apply(o op) {
	switch o.kind {
	case opWrite, opTruncate, opPunch:
		w.files[o.node].apply(o)
	case opCreate:
		w.files[o.node] = newContent()
		w.files[o.node].at = o.at
		w.dirs[o.dir][o.name] = o.node
		w.next++
	case opMkdir:
		w.dirs[o.node] = make(map[string]int)
		w.dirs[o.dir][o.name] = o.node
		w.next++
	case opRemove:
		delete(w.dirs[o.dir], o.name)
	case opRename:
		w.dirs[o.dir2][o.name2] = o.node
		delete(w.dirs[o.dir], o.name)
	}
}

func (w *world) list(dir map[string]int) []fs.DirEntry {
	var entries []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(dir)) {
		i := info{name: name}
		if c := w.files[dir[name]]; c != nil {
			i.size, i.at = c.size, c.at
		} else {
			i.dir = true
		}
		entries = append(entries, fs.FileInfoToDirEntry(i))
	}
	return entries
}

const pageSize = 4096

// A page never changes once it is in a content: a write puts another in its
// place. So histories and states share them.
type page [pageSize]byte

// A content is what a file holds. A page that is missing is a hole.
type content struct {
	size  int64
	pages map[int64]*page
	at    time.Time // of the last change
}

func newContent() *content { return &content{pages: make(map[int64]*page)} }

func (c *content) clone() *content {
	return &content{size: c.size, pages: maps.Clone(c.pages), at: c.at}
}

func (c *content) apply(o op) {
	c.at = o.at
	switch o.kind {
	case opWrite:
		c.write(o.data, o.off)
	case opTruncate:
		if o.off < c.size {
			c.zero(o.off, c.size-o.off)
		}
		c.size = o.off
	case opPunch:
		if n := min(o.n, c.size-o.off); n > 0 {
			c.zero(o.off, n)
		}
	}
}

// touched returns the pages that o is about to change.
func (c *content) touched(o op) []int64 {
	if o.kind == opWrite {
		var pages []int64
		for i := o.off / pageSize; i*pageSize < o.off+o.n; i++ {
			pages = append(pages, i)
		}
		return pages
	}
	low, high := o.off, c.size
	if o.kind == opPunch {
		high = o.off + o.n
	}
	var pages []int64
	for i := range c.pages {
		if low < (i+1)*pageSize && i*pageSize < high {
			pages = append(pages, i)
		}
	}
	return pages
}

func (c *content) read(p []byte, off int64) int {
	n := int(max(min(int64(len(p)), c.size-off), 0))
	for done := 0; done < n; {
		at := off + int64(done)
		in := int(at % pageSize)
		piece := min(n-done, pageSize-in)
		if pg := c.pages[at/pageSize]; pg != nil {
			copy(p[done:done+piece], pg[in:])
		} else {
			clear(p[done : done+piece])
		}
		done += piece
	}
	return n
}

func (c *content) write(p []byte, off int64) {
	c.size = max(c.size, off+int64(len(p)))
	for len(p) > 0 {
		in := int(off % pageSize)
		pg := new(page)
		if old := c.pages[off/pageSize]; old != nil {
			*pg = *old
		}
		n := copy(pg[in:], p)
		c.pages[off/pageSize] = pg
		p, off = p[n:], off+int64(n)
	}
}

// zero frees whole pages, and the last one of the file, and clears parts.
func (c *content) zero(off, n int64) {
	end := off + n
	if end >= c.size {
		end = (c.size + pageSize - 1) / pageSize * pageSize
	}
	for i, old := range c.pages {
		low, high := max(off, i*pageSize), min(end, (i+1)*pageSize)
		switch {
		case low >= high:
		case high-low == pageSize:
			delete(c.pages, i)
		default:
			pg := new(page)
			*pg = *old
			clear(pg[low-i*pageSize : high-i*pageSize])
			c.pages[i] = pg
		}
	}
}

func (c *content) run(off, n int64) (int64, bool) {
	hole := c.pages[off/pageSize] == nil
	end := off
	for end < off+n && (c.pages[end/pageSize] == nil) == hole {
		end = end/pageSize*pageSize + pageSize
	}
	return min(end, off+n) - off, hole
}
