package wire

import (
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
// been silent for Patience.
func PatientBody(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	return &patientBody{body: r.Body, conn: http.NewResponseController(w)}
}

type patientBody struct {
	body io.ReadCloser
	conn *http.ResponseController
	set  time.Time
	done bool
}

func (b *patientBody) Read(p []byte) (int, error) {
	if now := time.Now(); !b.done && now.Sub(b.set) > patienceStep {
		b.conn.SetReadDeadline(now.Add(Patience)) // without one the read is merely less guarded
		b.set = now
	}
	n, err := b.body.Read(p)
	if err != nil && !b.done {
		// The server goes on watching the connection: a deadline left
		// behind would look like a client that hung up.
		b.done = true
		b.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *patientBody) Close() error { return b.body.Close() }

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
