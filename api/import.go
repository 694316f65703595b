package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// importMethods are those that clients can use here.
func (s *Server) importMethods() []string {
	if s.cfg.Importer == nil {
		return []string{}
	}
	return s.cfg.Importer.Methods()
}

func (s *Server) importInfo(w http.ResponseWriter, _ *http.Request) error {
	return wire.WriteJSON(w, http.StatusOK, object{"import-methods": object{
		"description": "Import methods available.", "type": "array", "value": s.importMethods(),
	}})
}

// stage keeps image data for a later import.
func (s *Server) stage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if !slices.Contains(s.importMethods(), importer.Direct) {
		return wire.Errorf(http.StatusNotFound, "'glance-direct' method is not available at this site. Upload with PUT …/file instead.")
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/octet-stream" {
		return wire.Errorf(http.StatusUnsupportedMediaType,
			"The Content-Type of image data must be application/octet-stream, not %.100q.", r.Header.Get("Content-Type"))
	}
	img, err := s.lookup(r, "modify_image")
	if err != nil {
		return err
	}
	size, err := announcedSize(r)
	if err != nil {
		return err
	}
	err = s.cfg.Importer.Stage(ctx, img.ID, r.Body, size)
	if status, ok := errors.AsType[*catalog.StatusError](err); ok {
		return wire.Errorf(http.StatusConflict, "Data can be staged while an image is queued; image %s is %s.", img.ID, status.From)
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.cfg.Logger, "image.stage", "image", img.ID)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// An importBody is the body of an import, checked as far as that is possible
// without the image.
type importBody struct {
	raw     map[string]any
	text    []byte
	method  string
	uri     string
	from    importer.Source
	stores  []string // nil: not named
	all     bool
	succeed bool // all_stores_must_succeed
}

func (s *Server) readImport(r *http.Request) (*importBody, error) {
	text, err := wire.ReadBody(r, maxSmallJSON)
	if err != nil {
		return nil, err
	}
	b := &importBody{text: text, succeed: true}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, wire.Errorf(http.StatusBadRequest, "Body expected in request.")
	}
	if err := wire.ParseJSON(text, &b.raw); err != nil {
		return nil, err
	}
	method, ok := b.raw["method"].(map[string]any)
	if !ok {
		return nil, wire.Errorf(http.StatusBadRequest, "Import request requires a 'method' field, which is an object.")
	}
	name, ok := method["name"]
	if !ok {
		return nil, wire.Errorf(http.StatusBadRequest, "Import request requires a 'name' field.")
	}
	b.method, _ = name.(string)
	if !slices.Contains(s.importMethods(), b.method) {
		return nil, wire.Errorf(http.StatusBadRequest, "Unknown import method name '%.60v'. There are: %s.", name, strings.Join(s.importMethods(), ", "))
	}
	b.uri, _ = method["uri"].(string)
	for key, flag := range map[string]*bool{"all_stores_must_succeed": &b.succeed, "all_stores": &b.all} {
		if v, ok := b.raw[key]; ok {
			if *flag, ok = v.(bool); !ok {
				return nil, wire.Errorf(http.StatusBadRequest, "'%s' must be boolean value only.", key)
			}
		}
	}
	b.from.Image, _ = method["glance_image_id"].(string)
	b.from.Region, _ = method["glance_region"].(string)
	b.from.Interface = "public"
	if v, ok := method["glance_service_interface"].(string); ok {
		b.from.Interface = v
	}
	b.from.Token = r.Header.Get("X-Auth-Token")
	return b, b.readStores()
}

// checkSource checks which image of another service is meant.
func (b *importBody) checkSource() error {
	if b.method != importer.Glance {
		return nil
	}
	method, _ := b.raw["method"].(map[string]any)
	for _, key := range []string{"glance_region", "glance_image_id"} {
		if _, ok := method[key]; !ok {
			return wire.Errorf(http.StatusBadRequest, "'%s' needs to be set for glance-download import method.", key)
		}
	}
	if _, err := uuid.Parse(b.from.Image); err != nil {
		return wire.Errorf(http.StatusBadRequest, "Remote image id does not look like a UUID: %.60q.", b.from.Image)
	}
	return nil
}

func (b *importBody) readStores() error {
	v, ok := b.raw["stores"]
	if !ok {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return wire.Errorf(http.StatusBadRequest, "'stores' must be a list of names of stores.")
	}
	b.stores = []string{}
	for _, item := range list {
		name, ok := item.(string)
		if !ok {
			return wire.Errorf(http.StatusBadRequest, "'stores' must be a list of names of stores.")
		}
		if !slices.Contains(b.stores, name) {
			b.stores = append(b.stores, name)
		}
	}
	return nil
}

