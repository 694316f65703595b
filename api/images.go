package api

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// maxImageJSON bounds the body of a create or a PATCH: 128 properties of the
// greatest length would not fit, but then nobody has those.
const maxImageJSON = 1 << 20

// noImage is the error for an image that is not there or not to be seen; the
// two look alike.
func noImage(id string) error {
	return wire.Errorf(http.StatusNotFound, "No image found with ID %.255s", id)
}

// writeImage answers with one image.
func (s *Server) writeImage(ctx context.Context, w http.ResponseWriter, status int, img catalog.Image) error {
	var e encoder
	s.appendImage(&e, s.shown(ctx, img), s.showsLocations(ctx, &img))
	return writeRaw(w, status, e.b)
}

// shown is an image without what the caller may not see of it. Where the
// bytes are of one that is switched off, only administrators see.
func (s *Server) shown(ctx context.Context, img catalog.Image) catalog.Image {
	img.Properties = s.cfg.Protect.Visible(ctx, img.Properties)
	if img.Status == catalog.StatusDeactivated && !wire.IdentityFrom(ctx).Admin {
		img.Locations = nil
	}
	return img
}

func (s *Server) showImage(w http.ResponseWriter, r *http.Request) error {
	img, err := s.lookup(r, "get_image")
	if err != nil {
		return err
	}
	return s.writeImage(r.Context(), w, http.StatusOK, img)
}

func (s *Server) listImages(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	who := wire.IdentityFrom(ctx)
	values, err := queryValues(r)
	if err != nil {
		return err
	}
	q, err := parseQuery(values, s.cfg.Paging)
	if err != nil {
		return err
	}
	if err := s.allow(ctx, "get_images", wire.Target{Kind: "images", Owner: who.ProjectID}); err != nil {
		return err
	}
	q.Viewer = viewer(who)
	for key := range q.Properties {
		if !s.cfg.Protect.Allow(ctx, who, protect.Read, key) {
			return writeRaw(w, http.StatusOK, s.page(ctx, values, nil, q.Limit)) // as if no image had it
		}
	}
	limit := q.Limit
	q.Limit = max(limit, 1) // 0 would be all; even so the marker must be known
	list, err := s.cfg.Catalog.Images(ctx, q)
	if errors.Is(err, catalog.ErrMarker) {
		err = noMarker(q.Marker)
	}
	if err != nil {
		return err
	}
	list = list[:min(limit, len(list))]
	return writeRaw(w, http.StatusOK, s.page(ctx, values, list, limit))
}

// page writes a page of images with its links. Images that the policy hides
// are left out; the link to the next page counts them.
func (s *Server) page(ctx context.Context, values url.Values, list []catalog.Image, limit int) []byte {
	var e encoder
	e.b = make([]byte, 0, 1024*(len(list)+1))
	e.open('{')
	e.key("images")
	e.open('[')
	for i := range list {
		if s.allow(ctx, "get_image", s.target(ctx, &list[i])) != nil {
			continue
		}
		if e.comma {
			e.b = append(e.b, ',')
		}
		s.appendImage(&e, s.shown(ctx, list[i]), s.showsLocations(ctx, &list[i]))
	}
	e.close(']')
	values.Del("marker")
	e.text("first", link("/v2/images", values))
	e.text("schema", "/v2/schemas/images")
	if len(list) > 0 && len(list) == limit {
		values.Set("marker", list[len(list)-1].ID)
		e.text("next", link("/v2/images", values))
	}
	e.close('}')
	return e.b
}

