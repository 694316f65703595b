package platter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/catalog"
)

const (
	// defaultExtents and maxExtents bound one page of a map.
	defaultExtents = 10_000
	maxExtents     = 100_000

	// pieceSize is how much of a disk is read at once.
	pieceSize = 1 << 20
)

type extentView struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Kind   string `json:"kind"`
}

func (s *Server) mapImage(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "offset", "limit")
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", defaultExtents, 1, maxExtents)
	if err != nil {
		return err
	}
	img, disk, err := s.open(r)
	if err != nil {
		return err
	}
	defer disk.Close()
	off, err := number(q, "offset", 0, 0, disk.Size())
	if err != nil {
		return err
	}
	out := struct {
		ImageID string       `json:"image_id"`
		Size    int64        `json:"size"`
		Extents []extentView `json:"extents"`
		Next    *int64       `json:"next_offset"`
	}{ImageID: img.ID, Size: disk.Size(), Extents: []extentView{}}
	for e, err := range block.Extents(r.Context(), disk, off, disk.Size()-off) {
		if err != nil {
			return err
		}
		if int64(len(out.Extents)) == limit {
			out.Next = &e.Off
			break
		}
		out.Extents = append(out.Extents, extentView{e.Off, e.Len, e.Kind.String()})
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "format")
	if err != nil {
		return err
	}
	name := q.Get("format")
	switch name {
	case "", "raw", "qcow2":
	case "vmdk", "vpc", "vhd":
		return wire.Errorf(http.StatusNotImplemented, "Exporting as %s is not built yet; there are raw and qcow2.", name)
	default:
		return badRequest("format=%.32q is not known; there are raw, qcow2, vmdk and vpc.", name)
	}
	img, disk, err := s.open(r)
	if err != nil {
		return err
	}
	defer disk.Close()
	if name == "qcow2" {
		return s.exportQcow2(w, r, img, disk)
	}
	disposition(w, img, "raw")
	http.ServeContent(w, r, "", time.Time{}, &seeker{ctx: r.Context(), disk: disk})
	return nil
}

// exportQcow2 streams a qcow2 whose size is known before its first byte.
func (s *Server) exportQcow2(w http.ResponseWriter, r *http.Request, img catalog.Image, disk block.Reader) error {
	opts := qcow2.EncodeOptions{}
	size, err := qcow2.EncodedSize(r.Context(), disk, opts)
	if err != nil {
		return fmt.Errorf("export image %s as qcow2: %w", img.ID, err)
	}
	disposition(w, img, "qcow2")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	return qcow2.Encode(r.Context(), w, disk, opts)
}

// disposition says what the answer is and under which name to keep it.
func disposition(w http.ResponseWriter, img catalog.Image, ext string) {
	name := img.ID
	if img.Name != nil && *img.Name != "" {
		name = strings.Map(func(c rune) rune {
			if c < ' ' || strings.ContainsRune(`/\:*?"<>|`, c) {
				return '_'
			}
			return c
		}, *img.Name)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	if d := mime.FormatMediaType("attachment", map[string]string{"filename": name + "." + ext}); d != "" {
		h.Set("Content-Disposition", d)
	}
	if len(img.Locations) > 0 && img.Locations[0].Generation != "" {
		h.Set("ETag", strconv.Quote(img.Locations[0].Generation+"-"+ext))
	}
}

// A seeker is a disk as package http wants it. It reads ahead within its own
// buffer, since it is asked for small pieces.
type seeker struct {
	ctx  context.Context // the request's; the interface has no other way
	disk block.Reader
	off  int64
	buf  []byte // bytes of the disk at at
	at   int64
}

func (s *seeker) Read(p []byte) (int, error) {
	rest := s.disk.Size() - s.off
	if rest <= 0 {
		return 0, io.EOF
	}
	if s.off < s.at || s.off >= s.at+int64(len(s.buf)) {
		n := min(rest, pieceSize)
		if cap(s.buf) == 0 {
			s.buf = make([]byte, n)
		}
		s.buf, s.at = s.buf[:min(n, int64(cap(s.buf)))], s.off
		if err := s.disk.ReadAt(s.ctx, s.buf, s.off); err != nil {
			s.buf = s.buf[:0]
			return 0, err
		}
	}
	n := copy(p, s.buf[s.off-s.at:])
	s.off += int64(n)
	return n, nil
}

func (s *seeker) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += s.off
	case io.SeekEnd:
		off += s.disk.Size()
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	s.off = off
	return off, nil
}

// open opens the disk of the image that a request names.
func (s *Server) open(r *http.Request) (catalog.Image, block.ReadCloser, error) {
	img, err := s.readable(r)
	if err != nil {
		return img, nil, err
	}
	disk, err := s.cfg.Disks.OpenDisk(r.Context(), img)
	return img, disk, err
}

// readable finds the image that a request names, if who asks may read it.
func (s *Server) readable(r *http.Request) (catalog.Image, error) {
	img, err := s.image(r.Context(), r.PathValue("image_id"))
	if err != nil {
		return img, err
	}
	return img, s.mayRead(r.Context(), img)
}

// image finds an image that who asks may know of. The policy is still to be
// asked.
func (s *Server) image(ctx context.Context, id string) (catalog.Image, error) {
	img, err := s.cfg.Catalog.Image(ctx, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.cfg.Catalog.CanSee(viewer(wire.IdentityFrom(ctx)), img) {
		return img, notFound("image", id)
	}
	return img, err
}

// mayRead tells whether who asks may read the bytes of img, and whether it
// has any.
func (s *Server) mayRead(ctx context.Context, img catalog.Image) error {
	if err := s.allowHidden(ctx, "download_image", "get_image", s.target(ctx, &img)); err != nil {
		return err
	}
	switch {
	case img.Status == catalog.StatusDeactivated:
		if wire.IdentityFrom(ctx).Admin {
			return nil
		}
		return wire.Errorf(http.StatusForbidden, "The image %s is deactivated; an administrator can reactivate it.", img.ID)
	case !img.Status.HasData():
		return conflict("The image %s is %s and has no data yet; upload it first.", img.ID, img.Status)
	}
	return nil
}

// target describes an image to the policy.
func (s *Server) target(ctx context.Context, img *catalog.Image) wire.Target {
	member := ""
	who := wire.IdentityFrom(ctx)
	if img.Visibility == catalog.VisibilityShared && who.ProjectID != "" && who.ProjectID != img.Owner {
		if _, err := s.cfg.Catalog.Member(ctx, img.ID, who.ProjectID); err == nil {
			member = who.ProjectID
		}
	}
	return policy.TargetOf(img, member)
}
