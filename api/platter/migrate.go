package platter

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// maxText is the longest name, owner, tag or key of a property.
const maxText = 255

// A migrateBody is an image of another service, without its bytes.
type migrateBody struct {
	ID              string             `json:"id"`
	Name            *string            `json:"name"`
	Visibility      catalog.Visibility `json:"visibility"`
	Hidden          bool               `json:"os_hidden"`
	Owner           string             `json:"owner"`
	DiskFormat      string             `json:"disk_format"`
	ContainerFormat string             `json:"container_format"`
	MinDisk         int64              `json:"min_disk"`
	MinRAM          int64              `json:"min_ram"`
	Tags            []string           `json:"tags"`
	Properties      map[string]string  `json:"properties"`
	CreatedAt       time.Time          `json:"created_at"`
}

func (b migrateBody) check() error {
	if id, err := uuid.Parse(b.ID); err != nil || !strings.EqualFold(id.String(), b.ID) {
		return badRequest("id=%.64q is no UUID.", b.ID)
	}
	if !b.Visibility.Valid() {
		return badRequest("visibility=%.32q is not known.", b.Visibility)
	}
	if b.CreatedAt.Year() < 1971 || b.MinDisk < 0 || b.MinRAM < 0 {
		return badRequest("created_at must be a time after 1970, and min_disk and min_ram not negative.")
	}
	texts := append([]string{b.Owner, b.DiskFormat, b.ContainerFormat}, b.Tags...)
	if b.Name != nil {
		texts = append(texts, *b.Name)
	}
	for key := range b.Properties {
		if strings.HasPrefix(key, "os_glance") {
			return badRequest("The property %.255s is the service's own.", key)
		}
		texts = append(texts, key)
	}
	for _, t := range texts {
		if utf8.RuneCountInString(t) > maxText || strings.ContainsRune(t, 0) {
			return badRequest("%.40q… has more than %d characters, or one that is zero.", t, maxText)
		}
	}
	return nil
}

type migratedView struct {
	ID     string         `json:"id"`
	Status catalog.Status `json:"status"`
}

// migrateImage makes the record of an image of another service, with its id
// and its time. It is queued, and its data is uploaded as any other's.
func (s *Server) migrateImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := s.allow(ctx, "platter:migrate_image", s.own(r, "image")); err != nil {
		return err
	}
	var b migrateBody
	if err := s.readJSON(r, &b); err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	properties := map[string]string{catalog.PropertyMigrating: "true"}
	maps.Copy(properties, b.Properties)
	img, err := s.cfg.Catalog.CreateImage(ctx, catalog.Image{
		ID: b.ID, Name: b.Name, Status: catalog.StatusQueued, Visibility: b.Visibility, Hidden: b.Hidden, Owner: b.Owner,
		DiskFormat: b.DiskFormat, ContainerFormat: b.ContainerFormat, MinDisk: b.MinDisk, MinRAM: b.MinRAM,
		Tags: b.Tags, Properties: properties, CreatedAt: b.CreatedAt,
	})
	if errors.Is(err, fs.ErrExist) {
		return conflict("The image %s exists, or did: ids of deleted images stay taken.", b.ID)
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.log, "migrate", "image", img.ID)
	return wire.WriteJSON(w, http.StatusCreated, migratedView{img.ID, img.Status})
}

// An Adopter takes objects that are in a store already.
type Adopter interface {
	// Adopt makes the object that has the name of an image its data, if it is
	// what want says.
	Adopt(ctx context.Context, id, store string, want catalog.Facts) error
}

// An adoptBody says where the data of an image is, and what it must be.
type adoptBody struct {
	Store     string `json:"store"`
	Size      int64  `json:"size"`
	Checksum  string `json:"checksum"`
	HashAlgo  string `json:"os_hash_algo"`
	HashValue string `json:"os_hash_value"`
}