func link(path string, values url.Values) string {
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// createImage checks in Glance's order: JSON, forbidden keys, schema, names,
// policy, what only the server sets, quotas, and at last the id.
func (s *Server) createImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	var body map[string]any
	if err := wire.ReadJSON(r, maxImageJSON, &body); err != nil {
		return err
	}
	if body == nil {
		return wire.Errorf(http.StatusBadRequest, "The request body must be a JSON object.")
	}
	img, err := s.newImage(ctx, body)
	if err != nil {
		return err
	}
	img, err = s.cfg.Catalog.CreateImage(ctx, img)
	if errors.Is(err, fs.ErrExist) {
		return wire.Errorf(http.StatusConflict, "Image ID %s already exists, or did: ids of deleted images stay taken. Leave id out to get a new one.", body["id"])
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.create", "image", img.ID)
	w.Header().Set("Location", s.baseURL(r)+imageURL(img.ID))
	if methods := s.importMethods(); len(methods) > 0 {
		w.Header().Set("OpenStack-Image-Import-Methods", strings.Join(methods, ","))
	}
	if s.manyStores() {
		var ids []string
		for _, st := range s.cfg.Stores {
			ids = append(ids, st.ID)
		}
		w.Header().Set("OpenStack-Image-Store-Ids", strings.Join(ids, ","))
	}
	return s.writeImage(ctx, w, http.StatusCreated, img)
}

// newImage makes the record that a create asks for.
func (s *Server) newImage(ctx context.Context, body map[string]any) (catalog.Image, error) {
	who := wire.IdentityFrom(ctx)
	img := catalog.Image{
		ID: uuid.NewString(), Status: catalog.StatusQueued, Visibility: catalog.VisibilityShared,
		Owner: who.ProjectID, Properties: map[string]string{},
	}
	if err := s.checkNew(body); err != nil {
		return img, err
	}
	for key, value := range body {
		if key == "id" {
			img.ID, _ = value.(string)
		} else if !setBase(&img, key, value) && !isHashName(key) && value != nil {
			img.Properties[key], _ = value.(string)
		}
	}
	for key := range img.Properties {
		if err := s.cfg.Protect.Check(ctx, protect.Create, key); err != nil {
			return img, err
		}
	}
	_, said := body["visibility"]
	if err := s.allowNew(ctx, &img, said); err != nil {
		return img, err
	}
	for _, key := range readOnlyNames() {
		if _, ok := body[key]; ok && key != "id" && !isHashName(key) {
			return img, wire.Errorf(http.StatusForbidden, "Attribute '%s' is read-only.", key)
		}
	}
	return img, s.checkQuotas(img, catalog.Image{})
}

// isHashName matches the two names that a create takes and passes over: the
// server sets them, and nobody would ever see what the client said.
func isHashName(key string) bool { return key == "os_hash_algo" || key == "os_hash_value" }

// checkNew checks the keys and values of a create.
func (s *Server) checkNew(body map[string]any) error {
	for _, key := range []string{"direct_url", "self", "file", "schema", "stores"} {
		if _, ok := body[key]; ok {
			return wire.Errorf(http.StatusForbidden, "Attribute '%s' is read-only.", key)
		}
	}
	for key, value := range body {
		if err := s.checker.check(key, value); err != nil {
			return err
		}
	}
	for key := range body {
		if key == "locations" {
			return wire.Errorf(http.StatusForbidden, "Locations are set by the service; they are not part of a new image.")
		}
		if err := checkReserved(key); err != nil {
			return err
		}
		if strings.TrimSpace(key) == "" {
			return wire.Errorf(http.StatusBadRequest, "A property needs a name.")
		}
	}
	return nil
}

// setBase sets the base property key, checked before, and tells whether it
// is one that clients set.
func setBase(img *catalog.Image, key string, value any) bool {
	text, _ := value.(string)
	flag, _ := value.(bool)
	switch key {
	case "name":
		img.Name = nil
		if value != nil {
			img.Name = &text
		}
	case "visibility":
		img.Visibility = catalog.Visibility(text)
	case "protected":
		img.Protected = flag
	case "os_hidden":
		img.Hidden = flag
	case "owner":
		img.Owner = text
	case "disk_format":
		img.DiskFormat = text
	case "container_format":
		img.ContainerFormat = text
	case "min_disk":
		img.MinDisk, _ = integer(value)
	case "min_ram":
		img.MinRAM, _ = integer(value)
	case "tags":
		img.Tags = tagSet(value)
	default:
		return slices.Contains(readOnlyNames(), key) && !isHashName(key)
	}
	return true
}

func tagSet(value any) []string {
	list, _ := value.([]any)
	tags := make([]string, 0, len(list))
	for _, v := range list {
		tag, _ := v.(string)
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// checkQuotas refuses an image with too many properties or tags, unless it
// had as many before: one must be able to reduce them.
func (s *Server) checkQuotas(img, before catalog.Image) error {
	if n := countProperties(img); over(n, s.cfg.Limits.Properties) && n > countProperties(before) {
		return quota("properties", s.cfg.Limits.Properties, n)
	}
	if n := len(img.Tags); over(n, s.cfg.Limits.Tags) && n > len(before.Tags) {
		return quota("tags", s.cfg.Limits.Tags, n)
	}
	return nil
}

func over(n, limit int) bool { return limit >= 0 && n > limit }

func countProperties(img catalog.Image) (n int) {
	for key := range img.Properties {
		if !strings.HasPrefix(key, reservedPrefix) {
			n++
		}
	}
	return n
}

func quota(what string, limit, n int) error {
	return wire.Errorf(http.StatusRequestEntityTooLarge,
		"The limit of %s on one image is %d; this would make %d. Remove some first.", what, limit, n)
}

func (s *Server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	img, err := s.lookup(r, "delete_image")
	if err != nil {
		return err
	}
	if img.Protected {
		return wire.Errorf(http.StatusForbidden, "Image %s is protected and cannot be deleted. Set protected to false first.", img.ID)
	}
	if s.cfg.Deletable != nil {
		if err := s.cfg.Deletable(ctx, img); err != nil {
			return err
		}
	}
	if _, err := s.cfg.Catalog.DeleteImage(ctx, img.ID); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = noImage(img.ID)
		}
		return err
	}
	if s.cfg.Importer != nil && img.Status == catalog.StatusUploading {
		s.cfg.Importer.Forget(ctx, img.ID)
	}
	wire.Audit(ctx, s.cfg.Logger, "image.delete", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
