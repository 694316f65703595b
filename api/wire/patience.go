package wire

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// Patience is how long a client may be silent within a request or not take
// what is sent. An upload may last for hours as long as it moves.
const Patience = 60 * time.Second

// patienceStep is how often a deadline is moved while bytes flow.
const patienceStep = 5 * time.Second

// NewServer returns an http.Server with the limits every listener should
// have: headers that come slowly or are long are refused, a connection without
// a request is closed, and the length of a request is not limited here.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 20 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// PatientBody returns the body of r so that a read fails once the client has
// been silent for Patience. That holds too for a body that no handler reads:
// the HTTP server itself waits for it before it answers.
func PatientBody(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	b := &patientBody{body: r.Body, conn: http.NewResponseController(w)}
	if r.ContentLength != 0 {
		b.wait()
	}
	return b
}

type patientBody struct {
	body  io.ReadCloser
	conn  *http.ResponseController
	set   time.Time
	begun bool // a read was tried: who waited for "100 Continue" was told
	done  bool
	ended bool // all of it came
}

// wait moves the deadline.
func (b *patientBody) wait() {
	if now := time.Now(); now.Sub(b.set) > patienceStep {
		b.conn.SetReadDeadline(now.Add(Patience)) // without one the read is merely less guarded
		b.set = now
	}
}

func (b *patientBody) Read(p []byte) (int, error) {
	b.begun = true
	if !b.done {
		b.wait()
	}
	n, err := b.body.Read(p)
	if err != nil && !b.done {
		// The server goes on watching the connection: a deadline left
		// behind would look like a client that hung up.
		b.done, b.ended = true, errors.Is(err, io.EOF)
		b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *patientBody) Close() error { return b.body.Close() }

// drainTime is how long the rest of a refused body is taken.
const drainTime = 10 * time.Second

// Refuse answers err as Finish does and then takes what still comes of the
// body for a while: most clients read no answer before they have sent
// everything, and a closed connection would leave them without the reason.
// Who waits for "100 Continue" sends nothing.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	body, ok := r.Body.(*patientBody)
	waits := ok && !body.begun && r.Header.Get("Expect") != ""
	if err == nil || !ok || waits || body.ended || r.ContentLength == 0 {
		Finish(w, r, err)
		return
	}
	w.Header().Set("Connection", "close") // or a body that never ended might be read as the next request
	body.conn.EnableFullDuplex()          // without it the rest may be lost, not the answer
	Finish(w, r, err)
	body.conn.Flush()
	body.drain()
}

// drain reads until the end, an error, or the end of drainTime. The deadline
// stays: the HTTP server would wait for the rest again.
func (b *patientBody) drain() {
	end := time.Now().Add(drainTime)
	if b.done {
		end = time.Now() // it broke off before
	}
	b.conn.SetReadDeadline(end)
	buf := make([]byte, 64<<10)
	for time.Now().Before(end) {
		if _, err := b.body.Read(buf); err != nil {
			return
		}
	}
}

// PatientWriter returns w so that a write fails once the client has taken
// nothing for Patience. Done must be called at the end. A Recorder does this
// by itself.
func PatientWriter(w http.ResponseWriter) *Patient {
	return &Patient{w: w, conn: http.NewResponseController(w)}
}

// A Patient is a writer with a deadline that moves.
type Patient struct {
	w    http.ResponseWriter
	conn *http.ResponseController
	set  time.Time
}

// Write writes p, or fails when the client does not take it in time.
func (p *Patient) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.set) > patienceStep {
		p.conn.SetWriteDeadline(now.Add(Patience)) // without one the write is merely less guarded
		p.set = now
	}
	return p.w.Write(b)
}

// Done removes the deadline, since the connection may serve other requests.
func (p *Patient) Done() { p.conn.SetWriteDeadline(time.Time{}) }