// importImage begins an import. The order of the checks is Glance's.
func (s *Server) importImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	b, err := s.readImport(r)
	if err != nil {
		return err
	}
	img, err := s.find(r)
	if err == nil {
		err = s.allowImage(ctx, "get_image", &img)
	}
	if err == nil {
		err = importable(&img, b.method)
	}
	if err == nil {
		err = b.checkSource()
	}
	if err == nil {
		err = s.allowImage(ctx, importRule(b.method), &img)
	}
	if err != nil {
		return err
	}
	if lock := img.Properties["os_glance_import_task"]; lock != "" {
		if err := s.cfg.Importer.Locked(ctx, &img); err != nil {
			return explainImport(img.ID, err)
		}
	}
	stores, done, err := s.importStores(r, b, &img)
	if err != nil {
		return err
	}
	if done {
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if b.method == importer.Direct {
		elsewhere, err := s.cfg.Importer.StagedAt(&img)
		if err != nil {
			return wire.Errorf(http.StatusConflict, "%w", err)
		}
		if elsewhere != "" {
			return s.passOn(w, r, elsewhere, b.text)
		}
	}
	if b.method == importer.Web {
		if err := s.cfg.Importer.CheckURI(b.uri); err != nil {
			return wire.Errorf(http.StatusBadRequest, "URI for web-download does not pass filtering: %w", err)
		}
	}
	who := wire.IdentityFrom(ctx)
	task, err := s.cfg.Importer.Start(ctx, importer.Request{
		Image: img.ID, Method: b.method, URI: b.uri, From: b.from, Stores: stores, AllMustSucceed: b.succeed, Body: b.raw,
		Owner: who.ProjectID, UserID: who.UserID, RequestID: wire.RequestID(ctx),
	})
	if err != nil {
		return explainImport(img.ID, err)
	}
	wire.Audit(ctx, s.cfg.Logger, "image.import", "image", img.ID)
	w.Header().Set("OpenStack-Image-Import-Task", task.ID)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func importRule(method string) string {
	if method == importer.Copy {
		return "copy_image"
	}
	return "modify_image"
}

// importable tells whether an image is in the right state for a method.
func importable(img *catalog.Image, method string) error {
	conflict := func(format string, args ...any) error { return wire.Errorf(http.StatusConflict, format, args...) }
	switch {
	case method != importer.Copy && img.Status == catalog.StatusActive:
		return conflict("Image with status active cannot be target for import.")
	case method == importer.Copy && img.Status != catalog.StatusActive:
		return conflict("Only images with status active can be targeted for copying; image %s is %s.", img.ID, img.Status)
	case (method == importer.Web || method == importer.Glance) && img.Status != catalog.StatusQueued:
		return conflict("Image needs to be in 'queued' state to use '%s' method; image %s is %s.", method, img.ID, img.Status)
	case method == importer.Direct && img.Status != catalog.StatusUploading:
		return conflict("Image needs to be staged before 'glance-direct' method can be used; image %s is %s.", img.ID, img.Status)
	case img.ContainerFormat == "":
		return conflict("'container_format' needs to be set before import.")
	case img.DiskFormat == "":
		return conflict("'disk_format' needs to be set before import.")
	}
	return nil
}

// importStores chooses the stores that an import fills. done tells that there
// is nothing to do.
func (s *Server) importStores(r *http.Request, b *importBody, img *catalog.Image) (stores []string, done bool, err error) {
	header := r.Header.Get("X-Image-Meta-Store")
	if !s.manyStores() {
		if !b.succeed {
			return nil, false, wire.Errorf(http.StatusBadRequest, "all_stores_must_succeed can only be set where there are several stores.")
		}
		if b.method == importer.Copy {
			return nil, false, wire.Errorf(http.StatusBadRequest, "There is one store only, and image %s is in it.", img.ID)
		}
		return []string{s.cfg.DefaultStore}, false, nil
	}
	switch {
	case b.all && (b.stores != nil || header != ""):
		return nil, false, wire.Errorf(http.StatusBadRequest, "The all_stores parameter can't be used with the x-image-meta-store header or the stores parameter.")
	case b.all:
		stores = s.writable()
	case b.stores != nil && header != "":
		return nil, false, wire.Errorf(http.StatusBadRequest, "The stores parameter and the x-image-meta-store header can't be both specified.")
	case b.stores != nil:
		stores = b.stores
	case header != "":
		stores = []string{header}
	default:
		stores = []string{s.cfg.DefaultStore}
	}
	for _, name := range stores {
		if !slices.ContainsFunc(s.cfg.Stores, func(st Store) bool { return st.ID == name }) {
			return nil, false, wire.Errorf(http.StatusConflict, "Store %.64q is not known here; there are %s.", name, strings.Join(s.writable(), ", "))
		}
	}
	if len(stores) == 0 {
		return nil, false, wire.Errorf(http.StatusBadRequest, "'stores' names no store.")
	}
	if b.method != importer.Copy {
		return stores, false, nil
	}
	has := storesOf(*img)
	if b.all {
		stores = slices.DeleteFunc(stores, func(name string) bool { return slices.Contains(has, name) })
		return stores, len(stores) == 0, nil
	}
	for _, name := range stores {
		if slices.Contains(has, name) {
			return nil, false, wire.Errorf(http.StatusBadRequest, "Image is already present at store '%.64s'.", name)
		}
	}
	return stores, false, nil
}

// writable names the stores that take bytes, the default one first.
func (s *Server) writable() []string {
	var names []string
	for _, st := range s.cfg.Stores {
		if !st.ReadOnly {
			names = append(names, st.ID)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		switch s.cfg.DefaultStore {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return names
}

// explainImport gives the refusal of an import its words.
func explainImport(id string, err error) error {
	if status, ok := errors.AsType[*catalog.StatusError](err); ok {
		return wire.Errorf(http.StatusConflict, "Image %s is %s by now, and cannot be imported.", id, status.From)
	}
	switch {
	case errors.Is(err, importer.ErrLocked):
		return wire.Errorf(http.StatusConflict, "Image %s has an active task: wait for its end. %w", id, err)
	case errors.Is(err, importer.ErrBusy):
		return wire.Errorf(http.StatusServiceUnavailable, "Image %s: %w", id, err).With("Retry-After", "30")
	}
	return err
}

// passedHeader marks a request that another gateway has passed on: it is not
// passed on again.
const passedHeader = "X-Platter-Passed-On"

// passWithin bounds how long another gateway may take to answer.
const passWithin = 60 * time.Second

// passOn sends an import to the gateway that has the staged data, with the
// caller's own token, and its answer back.
func (s *Server) passOn(w http.ResponseWriter, r *http.Request, gateway string, body []byte) error {
	if r.Header.Get(passedHeader) != "" {
		return wire.Errorf(http.StatusBadGateway, "The gateways do not agree on who has the staged data; correct their import.self_url.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), passWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(gateway, "/")+r.URL.EscapedPath(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for _, key := range []string{"X-Auth-Token", "X-Service-Token", "Content-Type", "X-Image-Meta-Store", "Accept"} {
		if v := r.Header.Get(key); v != "" {
			req.Header.Set(key, v)
		}
	}
	req.Header.Set(passedHeader, uuid.NewString())
	req.Header.Set(wire.RequestIDHeader, wire.RequestID(r.Context()))
	resp, err := s.peers.Do(req)
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "an import could not be passed on", "gateway", gateway, "err", err)
		return wire.Errorf(http.StatusGatewayTimeout, "The gateway that has the staged data does not answer. Try again, or delete the image and stage it anew.")
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxSmallJSON))
	if err != nil {
		return wire.Errorf(http.StatusBadGateway, "The gateway that has the staged data broke off its answer.")
	}
	for _, key := range []string{"Content-Type", "OpenStack-Image-Import-Task", "Retry-After"} {
		if v := resp.Header.Get(key); v != "" {
			w.Header().Set(key, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	w.Write(answer) // a client that is gone is no error of ours
	return nil
}

// importTask begins an import the old way: a task makes an image and fills it
// from the web.
func (s *Server) importTask(w http.ResponseWriter, r *http.Request, input map[string]any) error {
	ctx := r.Context()
	if !slices.Contains(s.importMethods(), importer.Web) {
		return wire.Errorf(http.StatusForbidden, "Tasks of type import are not enabled at this site: there is no web-download.")
	}
	for _, key := range []string{"import_from", "import_from_format", "image_properties"} {
		if _, ok := input[key]; !ok {
			return wire.Errorf(http.StatusBadRequest, "Input does not contain '%s' field.", key)
		}
	}
	uri, _ := input["import_from"].(string)
	if err := s.cfg.Importer.CheckURI(uri); err != nil {
		return wire.Errorf(http.StatusBadRequest, "import_from cannot be used: %w", err)
	}
	properties, ok := input["image_properties"].(map[string]any)
	if !ok {
		return wire.Errorf(http.StatusBadRequest, "image_properties must be an object.")
	}
	img, err := s.newImage(ctx, properties)
	if err == nil {
		err = importable(&img, importer.Web)
	}
	if err == nil {
		img, err = s.cfg.Catalog.CreateImage(ctx, img)
	}
	if err != nil {
		return err
	}
	who := wire.IdentityFrom(ctx)
	task, err := s.cfg.Importer.Start(ctx, importer.Request{
		Image: img.ID, Method: importer.Web, URI: uri, Stores: []string{s.cfg.DefaultStore}, AllMustSucceed: true,
		Body: map[string]any{"method": map[string]any{"name": importer.Web, "uri": uri}}, Type: "import", Input: input,
		Owner: who.ProjectID, UserID: who.UserID, RequestID: wire.RequestID(ctx),
	})
	if err != nil {
		if _, e := s.cfg.Catalog.DeleteImage(context.WithoutCancel(ctx), img.ID); e != nil {
			s.cfg.Logger.WarnContext(ctx, "the image of a task that was refused stays", "image", img.ID, "err", e)
		}
		return explainImport(img.ID, err)
	}
	wire.Audit(ctx, s.cfg.Logger, "task.create", "task", task.ID)
	w.Header().Set("Location", s.baseURL(r)+"/v2/tasks/"+task.ID)
	return wire.WriteJSON(w, http.StatusCreated, taskView(task, true))
}
