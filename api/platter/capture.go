package platter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/protect"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

const (
	maxTags       = 128
	maxProperties = 128
	maxValue      = 65535 // bytes of a property's value
)

type captureBody struct {
	Image map[string]json.RawMessage `json:"image"`
	Store string                     `json:"store"`
}

// capture begins to make an image of an overlay and answers with the task.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) error {
	var body captureBody
	if err := s.readJSON(r, &body); err != nil {
		return err
	}
	img, err := parseImage(body.Image)
	if err != nil {
		return err
	}
	ov, err := s.overlayOf(r, "platter:capture_overlay")
	if err != nil {
		return err
	}
	ctx := r.Context()
	who := wire.IdentityFrom(ctx)
	img.Owner = who.ProjectID
	target := wire.Target{Kind: "image", Owner: img.Owner, Visibility: string(img.Visibility)}
	rules := []string{"add_image", "upload_image"}
	if img.Visibility == catalog.VisibilityPublic {
		rules = append(rules, "publicize_image")
	}
	if img.Visibility == catalog.VisibilityCommunity {
		rules = append(rules, "communitize_image")
	}
	for _, rule := range rules {
		if err := s.allow(ctx, rule, target); err != nil {
			return err
		}
	}
	for key := range img.Properties {
		if err := s.cfg.Protect.Check(ctx, protect.Create, key); err != nil {
			return err
		}
	}
	task, err := s.cfg.Overlays.Capture(ctx, CaptureRequest{
		Overlay: ov, Image: img, Store: body.Store,
		Owner: who.ProjectID, UserID: who.UserID, RequestID: wire.RequestID(ctx),
	})
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.log, "capture", "overlay", ov.ID)
	w.Header().Set("Location", "/v2/tasks/"+task.ID)
	return wire.WriteJSON(w, http.StatusAccepted, viewTask(task))
}

// parseImage reads what a user may say of the new image, in the words of the
// Image API: base fields by their names, everything else a property.
func parseImage(fields map[string]json.RawMessage) (catalog.Image, error) {
	img := catalog.Image{Properties: map[string]string{}, Visibility: catalog.VisibilityShared}
	if fields == nil {
		return img, badRequest("image is missing: it says what image to make; {} takes the defaults.")
	}
	for key, raw := range fields {
		dst, known := imageField(&img, key)
		if !known {
			var value string
			if err := checkProperty(key); err != nil {
				return img, err
			}
			if err := decodeField(key, raw, &value); err != nil {
				return img, err
			}
			if len(value) > maxValue {
				return img, badRequest("The value of image.%s has more than %d bytes.", key, maxValue)
			}
			img.Properties[key] = value
			continue
		}
		if err := decodeField(key, raw, dst); err != nil {
			return img, err
		}
	}
	img.DiskFormat = cmp.Or(img.DiskFormat, "qcow2")
	img.ContainerFormat = cmp.Or(img.ContainerFormat, "bare")
	return img, checkImage(&img)
}

// imageField returns where a base field goes.
func imageField(img *catalog.Image, key string) (dst any, known bool) {
	switch key {
	case "id":
		return &img.ID, true
	case "name":
		return &img.Name, true
	case "disk_format":
		return &img.DiskFormat, true
	case "container_format":
		return &img.ContainerFormat, true
	case "visibility":
		return &img.Visibility, true
	case "protected":
		return &img.Protected, true
	case "os_hidden":
		return &img.Hidden, true
	case "min_disk":
		return &img.MinDisk, true
	case "min_ram":
		return &img.MinRAM, true
	case "tags":
		return &img.Tags, true
	}
	return nil, false
}

func decodeField(key string, raw json.RawMessage, dst any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(dst); err != nil {
		return wire.Errorf(http.StatusBadRequest, "image.%.64s does not fit: %w", key, err)
	}
	return nil
}

// checkProperty refuses names that are the gateway's own.
func checkProperty(key string) error {
	switch key {
	case "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at",
		"deleted", "deleted_at", "direct_url", "locations", "location", "self", "file", "schema", "stores", "owner",
		"is_public", "read_only":
		return wire.Errorf(http.StatusForbidden, "The attribute %q of an image is set by the gateway.", key)
	}
	switch {
	case key == "" || utf8.RuneCountInString(key) > maxName:
		return badRequest("A property's name has 1 to %d characters.", maxName)
	case strings.HasPrefix(key, "os_glance"):
		return wire.Errorf(http.StatusForbidden, "The property %.64q is reserved.", key)
	}
	return nil
}

func checkImage(img *catalog.Image) error {
	if img.Name != nil {
		if err := checkName(*img.Name); err != nil {
			return err
		}
	}
	if img.ID != "" {
		if id, err := uuid.Parse(img.ID); err != nil || id.String() != strings.ToLower(img.ID) {
			return badRequest("image.id %.64q is not a UUID.", img.ID)
		}
		img.ID = strings.ToLower(img.ID)
	}
	slices.Sort(img.Tags)
	img.Tags = slices.Compact(img.Tags)
	switch {
	case img.DiskFormat != "qcow2" && img.DiskFormat != "raw":
		return badRequest("image.disk_format %.32q: an overlay is captured as qcow2 or raw.", img.DiskFormat)
	case img.ContainerFormat != "bare":
		return badRequest("image.container_format %.32q: an overlay is captured as bare.", img.ContainerFormat)
	case !img.Visibility.Valid():
		return badRequest("image.visibility %.32q is not known; there are public, community, shared and private.", img.Visibility)
	case img.MinDisk < 0 || img.MinRAM < 0 || img.MinDisk > 1<<31-1 || img.MinRAM > 1<<31-1:
		return badRequest("image.min_disk and image.min_ram are numbers from 0 to 2147483647.")
	case len(img.Tags) > maxTags || len(img.Properties) > maxProperties:
		return wire.Errorf(http.StatusRequestEntityTooLarge, "An image has at most %d tags and %d properties.", maxTags, maxProperties)
	}
	for _, tag := range img.Tags {
		if tag == "" || utf8.RuneCountInString(tag) > maxName {
			return badRequest("A tag has 1 to %d characters.", maxName)
		}
	}
	return nil
}
