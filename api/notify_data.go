package api

import (
	"context"
	"net/http"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// sent tells of a download that is over, if its answer had begun.
func (s *Server) sent(ctx context.Context, w http.ResponseWriter, img catalog.Image, part span) {
	if rec, ok := w.(*wire.Recorder); ok && (rec.Status == http.StatusOK || rec.Status == http.StatusPartialContent) {
		s.cfg.Notify.Sent(ctx, img, rec.Bytes, part.n)
	}
}

// uploadFailed tells of data that was not taken, in the words that the client
// gets: what went wrong inside is for the log.
func (s *Server) uploadFailed(ctx context.Context, image string, err error) {
	s.cfg.Notify.UploadFailed(ctx, image, wire.Message(ctx, err))
}
