package platter

import (
	"net/http"
	"strconv"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// Conns shows and cuts the live NBD connections of this gateway. The owner of
// the Server provides it.
type Conns interface {
	// Conns returns the connections, oldest first.
	Conns() []ConnInfo

	// Kick cuts the connection with a number, waits until its export is
	// closed, and tells whether there was one.
	Kick(id uint64) bool
}

// A ConnInfo tells about a live connection. Counts are since it was made.
type ConnInfo struct {
	ID                         uint64
	Client, Transport          string
	Peer                       string // who the client's certificate names; "": it has shown none
	Export                     string // what it has open; never a secret; "": nothing yet
	Headers                    string // of replies: simple, structured or extended
	Writable                   bool
	Since                      time.Time
	InFlight, Requests, Errors int64
	Read, Written              int64 // bytes
}

type connView struct {
	ID        uint64  `json:"id"`
	Client    string  `json:"client"`
	Transport string  `json:"transport"`
	Peer      *string `json:"peer"`
	Export    *string `json:"export"`
	Headers   *string `json:"headers"`
	Writable  bool    `json:"writable"`
	Since     string  `json:"since"`
	Age       int64   `json:"age_seconds"`
	InFlight  int64   `json:"in_flight"`
	Requests  int64   `json:"requests"`
	Read      int64   `json:"read_bytes"`
	Written   int64   `json:"written_bytes"`
	Errors    int64   `json:"errors"`
}

func (s *Server) listConns(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if err := s.allow(r.Context(), "platter:get_nbd_connections", wire.Target{Kind: "nbd connection"}); err != nil {
		return err
	}
	out := struct {
		Connections []connView `json:"connections"`
	}{[]connView{}}
	if s.cfg.Conns != nil {
		for _, c := range s.cfg.Conns.Conns() {
			out.Connections = append(out.Connections, connView{
				ID: c.ID, Client: c.Client, Transport: c.Transport, Peer: orNull(c.Peer), Export: orNull(c.Export), Headers: orNull(c.Headers),
				Writable: c.Writable, Since: stamp(c.Since), Age: int64(time.Since(c.Since).Seconds()),
				InFlight: c.InFlight, Requests: c.Requests, Read: c.Read, Written: c.Written, Errors: c.Errors,
			})
		}
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (s *Server) kick(w http.ResponseWriter, r *http.Request) error {
	word := r.PathValue("connection_id")
	id, err := strconv.ParseUint(word, 10, 64)
	if denied := s.allow(r.Context(), "platter:delete_nbd_connection", wire.Target{Kind: "nbd connection", ID: word}); denied != nil {
		return denied
	}
	if err != nil || s.cfg.Conns == nil || !s.cfg.Conns.Kick(id) {
		return notFound("NBD connection", word)
	}
	wire.Audit(r.Context(), s.log, "kick", "nbd connection", word)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
