package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format"
	"github.com/seed-478a8fee/platter/catalog"
)

// pieceSize is how much a download reads and sends at once.
const pieceSize = 512 << 10

// upload hands the body on as it comes.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/octet-stream" {
		return wire.Errorf(http.StatusUnsupportedMediaType,
			"The Content-Type of image data must be application/octet-stream, not %.100q.", r.Header.Get("Content-Type"))
	}
	img, err := s.lookup(r, "upload_image")
	if err != nil {
		return err
	}
	if (img.DiskFormat == "" || img.ContainerFormat == "") && img.Status == catalog.StatusQueued {
		return wire.Errorf(http.StatusBadRequest, "Properties disk_format, container_format must be set prior to saving data.")
	}
	size, err := announcedSize(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Data.Put(ctx, img.ID, r.Body, size, r.Header.Get("X-Image-Meta-Store")); err != nil {
		err = explain(img.ID, err)
		s.uploadFailed(ctx, img.ID, err)
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.upload", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// announcedSize is the number of bytes that an upload will have, or -1.
func announcedSize(r *http.Request) (int64, error) {
	size := r.ContentLength
	if v := r.Header.Get("X-Openstack-Image-Size"); v != "" {
		n, ok := digits(v)
		if !ok {
			return 0, wire.Errorf(http.StatusBadRequest, "The header x-openstack-image-size must be a number, not %.40q.", v)
		}
		if size >= 0 && size != n {
			return 0, wire.Errorf(http.StatusBadRequest,
				"The header x-openstack-image-size says %d bytes and Content-Length %d.", n, size)
		}
		size = n
	}
	return size, nil
}

// explain gives the refusal of an upload the words for who sent it.
func explain(id string, err error) error {
	if status, ok := errors.AsType[*catalog.StatusError](err); ok {
		if status.From == catalog.StatusSaving {
			return wire.Errorf(http.StatusConflict, "Image %s is being uploaded by somebody else. Wait for that upload to end.", id)
		}
		return wire.Errorf(http.StatusConflict,
			"Image %s is %s, and its data stays what it is. Create another image for other data.", id, status.From)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return wire.Errorf(http.StatusGone, "The store for image %s can only be read, so it takes no data. Name another one in X-Image-Meta-Store.", id)
	}
	refusal, ok := errors.AsType[*format.Refusal](err)
	if !ok {
		return err
	}
	looks := "is declared as " + refusal.Declared + " and looks like " + cmp.Or(refusal.Found, "no known format")
	if refusal.Found == refusal.Declared {
		looks = "is " + refusal.Found + " as declared, but must not be taken"
	}
	return wire.Errorf(http.StatusUnsupportedMediaType,
		"The data for image %s was refused: it %s: %s. The image is queued again; upload other data, or first correct disk_format.",
		id, looks, strings.TrimSuffix(wire.WithoutKind(refusal.Reason), "; correct disk_format"))
}

func (s *Server) download(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	img, err := s.find(r)
	if err != nil {
		return err
	}
	if img.Status == catalog.StatusDeactivated && !wire.IdentityFrom(ctx).Admin {
		return wire.Errorf(http.StatusForbidden, "The requested image has been deactivated. Image data download is forbidden.")
	}
	if err := s.allowImage(ctx, "download_image", &img); err != nil {
		return err
	}
	if !img.Status.HasData() || img.Size == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	part, err := requestedSpan(r.Header, *img.Size)
	if err != nil {
		return err
	}
	data, err := s.cfg.Data.Open(ctx, img)
	if err != nil {
		return err
	}
	defer data.Close()
	if data.Size() != *img.Size {
		return errors.New("image " + img.ID + ": its record and its store do not agree on the size")
	}
	err = s.send(ctx, w, img, data, part)
	s.sent(ctx, w, img, part)
	return err
}

// send sends a part of an image. The first piece is read before the answer
// begins, so that a store that is away has a status of its own.
func (s *Server) send(ctx context.Context, w http.ResponseWriter, img catalog.Image, data block.Reader, part span) error {
	piece := s.pieces.Get().(*[pieceSize]byte)
	defer s.pieces.Put(piece)
	started := false
	for off, end := part.off, part.off+part.n; off < end || !started; {
		p := piece[:min(int64(pieceSize), end-off)]
		if err := data.ReadAt(ctx, p, off); err != nil {
			return err
		}
		if !started {
			sendHeader(w, img, part)
			started = true
		}
		if _, err := w.Write(p); err != nil {
			return errors.Join(context.Canceled, err)
		}
		off += int64(len(p))
	}
	return nil
}

func sendHeader(w http.ResponseWriter, img catalog.Image, part span) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", itoa(part.n))
	if img.Checksum != "" {
		h.Set("Content-MD5", img.Checksum) // in hex and of the whole image, as clients expect
	}
	status := http.StatusOK
	if part.partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", "bytes "+itoa(part.off)+"-"+itoa(part.off+part.n-1)+"/"+itoa(*img.Size))
	}
	w.WriteHeader(status)
}

func itoa[T int | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// writeRaw answers with JSON that is encoded already.
func writeRaw(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body) // a client that is gone is no error of ours
	return nil
}

// writeText answers with plain text.
func writeText(w http.ResponseWriter, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.Header().Set("Content-Length", itoa(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text) // a client that is gone is no error of ours
	return nil
}
