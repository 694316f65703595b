package main

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
)

const (
	// exportsKept is how many exports have numbers of their own. Further ones
	// are counted together, as otherExports.
	exportsKept  = 4096
	otherExports = "other"

	// exportIdle is how long an export without a connection keeps its numbers.
	exportIdle = 15 * time.Minute
)

// latencyBounds are the upper bounds of the buckets of latency, from 10 µs to
// 10 s.
var latencyBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// commandCount is how many commands are counted.
const commandCount = int(nbd.CmdBlockStatus) + 1

// counts are the numbers of one command. Goroutines may add at once.
type counts struct {
	bytes   atomic.Int64
	took    atomic.Int64 // nanoseconds
	buckets [len(latencyBounds) + 1]atomic.Int64
}

// request counts one request.
func (c *counts) request(bytes int64, took time.Duration) {
	c.bytes.Add(bytes)
	c.took.Add(int64(took))
	lo, hi := 0, len(latencyBounds)
	for lo < hi {
		mid := (lo + hi) / 2
		if took <= latencyBounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	c.buckets[lo].Add(1)
}

// add adds the numbers of another.
func (c *counts) add(o *counts) {
	c.bytes.Add(o.bytes.Load())
	c.took.Add(o.took.Load())
	for i := range o.buckets {
		if n := o.buckets[i].Load(); n != 0 {
			c.buckets[i].Add(n)
		}
	}
}

// An errorKey is an error that clients were told.
type errorKey struct {
	cmd   nbd.Command
	errno nbd.Errno
}

// tally are the numbers of a connection, of an export, or of all.
type tally struct {
	commands [commandCount]atomic.Pointer[counts] // nil: never used

	mu     sync.Mutex
	errors map[errorKey]int64
}

// of returns the numbers of a command.
func (t *tally) of(cmd nbd.Command) *counts {
	if c := t.commands[cmd].Load(); c != nil {
		return c
	}
	t.commands[cmd].CompareAndSwap(nil, new(counts))
	return t.commands[cmd].Load()
}

// failed counts an error. Errors are rare, or nobody's speed matters.
func (t *tally) failed(k errorKey, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.errors == nil {
		t.errors = map[errorKey]int64{}
	}
	t.errors[k] += n
}

// add adds the numbers of another.
func (t *tally) add(o *tally) {
	for cmd := range o.commands {
		if c := o.commands[cmd].Load(); c != nil {
			t.of(nbd.Command(cmd)).add(c)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, n := range o.errors {
		t.failed(k, n)
	}
}

// connMeter counts the requests of one connection. No other connection writes
// to the same memory: what they have in common is added up when somebody asks.
type connMeter struct {
	tally
	of    *nbdMetrics
	label string
}

// Request counts one request.
func (c *connMeter) Request(cmd nbd.Command, bytes int64, took time.Duration, errno nbd.Errno) {
	if int(cmd) >= commandCount {
		return
	}
	c.tally.of(cmd).request(bytes, took)
	if errno != 0 {
		c.failed(errorKey{cmd, errno}, 1)
	}
}

// Closed counts the end of the connection.
func (c *connMeter) Closed() { c.of.closed(c) }

// exportTally are the numbers of an export.
type exportTally struct {
	past  tally // of connections that are closed
	conns map[*connMeter]struct{}
	idle  time.Time // since when there is no connection
}

// nbdMetrics are the numbers of NBD.
type nbdMetrics struct {
	now       func() time.Time
	tlsFailed atomic.Int64

	mu      sync.Mutex
	conns   func() []nbd.ConnInfo // nil: no server yet
	past    tally                 // of all connections that are closed
	exports map[string]*exportTally
}

func newNBDMetrics() *nbdMetrics {
	return &nbdMetrics{now: time.Now, exports: map[string]*exportTally{}}
}

// watch shows the connections of a server.
func (m *nbdMetrics) watch(conns func() []nbd.ConnInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = conns
}

// Connected makes the meter of a connection.
func (m *nbdMetrics) Connected(info nbd.ConnInfo) nbd.Meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &connMeter{of: m, label: info.Export}
	e := m.exports[c.label]
	if e == nil {
		m.forget()
		if len(m.exports) >= exportsKept {
			c.label = otherExports
		}
		if e = m.exports[c.label]; e == nil {
			e = &exportTally{conns: map[*connMeter]struct{}{}}
			m.exports[c.label] = e
		}
	}
	e.conns[c] = struct{}{}
	return c
}

// closed keeps the numbers of a connection that has ended.
func (m *nbdMetrics) closed(c *connMeter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.exports[c.label]
	delete(e.conns, c)
	e.past.add(&c.tally)
	m.past.add(&c.tally)
	if len(e.conns) == 0 {
		e.idle = m.now()
	}
}

// forget drops exports that nobody has used for a while. The caller holds
// m.mu.
func (m *nbdMetrics) forget() {
	for label, e := range m.exports {
		if len(e.conns) == 0 && m.now().Sub(e.idle) >= exportIdle {
			delete(m.exports, label)
		}
	}
}

// snapshot returns the numbers of every export, and of all that there were.
func (m *nbdMetrics) snapshot() (all *tally, exports map[string]*tally, conns []nbd.ConnInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget()
	all, exports = &tally{}, map[string]*tally{}
	all.add(&m.past)
	for label, e := range m.exports {
		sum := &tally{}
		sum.add(&e.past)
		for c := range e.conns {
			sum.add(&c.tally)
			all.add(&c.tally)
		}
		exports[label] = sum
	}
	if m.conns != nil {
		conns = m.conns()
	}
	return all, exports, conns
}
