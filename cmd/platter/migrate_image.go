package main

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/cmd/platter/client"
)

// serverFields are what a service says of an image by itself; the rest, but for
// the base fields, are properties.
func serverFields() []string {
	return []string{"id", "name", "status", "visibility", "protected", "os_hidden", "owner", "disk_format", "container_format", "min_disk", "min_ram",
		"size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "tags", "created_at", "updated_at",
		"direct_url", "locations", "stores", "self", "file", "schema"}
}

// isProperty tells whether a key of a record is a property that is taken over.
func isProperty(key string, value any) bool {
	_, text := value.(string)
	return text && !slices.Contains(serverFields(), key) && !strings.HasPrefix(key, "os_glance")
}

// recordOf is what MigrateImage needs of an image.
func recordOf(img client.Record) map[string]any {
	fields, properties := map[string]any{}, map[string]any{}
	for key, value := range img {
		if isProperty(key, value) {
			properties[key] = value
		}
	}
	for _, key := range []string{"id", "name", "visibility", "os_hidden", "owner", "disk_format", "container_format", "min_disk", "min_ram", "tags", "created_at"} {
		if img[key] != nil {
			fields[key] = img[key]
		}
	}
	fields["properties"] = properties
	return fields
}

// tries is how often the bytes of an image are sent.
const tries = 3

// move brings over what is missing of an image.
func (m *mover) move(ctx context.Context, img, here client.Record, missing bool) moved {
	result := movedCopied
	if img.Text("status") == "queued" {
		result = movedRecord
	}
	failed := func(err error) moved { return moved{result: movedFailed, err: err} }
	if missing {
		var err error
		if here, err = m.to.MigrateImage(ctx, recordOf(img)); err != nil {
			return failed(err)
		}
	}
	if m.store != "" && here.Text("status") == "queued" && img.Text("status") != "queued" {
		result = movedAdopted
		if err := m.adopt(ctx, img); err != nil {
			return failed(err)
		}
	} else if here.Text("status") == "queued" || here.Text("status") == "saving" {
		if err := m.bytes(ctx, img); err != nil {
			return failed(err)
		}
	}
	settle := map[string]any{}
	for _, key := range []string{"status", "protected", "updated_at", "checksum", "os_hash_algo", "os_hash_value"} {
		if img[key] != nil {
			settle[key] = img[key]
		}
	}
	members, err := m.members(ctx, m.from, img)
	if err != nil {
		return failed(err)
	}
	settle["members"] = members
	if _, err := m.to.SettleImage(ctx, img.ID(), settle); err != nil {
		return failed(err)
	}
	differ, err := m.compare(ctx, img)
	return moved{result: result, differ: differ, err: err}
}

// adopt makes what is in the gateway's store the data of an image.
func (m *mover) adopt(ctx context.Context, img client.Record) error {
	fields := map[string]any{"store": m.store}
	for _, key := range []string{"size", "checksum", "os_hash_algo", "os_hash_value"} {
		if img[key] != nil {
			fields[key] = img[key]
		}
	}
	_, err := m.to.AdoptImage(ctx, img.ID(), fields)
	if err == nil {
		m.progress.add(img.Int("size"))
	}
	return err
}

// members returns the members of an image as SettleImage needs them.
func (m *mover) members(ctx context.Context, of *client.Client, img client.Record) ([]map[string]any, error) {
	out := []map[string]any{}
	if img.Text("visibility") != "shared" {
		return out, nil
	}
	list, err := of.Members(ctx, img.ID())
	for _, member := range list {
		fields := map[string]any{}
		for _, key := range []string{"member_id", "status", "created_at", "updated_at"} {
			fields[key] = member[key]
		}
		out = append(out, fields)
	}
	slices.SortFunc(out, func(a, b map[string]any) int {
		return strings.Compare(fmt.Sprint(a["member_id"]), fmt.Sprint(b["member_id"]))
	})
	return out, err
}