// adoptImage makes an object that is in a store already the data of an image
// that is being taken over. It answers when it has read all of it.
func (s *Server) adoptImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	img, err := s.image(ctx, r.PathValue("image_id"))
	if err != nil {
		return err
	}
	if err := s.allowHidden(ctx, "platter:migrate_image", "get_image", s.target(ctx, &img)); err != nil {
		return err
	}
	var b adoptBody
	if err := s.readJSON(r, &b); err != nil {
		return err
	}
	if b.Store == "" || b.Size < 0 {
		return badRequest("store names where the object is, and size how many bytes it has.")
	}
	if img.Properties[catalog.PropertyMigrating] == "" {
		return conflict("The image %s is not being taken over, or that is done already; it stays as it is.", img.ID)
	}
	if s.cfg.Adopter == nil {
		return wire.Errorf(http.StatusNotImplemented, "This gateway adopts no objects.")
	}
	want := catalog.Facts{Size: b.Size, Checksum: b.Checksum, HashAlgo: b.HashAlgo, HashValue: b.HashValue}
	err = s.cfg.Adopter.Adopt(ctx, img.ID, b.Store, want)
	if errors.Is(err, ingest.ErrNotShared) || errors.Is(err, catalog.ErrMismatch) {
		return conflict("The data of image %s cannot be adopted: %v.", img.ID, err)
	}
	if err != nil {
		return err
	}
	wire.Audit(ctx, s.log, "adopt", "image", img.ID)
	return wire.WriteJSON(w, http.StatusOK, migratedView{img.ID, catalog.StatusActive})
}

// A settleBody is how the image was in the other service.
type settleBody struct {
	Status    catalog.Status `json:"status"`
	Protected bool           `json:"protected"`
	UpdatedAt time.Time      `json:"updated_at"`
	Checksum  string         `json:"checksum"`
	HashAlgo  string         `json:"os_hash_algo"`
	HashValue string         `json:"os_hash_value"`
	Members   []struct {
		Member    string               `json:"member_id"`
		Status    catalog.MemberStatus `json:"status"`
		CreatedAt time.Time            `json:"created_at"`
		UpdatedAt time.Time            `json:"updated_at"`
	} `json:"members"`
}

// agrees compares what was stored here with what was there.
func (b settleBody) agrees(img catalog.Image) error {
	if img.Properties[catalog.PropertyMigrating] == "" {
		return conflict("The image %s is not being taken over, or that is done already; it stays as it is.", img.ID)
	}
	for _, sum := range []struct{ name, here, there string }{
		{"checksum", img.Checksum, b.Checksum}, {"os_hash_value", img.HashValue, b.HashValue},
	} {
		if sum.name == "os_hash_value" && img.HashAlgo != b.HashAlgo {
			continue // nothing to compare
		}
		if sum.there != "" && sum.here != sum.there {
			return conflict("The %s of image %s is %.128q here, and was %.128q: its data is not the same.", sum.name, img.ID, sum.here, sum.there)
		}
	}
	return nil
}

// settleImage gives an image that was made by migrateImage, and has its data,
// its status, its members and its last time, if the checksums agree.
func (s *Server) settleImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	img, err := s.image(ctx, r.PathValue("image_id"))
	if err != nil {
		return err
	}
	if err := s.allowHidden(ctx, "platter:migrate_image", "get_image", s.target(ctx, &img)); err != nil {
		return err
	}
	var b settleBody
	if err := s.readJSON(r, &b); err != nil {
		return err
	}
	switch b.Status {
	case catalog.StatusQueued, catalog.StatusActive, catalog.StatusDeactivated:
	default:
		return badRequest("status=%.32q cannot be taken over; queued, active and deactivated can.", b.Status)
	}
	if b.UpdatedAt.Year() < 1971 {
		return badRequest("updated_at must be a time after 1970.")
	}
	as := catalog.Settled{Status: b.Status, Protected: b.Protected, UpdatedAt: b.UpdatedAt}
	for _, m := range b.Members {
		if m.Member == "" || len(m.Member) > maxText || !m.Status.Valid() || m.CreatedAt.Year() < 1971 || m.UpdatedAt.Year() < 1971 {
			return badRequest("The member %.64q needs a member_id, a status, and times after 1970.", m.Member)
		}
		as.Members = append(as.Members, catalog.Member{Project: m.Member, Status: m.Status, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt})
	}
	if img, err = s.cfg.Catalog.SettleImage(ctx, img.ID, as, b.agrees); err != nil {
		return err
	}
	wire.Audit(ctx, s.log, "settle", "image", img.ID)
	return wire.WriteJSON(w, http.StatusOK, migratedView{img.ID, img.Status})
}
