package wire

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// A Recorder is a ResponseWriter that remembers what was answered. A write
// fails once the client has taken nothing for Patience.
type Recorder struct {
	http.ResponseWriter
	Status int    // 0 until the answer begins
	Bytes  int64  // of the body
	Route  string // "GET /v2/images/{id}", or "" when none matched
	Err    error  // what the handler returned

	deadline time.Time // when the deadline was last moved
}

// sendPiece is how much ReadFrom sends before it moves the deadline.
const sendPiece = 4 << 20

// Done removes the deadline, since the connection may serve other requests.
func (rec *Recorder) Done() {
	if !rec.deadline.IsZero() {
		http.NewResponseController(rec.ResponseWriter).SetWriteDeadline(time.Time{})
	}
}

func (rec *Recorder) beforeWrite() {
	if rec.Status == 0 {
		rec.Status = http.StatusOK
	}
	if now := time.Now(); now.Sub(rec.deadline) > patienceStep {
		// A writer without deadlines is merely less guarded.
		http.NewResponseController(rec.ResponseWriter).SetWriteDeadline(now.Add(Patience))
		rec.deadline = now
	}
}

// WriteHeader begins the answer.
func (rec *Recorder) WriteHeader(status int) {
	if rec.Status == 0 && status >= 200 {
		rec.Status = status
	}
	rec.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (rec *Recorder) Write(p []byte) (int, error) {
	rec.beforeWrite()
	n, err := rec.ResponseWriter.Write(p)
	rec.Bytes += int64(n)
	return n, err
}

// ReadFrom sends a part of the body from r; a file goes out by sendfile.
func (rec *Recorder) ReadFrom(r io.Reader) (sent int64, err error) {
	for {
		rec.beforeWrite()
		n, err := io.CopyN(rec.ResponseWriter, r, sendPiece)
		rec.Bytes += n
		sent += n
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return sent, err
		}
	}
}

// Flush sends what is buffered.
func (rec *Recorder) Flush() {
	http.NewResponseController(rec.ResponseWriter).Flush() // what cannot flush does not buffer for long
}

// Unwrap is for http.ResponseController.
func (rec *Recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// Log writes the line of one request. Server errors are errors, the rest is
// information; a token, a query and a body never appear.
func (rec *Recorder) Log(ctx context.Context, log *slog.Logger, r *http.Request, took time.Duration) {
	level, status := slog.LevelInfo, rec.Status
	if status == 0 {
		status = http.StatusOK
	}
	if status >= 500 && status != http.StatusNotImplemented { // what is not built is no fault
		level = slog.LevelError
	}
	if !log.Enabled(ctx, level) {
		return
	}
	who := IdentityFrom(ctx)
	attrs := []slog.Attr{
		slog.String("request_id", RequestID(ctx)), slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.Int64("bytes", rec.Bytes), slog.Duration("took", took),
		slog.String("client", r.RemoteAddr),
	}
	for _, a := range []slog.Attr{
		slog.String("global_request_id", GlobalRequestID(ctx)),
		slog.String("user", who.UserID), slog.String("project", who.ProjectID),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if rec.Err != nil {
		attrs = append(attrs, slog.String("err", rec.Err.Error()))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}

// Audit writes the line of one change: what was done to what, and by whom.
func Audit(ctx context.Context, log *slog.Logger, action, kind, id string, more ...slog.Attr) {
	if log == nil {
		return
	}
	who := IdentityFrom(ctx)
	attrs := append([]slog.Attr{
		slog.String("action", action), slog.String("kind", kind), slog.String("id", id),
		slog.String("request_id", RequestID(ctx)), slog.String("user", who.UserID), slog.String("project", who.ProjectID),
	}, more...)
	log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}