// bytes copies the data of an image, if it has any. An upload that was cut
// leaves the image as it was, a moment later.
func (m *mover) bytes(ctx context.Context, img client.Record) error {
	if img.Text("status") == "queued" {
		return nil
	}
	var err error
	for try := range tries {
		var sent int64
		if sent, err = m.send(ctx, img); err == nil {
			return nil
		}
		m.progress.add(-sent)
		var answer *client.Error
		again := !errors.As(err, &answer) || answer.Status == http.StatusConflict || answer.Status >= http.StatusInternalServerError
		if _, wrong := errors.AsType[*corruptError](err); wrong || !again || ctx.Err() != nil || try == tries-1 {
			return err
		}
		select {
		case <-time.After(time.Second << (2 * try)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// send sends the data of an image once, and returns how much it was.
func (m *mover) send(ctx context.Context, img client.Record) (int64, error) {
	size := img.Int("size")
	if size == 0 {
		return 0, m.to.Upload(ctx, img.ID(), strings.NewReader(""), 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, _, err := m.from.Download(ctx, img.ID(), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, &corruptError{fmt.Sprintf("the Glance has no data of image %s, which should be %d bytes", img.ID(), size)}
	}
	if err != nil {
		return 0, err
	}
	defer body.Close()
	v := &verified{r: body, left: size, progress: m.progress, sums: map[string]hash.Hash{}, want: map[string]string{}}
	v.expect("md5", img.Text("checksum"))
	v.expect(img.Text("os_hash_algo"), img.Text("os_hash_value"))
	err = m.to.Upload(ctx, img.ID(), v, size)
	if v.err != nil {
		err = v.err // why the upload ended
	}
	return v.sent, err
}

// A corruptError is of data that is not what its record says. To read it once
// more does not help.
type corruptError struct{ text string }

// Error says what is wrong.
func (e *corruptError) Error() string { return e.text }

// verified passes on data, and keeps its last piece back unless all of it is
// what it should be: the gateway must not take wrong data for complete.
type verified struct {
	r        io.Reader
	left     int64
	sent     int64
	progress *progress
	sums     map[string]hash.Hash
	want     map[string]string
	err      error
}

// expect says what a hash must be. Unknown ones are passed over.
func (v *verified) expect(algo, want string) {
	makers := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}
	if make := makers[algo]; make != nil && want != "" {
		v.sums[algo], v.want[algo] = make(), want
	}
}

// Read reads.
func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.left == 0 {
		return 0, io.EOF
	}
	n, err := v.r.Read(p[:min(int64(len(p)), v.left)])
	for _, h := range v.sums {
		h.Write(p[:n])
	}
	v.left -= int64(n)
	switch {
	case v.left == 0:
		err = v.verify()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		v.err = fmt.Errorf("read from the Glance: %w", err)
		return 0, v.err
	}
	v.sent += int64(n)
	v.progress.add(int64(n))
	return n, nil
}

func (v *verified) verify() error {
	for _, algo := range slices.Sorted(maps.Keys(v.sums)) {
		if got := hex.EncodeToString(v.sums[algo].Sum(nil)); got != v.want[algo] {
			return &corruptError{fmt.Sprintf("the data has the %s %s, and its record says %s", algo, got, v.want[algo])}
		}
	}
	return nil
}

// compare says in what an image here differs from what it was there.
func (m *mover) compare(ctx context.Context, img client.Record) ([]string, error) {
	here, err := m.to.Image(ctx, img.ID())
	if err != nil {
		return nil, err
	}
	var out []string
	differ := func(key string, there, here any) {
		if t, h := plain(there), plain(here); t != h {
			out = append(out, fmt.Sprintf("%s was %s and is %s", key, t, h))
		}
	}
	for _, key := range serverFields() {
		if !slices.Contains([]string{"direct_url", "locations", "stores", "self", "file", "schema"}, key) {
			differ(key, img[key], here[key])
		}
	}
	for key, value := range img {
		if isProperty(key, value) {
			differ(key, value, here[key])
		}
	}
	for key, value := range here {
		if isProperty(key, value) && img[key] == nil {
			differ(key, nil, value)
		}
	}
	slices.Sort(out)
	there, err := m.members(ctx, m.from, img)
	if err != nil {
		return out, err
	}
	ours, err := m.members(ctx, m.to, img)
	differ("members", there, ours)
	return out, err
}

// plain writes a value so that equal ones look alike: a list has no order.
func plain(v any) string {
	if list, ok := v.([]any); ok {
		words := make([]string, len(list))
		for i, w := range list {
			words[i] = fmt.Sprint(w)
		}
		slices.Sort(words)
		v = words
	}
	if v == nil {
		return "nothing"
	}
	return fmt.Sprint(v)
}
