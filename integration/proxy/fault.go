package proxy

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Rule says which requests a fault meets. The zero value means each.
type Rule struct {
	Method string // GET, PUT, ...; each if empty
	Path   string // part of the path
	Query  string // part of the query, as "uploadId="
	Range  string // part of the header Range, as "bytes=0-"

	// Match says yes to a request as well, if set.
	Match func(*http.Request) bool

	Skip  int // so many of them pass first
	Every int // then each so manyth is met; each if 0
	Times int // so many are met at most; no limit if 0

	proxy *Proxy
	fault Fault
	seen  int
	hits  int
}

// A Fault is what happens to a request.
type Fault struct {
	delay         time.Duration
	status        int
	body          string
	before, after ending
	ignoreRange   bool
	pretend       int
	header        map[string]string

	cutsRequest bool
	cutRequest  int64

	cuts    bool
	cut     int64
	rest    ending // after the cut; intact means an end of the connection
	short   bool
	drip    int64
	corrupt bool
	at      int64
}

// An ending is what becomes of the client's connection.
type ending int

const (
	intact ending = iota
	reset
	hang
)

// Answer answers in the store's place; the store gets no request.
func Answer(status int, body string) Fault { return Fault{status: status, body: body} }

// Delay lets the request wait before it goes on.
func Delay(d time.Duration) Fault { return Fault{delay: d} }

// ResetBefore resets the connection; the store gets no request.
func ResetBefore() Fault { return Fault{before: reset} }

// ResetAfter resets the connection when the store has done what was asked and
// has answered.
func ResetAfter() Fault { return Fault{after: reset} }

// HangBefore takes the request and never says anything; the store gets no
// request.
func HangBefore() Fault { return Fault{before: hang} }

// HangAfter lets the store do what was asked and never says anything.
func HangAfter() Fault { return Fault{after: hang} }

// CutRequest ends the connection to the store after n bytes of the request's
// body, and resets the client's.
func CutRequest(n int64) Fault { return Fault{cutsRequest: true, cutRequest: n} }

// Cut closes the connection after n bytes of the answer's body, short of the
// length that was announced.
func Cut(n int64) Fault { return Fault{cuts: true, cut: n} }

// Stall sends n bytes of the answer's body and nothing after; the connection
// stays open.
func Stall(n int64) Fault { return Fault{cuts: true, cut: n, rest: hang} }

// Short ends the answer's body after n bytes and announces that length: the
// answer is whole and not what was asked for.
func Short(n int64) Fault { return Fault{cuts: true, cut: n, short: true} }

// Drip carries the answer's body at so many bytes a second.
func Drip(bytesPerSecond int64) Fault { return Fault{drip: bytesPerSecond} }

// Corrupt changes the byte at an offset of the answer's body.
func Corrupt(offset int64) Fault { return Fault{corrupt: true, at: offset} }

// IgnoreRange makes the store one that knows no ranges: it answers 200 and
// sends everything.
func IgnoreRange() Fault { return Fault{ignoreRange: true} }

// Pretend sends the store's answer under another status, without Content-Range.
func Pretend(status int) Fault { return Fault{pretend: status} }

// SetHeader changes a header of the store's answer.
func SetHeader(name, value string) Fault { return Fault{header: map[string]string{name: value}} }

// Add makes a rule: the fault meets requests that match from now on. Of several
// rules that match a request, the one that was added first meets it.
func (p *Proxy) Add(r Rule, f Fault) *Rule {
	r.proxy, r.fault = p, f
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &r)
	return &r
}

// Remove ends the rule. Requests that it met before stay as they are.
func (r *Rule) Remove() {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	r.proxy.rules = slices.DeleteFunc(r.proxy.rules, func(o *Rule) bool { return o == r })
}

// Hits returns how many requests the rule has met.
func (r *Rule) Hits() int {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	return r.hits
}

// Clear removes all rules.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = nil
}

// faultFor finds the rule that meets a request.
func (p *Proxy) faultFor(r *http.Request) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rule := range p.rules {
		if rule.meets(r) {
			return rule.fault, true
		}
	}
	return Fault{}, false
}

func (r *Rule) meets(req *http.Request) bool {
	if r.Method != "" && r.Method != req.Method || !strings.Contains(req.URL.Path, r.Path) || !strings.Contains(req.URL.RawQuery, r.Query) ||
		!strings.Contains(req.Header.Get("Range"), r.Range) || r.Match != nil && !r.Match(req) {
		return false
	}
	r.seen++
	n := r.seen - r.Skip
	if n <= 0 || n%max(1, r.Every) != 0 || r.Times > 0 && r.hits >= r.Times {
		return false
	}
	r.hits++
	return true
}

// spoil returns the body as the fault leaves it.
func (f Fault) spoil(body io.Reader, header http.Header) io.Reader {
	if f.corrupt {
		body = &corrupted{body: body, at: f.at}
	}
	if f.short {
		header.Del("Content-Length") // Go writes the one that is true, or none
		return io.LimitReader(body, f.cut)
	}
	if f.cuts {
		return io.MultiReader(io.LimitReader(body, f.cut), broken{})
	}
	return body
}

// broken is a body that cannot go on.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errCut }

// corrupted changes one byte.
type corrupted struct {
	body io.Reader
	at   int64 // offset of the byte from here
}

func (c *corrupted) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if c.at >= 0 && c.at < int64(n) {
		p[c.at] ^= 0x55
	}
	c.at -= int64(n)
	return n, err
}

// breakOff takes the client's connection out of HTTP's hands.
func (x *exchange) breakOff(e ending) {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if e == reset {
		noLinger(conn)
		return
	}
	// Nothing is said; the client may go on sending, until it has had enough.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn.SetReadDeadline(time.Time{})
		io.Copy(io.Discard, conn)
	}()
	select {
	case <-gone:
	case <-x.p.done:
		conn.Close()
		<-gone
	}
}

// noLinger makes a close of the connection a reset.
func noLinger(conn net.Conn) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // below TLS
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}
