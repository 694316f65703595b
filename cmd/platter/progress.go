package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
)

// A progress says how far something long is: a bar on a terminal, now and
// then a line elsewhere. It counts what is written to it, or is told.
type progress struct {
	w     io.Writer
	tty   bool
	verb  string
	done  atomic.Int64
	total atomic.Int64 // -1 is not known
	begin time.Time
	stop  chan struct{}
	ended chan struct{}
}

// track begins to show progress; end it with finish.
func (p *program) track(verb string, total int64) *progress {
	g := &progress{w: p.err, tty: p.tty, verb: verb, begin: time.Now(),
		stop: make(chan struct{}), ended: make(chan struct{})}
	g.total.Store(total)
	go g.show()
	return g
}

// Write counts what passes.
func (g *progress) Write(b []byte) (int, error) {
	g.done.Add(int64(len(b)))
	return len(b), nil
}

// add counts n more bytes; fewer if what they were of must be done again.
func (g *progress) add(n int64) { g.done.Add(n) }

// set tells how far it is.
func (g *progress) set(done, total int64) {
	g.done.Store(done)
	g.total.Store(total)
}

// finish ends the display.
func (g *progress) finish() {
	close(g.stop)
	<-g.ended
}

func (g *progress) show() {
	defer close(g.ended)
	every := 5 * time.Second
	if g.tty {
		every = 100 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if g.tty {
				fmt.Fprintf(g.w, "\r\033[K%s", g.line())
			} else {
				fmt.Fprintln(g.w, g.line())
			}
		case <-g.stop:
			if g.tty {
				fmt.Fprint(g.w, "\r\033[K")
			}
			return
		}
	}
}

const barWidth = 30

// line is one moment of the display.
func (g *progress) line() string {
	done, total := g.done.Load(), g.total.Load()
	rate := float64(done) / max(time.Since(g.begin).Seconds(), 0.001)
	speed := human(int64(rate)) + "/s"
	if total <= 0 {
		return fmt.Sprintf("%s %s  %s", g.verb, human(done), speed)
	}
	part := min(float64(done)/float64(total), 1)
	left := ""
	if rate > 0 && done < total {
		left = "  " + time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second).String() + " left"
	}
	bar := ""
	if g.tty {
		full := int(part * barWidth)
		bar = "[" + strings.Repeat("=", full) + strings.Repeat(" ", barWidth-full) + "] "
	}
	return fmt.Sprintf("%s %s%3.0f%%  %s of %s  %s%s", g.verb, bar, part*100, human(done), human(total), speed, left)
}
