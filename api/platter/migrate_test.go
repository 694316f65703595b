package platter

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/policy"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

const migrated = `{"id":"0D3C1B2A-0000-4000-8000-00000000000a","name":"n","visibility":"shared","owner":"p9","disk_format":"raw","container_format":"bare","tags":["b","a"],"properties":{"k":"v"},"os_hidden":true,"created_at":"2019-01-02T03:04:05Z"}`

func TestMigrate(t *testing.T) {
	d := newDesk(t)
	for _, bad := range []string{
		`{}`, `{"id":"x","visibility":"shared","created_at":"2019-01-02T03:04:05Z"}`,
		`{"id":"0d3c1b2a-0000-4000-8000-00000000000a","visibility":"all","created_at":"2019-01-02T03:04:05Z"}`,
		`{"id":"0d3c1b2a-0000-4000-8000-00000000000a","visibility":"shared"}`,
		`{"id":"0d3c1b2a-0000-4000-8000-00000000000a","visibility":"shared","created_at":"2019-01-02T03:04:05Z","status":"active"}`,
		`{"id":"0d3c1b2a-0000-4000-8000-00000000000a","visibility":"shared","created_at":"2019-01-02T03:04:05Z","properties":{"os_glance_x":"y"}}`,
	} {
		d.do("POST", "/images", bad, 400)
	}
	got, _ := d.do("POST", "/images", migrated, 201)
	id := got["id"].(string)
	d.do("POST", "/images", migrated, 409)

	settle := func(status, checksum string) string {
		return fmt.Sprintf(`{"status":%q,"checksum":%q,"protected":true,"updated_at":"2020-01-02T03:04:05Z","members":[{"member_id":"p2","status":"accepted","created_at":"2019-05-05T05:05:05Z","updated_at":"2019-06-06T06:06:06Z"}]}`, status, checksum)
	}
	d.do("POST", "/images/"+id+"/settle", settle("saving", ""), 400)
	d.do("POST", "/images/"+id+"/settle", `{"status":"queued"}`, 400)
	d.do("POST", "/images/nothing/settle", settle("queued", ""), 404)
	d.do("POST", "/images/"+id+"/settle", settle("active", ""), 409) // it has no data
	if err := d.f.in.Put(t.Context(), id, bytes.NewReader([]byte("data")), -1, ""); err != nil {
		t.Fatal(err)
	}
	d.do("POST", "/images/"+id+"/settle", settle("deactivated", "00"), 409) // of other data
	d.do("POST", "/images/"+id+"/settle", settle("deactivated", "8d777f385d3dfec8815d20f7496026dc"), 200)
	d.do("POST", "/images/"+id+"/settle", settle("deactivated", "8d777f385d3dfec8815d20f7496026dc"), 409) // it is done
	d.do("POST", "/images/"+d.img.ID+"/settle", settle("active", ""), 409)                                // it was always here

	img, err := d.f.cat.Image(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	day := func(y, h int) time.Time { return time.Date(y, 1, 2, h, 4, 5, 0, time.UTC) }
	if img.Status != catalog.StatusDeactivated || !img.Protected || !img.Hidden || img.Owner != "p9" || !img.CreatedAt.Equal(day(2019, 3)) ||
		!img.UpdatedAt.Equal(day(2020, 3)) || img.Properties["k"] != "v" || len(img.Properties) != 1 || len(img.Tags) != 2 || img.Size == nil || *img.Size != 4 {
		t.Errorf("the image is %+v", img)
	}
	m, err := d.f.cat.Member(t.Context(), id, "p2")
	if err != nil || m.Status != catalog.MemberAccepted || m.CreatedAt.Month() != time.May || m.UpdatedAt.Month() != time.June {
		t.Errorf("the member is %+v, %v", m, err)
	}
}

// TestAdopt: what is in a store is adopted for an image that is taken over,
// and for no other.
func TestAdopt(t *testing.T) {
	d := newDesk(t)
	got, _ := d.do("POST", "/images", migrated, 201)
	id := got["id"].(string)
	body := `{"store":"mem","size":4,"checksum":"8d777f385d3dfec8815d20f7496026dc"}`
	d.do("POST", "/images/"+id+"/adopt", body, 501)
	d.s.cfg.Adopter = d.f.in
	d.do("POST", "/images/"+id+"/adopt", `{"size":4}`, 400)
	d.do("POST", "/images/nothing/adopt", body, 404)
	d.do("POST", "/images/"+d.img.ID+"/adopt", body, 409)
	d.do("POST", "/images/"+id+"/adopt", `{"store":"elsewhere","size":4}`, 400)
	d.do("POST", "/images/"+id+"/adopt", body, 409) // the store is not shared
	adopted := &adopter{}
	d.s.cfg.Adopter = adopted
	got, _ = d.do("POST", "/images/"+id+"/adopt", body, 200)
	if got["status"] != "active" || adopted.want.Size != 4 || adopted.store != "mem" {
		t.Errorf("adopted %v, %+v", got, adopted)
	}
}

type adopter struct {
	store string
	want  catalog.Facts
}

func (a *adopter) Adopt(_ context.Context, _, store string, want catalog.Facts) error {
	a.store, a.want = store, want
	return nil
}

func TestMigrateIsForAdministrators(t *testing.T) {
	d := newDesk(t)
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d.s.cfg.Policy = rules
	d.who = wire.Identity{ProjectID: "p1", Roles: []string{"member", "reader"}}
	d.do("POST", "/images", migrated, 403)
	d.do("POST", "/images/"+d.img.ID+"/adopt", `{"store":"mem","size":4}`, 403)
	d.do("POST", "/images/"+d.img.ID+"/settle", `{"status":"active","updated_at":"2020-01-02T03:04:05Z"}`, 403)
}
