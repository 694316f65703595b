package nbd

import "sync"

// keepIdle is how many idle workers a crew keeps; more are let go.
const keepIdle = 64

// A crew is the goroutines that serve requests which may have to wait. They
// are shared by all connections, because starting one costs an allocation and
// keeping some for each connection costs memory. How many work at once is
// limited by each connection, so none can take the workers of another.
type crew struct {
	mu      sync.Mutex
	idle    []*worker
	stopped bool
	all     sync.WaitGroup
}

type worker struct{ jobs chan *request }

// do has r served by an idle worker or, if there is none, by a new one.
func (k *crew) do(r *request) {
	k.mu.Lock()
	if n := len(k.idle); n > 0 {
		w := k.idle[n-1]
		k.idle = k.idle[:n-1]
		k.mu.Unlock()
		w.jobs <- r
		return
	}
	k.mu.Unlock()
	w := &worker{jobs: make(chan *request, 1)}
	w.jobs <- r
	k.all.Go(func() { k.work(w) })
}

// work serves requests until the worker is let go.
func (k *crew) work(w *worker) {
	for r := range w.jobs {
		r.conn.finish(r)
		if !k.park(w) {
			return
		}
	}
}

// park makes w idle, or reports that it is not needed any more.
func (k *crew) park(w *worker) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped || len(k.idle) >= keepIdle {
		return false
	}
	k.idle = append(k.idle, w)
	return true
}

// stop lets all workers go and waits for them. Nobody calls do afterwards.
func (k *crew) stop() {
	k.mu.Lock()
	k.stopped = true
	for _, w := range k.idle {
		close(w.jobs)
	}
	k.idle = nil
	k.mu.Unlock()
	k.all.Wait()
}
