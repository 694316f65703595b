package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// Limits of the queue of images that the cache is to hold whole.
const (
	maxQueued   = 10_000
	maxFills    = 5 // of one image that comes whole and is not kept whole
	firstRetry  = time.Second
	lastRetry   = 5 * time.Minute
	maxNotes    = 4 << 20 // bytes of the file
	notesFormat = 1
)

// errQueueFull is the error of one image too many.
var errQueueFull = errors.New("the queue is full")

// A use is what is told of an image that the cache has whole.
type use struct {
	Hits     int64     `json:"hits"` // how often it was opened since it is whole
	Accessed time.Time `json:"accessed"`
	Modified time.Time `json:"modified"` // when it became whole, as far as anybody saw
}

// cacheNotes are what is kept beside the cache: which images are to be
// fetched, and how those that are whole were used. The queue is written down
// as it changes; uses now and then, so a crash may lose the last ones.
type cacheNotes struct {
	file string
	wake chan struct{} // has something when there may be work

	mu    sync.Mutex
	queue []toFetch
	uses  map[string]use // by generation
	dirty bool           // uses are newer than the file

	writing sync.Mutex // held while the file is written
}

// A toFetch is an image in the queue.
type toFetch struct {
	image string
	tries int       // that failed
	after time.Time // when it is tried
	stop  func()    // of the try that is under way
}

type notesFile struct {
	Version int            `json:"version"`
	Queue   []string       `json:"queue"`
	Uses    map[string]use `json:"uses"`
}

// readCacheNotes reads the file. One that is missing or damaged is empty: all
// that is lost is what to fetch ahead.
func readCacheNotes(file string) (*cacheNotes, error) {
	n := &cacheNotes{file: file, wake: make(chan struct{}, 1), uses: map[string]use{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	var f notesFile
	if err == nil && len(data) <= maxNotes {
		err = json.Unmarshal(data, &f)
	}
	if err != nil || f.Version != notesFormat || len(f.Queue) > maxQueued {
		return n, fmt.Errorf("%s cannot be read, so the queue of the cache is empty: %w", file, errors.Join(err, fs.ErrInvalid))
	}
	for _, id := range f.Queue {
		n.queue = append(n.queue, toFetch{image: id})
	}
	if f.Uses != nil {
		n.uses = f.Uses
	}
	n.nudge()
	return n, nil
}

// write writes the file.
func (n *cacheNotes) write() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	data, err := json.Marshal(notesFile{notesFormat, n.queued(), n.uses})
	n.dirty = false
	n.mu.Unlock()
	if err == nil {
		err = writeFile(n.file, string(data)+"\n")
	}
	if err != nil {
		return fmt.Errorf("write down what the cache is to fetch: %w", err)
	}
	return nil
}

// queued returns the ids of the queue. The caller holds n.mu.
func (n *cacheNotes) queued() []string {
	ids := []string{}
	for _, w := range n.queue {
		ids = append(ids, w.image)
	}
	return ids
}

// waitingImages returns the queue.
func (n *cacheNotes) waitingImages() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.queued()
}

// add puts an image last, if it is not in the queue.
func (n *cacheNotes) add(image string) error {
	n.mu.Lock()
	if n.find(image) >= 0 {
		n.mu.Unlock()
		return nil
	}
	if len(n.queue) >= maxQueued {
		n.mu.Unlock()
		return errQueueFull
	}
	n.queue = append(n.queue, toFetch{image: image})
	n.mu.Unlock()
	n.nudge()
	return n.write()
}

// find returns the place of an image in the queue, or -1. The caller holds
// n.mu.
func (n *cacheNotes) find(image string) int {
	return slices.IndexFunc(n.queue, func(w toFetch) bool { return w.image == image })
}

// remove takes images out of the queue, all of them for "", and stops what is
// fetched of them. It tells whether there was one.
func (n *cacheNotes) remove(image string) (bool, error) {
	n.mu.Lock()
	before := len(n.queue)
	n.queue = slices.DeleteFunc(n.queue, func(w toFetch) bool {
		gone := image == "" || w.image == image
		if gone && w.stop != nil {
			w.stop()
		}
		return gone
	})
	changed := len(n.queue) != before
	n.mu.Unlock()
	if !changed {
		return false, nil
	}
	return true, n.write()
}

// next returns the image that is to be fetched now, or how long there is
// nothing to do. stop is called if it is taken out of the queue meanwhile.
func (n *cacheNotes) next(now time.Time, stop func()) (image string, tries int, pause time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	pause = lastRetry
	for i := range n.queue {
		w := &n.queue[i]
		if left := w.after.Sub(now); left > 0 {
			pause = min(pause, left)
			continue
		}
		w.stop = stop
		return w.image, w.tries, 0
	}
	return "", 0, pause
}

// failed puts an image behind the others, for later.
func (n *cacheNotes) failed(image string, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.find(image)
	if i < 0 {
		return
	}
	w := n.queue[i]
	w.stop, w.after = nil, now.Add(min(firstRetry<<min(w.tries, 16), lastRetry))
	w.tries++
	n.queue = append(slices.Delete(n.queue, i, i+1), w)
}

// nudge wakes whoever works on the queue.
func (n *cacheNotes) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// note changes what is known of a generation that is whole, which came at
// the time grown, if that is known.
func (n *cacheNotes) note(generation string, grown, now time.Time, hits int64) use {
	n.mu.Lock()
	defer n.mu.Unlock()
	u, known := n.uses[generation]
	if grown.After(u.Modified) && known {
		known = false // it was not whole for a while: what was counted is of another time
	}
	if !known {
		if grown.IsZero() {
			grown = now
		}
		u = use{Modified: grown, Accessed: grown}
	}
	if hits > 0 {
		u.Hits, u.Accessed = u.Hits+hits, now
	}
	if !known || hits > 0 {
		n.uses[generation], n.dirty = u, true
	}
	return u
}

// keepOnly forgets the uses of what is no longer whole.
func (n *cacheNotes) keepOnly(whole map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for g := range n.uses {
		if !whole[g] {
			delete(n.uses, g)
			n.dirty = true
		}
	}
}

// flush writes uses down, if there are new ones.
func (n *cacheNotes) flush() error {
	n.mu.Lock()
	dirty := n.dirty
	n.mu.Unlock()
	if !dirty {
		return nil
	}
	return n.write()
}
