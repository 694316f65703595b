package catalog

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// big is the catalog that the product's promise speaks of.
const big = 100_000

// realistic is an image as clouds have them: its record has some 2,000 bytes.
func realistic(n int) Image {
	rng := rand.New(rand.NewPCG(uint64(n), 2))
	hex := func(digits int) string {
		b := make([]byte, digits)
		for i := range b {
			b[i] = "0123456789abcdef"[rng.IntN(16)]
		}
		return string(b)
	}
	uuid := func() string {
		h := hex(32)
		return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	}
	pick := func(values ...string) string { return values[rng.IntN(len(values))] }
	name, size, virtual := fmt.Sprintf("%s-%d", pick("ubuntu", "debian", "fedora", "windows"), n), rng.Int64N(1<<36), rng.Int64N(1<<40)
	id, upload := uuid(), uuid()
	created := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * 25 * time.Minute)
	img := Image{
		ID: id, Name: &name, Status: StatusActive, Visibility: VisibilityPrivate, Owner: fmt.Sprintf("%032x", rng.IntN(1000)),
		DiskFormat: pick("raw", "qcow2", "qcow2", "qcow2"), ContainerFormat: "bare", MinDisk: rng.Int64N(100), MinRAM: rng.Int64N(8192),
		Size: &size, VirtualSize: &virtual, Checksum: hex(32), HashAlgo: "sha512", HashValue: hex(128),
		Tags: []string{pick("prod", "test", "dev"), pick("web", "db", "ci", "gpu")},
		Properties: map[string]string{
			"os_distro": pick("ubuntu", "debian", "fedora", "windows"), "os_version": pick("20.04", "22.04", "12", "39"), "os_type": "linux",
			"architecture": pick("x86_64", "aarch64"), "hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_scsi_model": "virtio-scsi",
			"hw_qemu_guest_agent": "yes", "hw_rng_model": "virtio", "hw_machine_type": pick("q35", "pc"), "hw_firmware_type": "uefi",
			"hw_video_model": "virtio", "os_admin_user": "cloud", "os_require_quiesce": "yes", "image_build": fmt.Sprint(rng.IntN(500)),
			"base_image_ref": fmt.Sprint("base-", rng.IntN(200)), "instance_uuid": uuid(), "owner_specified.openstack.md5": "",
			"owner_specified.openstack.object": "images/" + name, "description": "A golden image built by the pipeline for the team's machines.",
		},
		Locations: []Location{{Store: "fast", Key: id + "/" + upload, Generation: upload, Size: size}},
		CreatedAt: created, UpdatedAt: created.Add(time.Hour), Revision: int64(n),
	}
	if rng.IntN(10) == 0 {
		img.Visibility = VisibilityPublic
	}
	if rng.IntN(20) == 0 {
		img.Status, img.Hidden = StatusQueued, true
	}
	return img
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func bigIndex(b *testing.B) *columns {
	b.Helper()
	before, begun := heap(), time.Now()
	c := newColumns()
	var record int
	for n := range big {
		img := realistic(n)
		if n == 0 {
			text, _ := json.Marshal(img.record())
			record = len(text)
		}
		c.put(img)
	}
	b.Logf("%d images: %d bytes of memory each (a record has %d), %s to index", big, (heap()-before)/big, record, time.Since(begun).Round(time.Millisecond))
	return c
}

// BenchmarkImages lists pages of 25 out of 100,000 images.
func BenchmarkImages(b *testing.B) {
	c := bigIndex(b)
	admin := Viewer{Admin: true}
	middle := c.rows[big/2].id
	owner := c.syms.text(c.rows[77].owner)
	low, high := int64(1<<30), int64(1<<34)
	after := TimeCond{ColumnUpdatedAt, OpGT, time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, bench := range []struct {
		name string
		q    Query
	}{
		{"Newest", Query{Viewer: admin}},
		{"NewestOfTenant", Query{Viewer: Viewer{Project: owner}}},
		{"TwoFiltersByName", Query{Viewer: admin, Status: []Status{StatusActive}, DiskFormat: []string{"raw"}, Sort: []SortKey{{ColumnName, false}}}},
		{"TwoFiltersBySizeMarker", Query{Viewer: admin, Tags: []string{"prod", "gpu"}, Sort: []SortKey{{ColumnSize, true}}, Marker: middle}},
		{"TwoPropertiesByUpdated", Query{Viewer: Viewer{Project: owner}, Visibility: VisibilityAll, Properties: map[string]string{"os_distro": "debian", "architecture": "aarch64"}, Sort: []SortKey{{ColumnUpdatedAt, true}}}},
		{"OwnerAndStatusByName", Query{Viewer: admin, Owner: &owner, Status: []Status{StatusActive}, Sort: []SortKey{{ColumnName, false}}}},
		{"NothingMatches", Query{Viewer: admin, Tags: []string{"prod"}, Properties: map[string]string{"os_distro": "plan9"}}},
		{"RangesBySize", Query{Viewer: admin, Ranges: []Range{{ColumnSize, &low, &high}}, Times: []TimeCond{after}, Sort: []SortKey{{ColumnSize, false}}}},
		{"TwoFiltersTwoKeys", Query{Viewer: admin, Status: []Status{StatusActive}, Tags: []string{"prod"}, Sort: []SortKey{{ColumnStatus, false}, {ColumnName, true}}}},
		{"TwoFiltersNameThenSize", Query{Viewer: admin, Status: []Status{StatusActive}, Tags: []string{"prod"}, Sort: []SortKey{{ColumnName, false}, {ColumnSize, true}}, Marker: middle}},
		{"HiddenOldest", Query{Viewer: admin, Hidden: HiddenOnly, Sort: []SortKey{{ColumnCreatedAt, false}}}},
		{"ByChecksum", Query{Viewer: admin, Checksum: ptr(c.syms.text(c.rows[5].checksum))}},
	} {
		bench.q.Limit = 25
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.images(bench.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("Update", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			img := c.image(slot(i % big))
			img.UpdatedAt = img.UpdatedAt.Add(time.Minute)
			c.put(img)
		}
	})
}

func ptr[T any](v T) *T { return &v }

// BenchmarkDecode reads one record.
func BenchmarkDecode(b *testing.B) {
	img := realistic(1)
	text, err := json.Marshal(img.record())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeImage(Pair{Key: preImage + img.ID, Value: text}); err != nil {
			b.Fatal(err)
		}
	}
}
