package catalog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var freeze = flag.Bool("freeze", false, "write the samples of this version that are missing in testdata/records")

// samples has one record of each kind with every field set, by the name of
// its file.
func samples() map[string]struct {
	key    string
	value  any // what decoding must give, for Revision 7
	record any
} {
	at := func(s int) time.Time { return time.Date(2026, 1, 2, 3, 4, s, 123456000, time.UTC) }
	name, size, virtual := "Debian 12", int64(1<<31), int64(1<<35)
	type sample = struct {
		key    string
		value  any
		record any
	}
	image := Image{"b7c1ee5c-11a1-4b1f-9a5c-2f9a2f0c0001", &name, StatusActive, VisibilityShared, true, true, "p1", "qcow2", "bare",
		10, 512, &size, &virtual, "d41d8cd98f00b204e9800998ecf8427e", "sha512", strings.Repeat("ab", 64), []string{"a", "ü"},
		map[string]string{"os": "linux", "empty": ""}, []Location{{"fast", "k/u", "u", size, map[string]string{"x": "y"}}}, "parent",
		at(1), at(2), 7}
	member := Member{image.ID, "p/2", MemberAccepted, at(1), at(2), 7}
	upload := Upload{"u1", image.ID, "gw", "fast", "k/u1", at(3)}
	overlay := Overlay{"o1", "disk", image.ID, "p1", "gw", "file", "local", 1 << 30, 3,
		[]OverlaySnapshot{{"s1", "first", at(4)}}, OverlayAvailable, "fine", at(5), at(6), 7}
	attach := Attachment{"a1", "", "o1", AttachRW, "unix", "hash", "p1", "gw", at(7), at(8), at(9), 7}
	task := Task{"t1", "capture", TaskSuccess, "p1", image.ID, "req-1", "user", "gw", "done", map[string]any{"a": "b"},
		map[string]any{"image_id": "x"}, Progress{5, 10}, at(1), at(2), at(3), 7}
	garbage := Garbage{"00000001767323044123456/g1", "fast", "k/old", at(4)}
	return map[string]sample{
		"image":      {preImage + image.ID, image, image.record()},
		"member":     {memberKey(image.ID, "p/2"), member, member.record()},
		"upload":     {preUpload + image.ID, upload, upload.record()},
		"overlay":    {preOverlay + "o1", overlay, overlay.record()},
		"attachment": {preAttach + "a1", attach, attach.record()},
		"task":       {preTask + "t1", task, task.record()},
		"garbage":    {preGarbage + garbage.ID, garbage, garbage.record()},
		"mark":       {preHold + "o1", markRecord{1, "a1", at(5)}, markRecord{1, "a1", at(5)}},
		"schema":     {keySchema, schemaRecord{1, "id", at(6)}, schemaRecord{1, "id", at(6)}},
	}
}

func decodeAny(p Pair) (any, error) {
	switch kindOf(p.Key) {
	case preGarbage:
		return decodeGarbage(p)
	case preDead, preHold, preRef:
		var r markRecord
		err := decode(p, &r, &r.V)
		return r, err
	}
	d := decodeEvent(Event{Key: p.Key, Value: p.Value, Revision: p.Revision})
	return d.record, d.err
}

// TestFrozenRecords reads what released versions have written. A file that is
// there is never changed; a change of a record adds the next one.
func TestFrozenRecords(t *testing.T) {
	for name, s := range samples() {
		file := filepath.Join("testdata", "records", fmt.Sprintf("%s.v%d.json", name, recordVersion))
		text, err := os.ReadFile(file)
		if *freeze && errors.Is(err, os.ErrNotExist) {
			if text, err = encode(s.key, s.record); err == nil {
				err = os.WriteFile(file, text, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAny(Pair{Key: s.key, Value: text, Revision: 7})
		if err != nil || !reflect.DeepEqual(got, s.value) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", file, got, err, s.value)
		}
		again, err := encode(s.key, s.record)
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s: this version would be written as\n%s", file, again)
		}
	}
}

// TestSamplesAreFull fails when a field was added and not to its sample, so
// that it would not be kept.
func TestSamplesAreFull(t *testing.T) {
	for name, s := range samples() {
		v := reflect.ValueOf(s.value)
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if v.Field(i).IsZero() && !(name == "attachment" && field == "ImageID") {
				t.Errorf("the sample of %s says nothing of %s", name, field)
			}
		}
	}
}

func TestRefusedRecords(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"newer":        {`{"v":2,"status":{"now":"an object"}}`, "newer platterd"},
		"no version":   {`{"status":"active","visibility":"public"}`, "no version"},
		"no JSON":      {`{"v":1`, "unexpected end"},
		"empty":        {``, "unexpected end"},
		"wrong status": {`{"v":1,"status":"dancing","visibility":"public"}`, "dancing"},
		"too big":      {`{"v":1,"name":"` + strings.Repeat("x", MaxRecord) + `"}`, "too big"},
	} {
		_, err := decodeImage(Pair{Key: "img/x", Value: []byte(c.value)})
		var bad *RecordError
		if !errors.As(err, &bad) || bad.Key != "img/x" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a RecordError that says %q", name, err, c.want)
		}
	}
}

// FuzzRecord checks that no record can do harm: what decodes is written again
// as the same, and the index takes it, and forgets it.
func FuzzRecord(f *testing.F) {
	for _, s := range samples() {
		text, err := encode(s.key, s.record)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.key, text)
	}
	f.Add("img/x", []byte(`{"v":2}`))
	f.Add("mem/x", []byte(`{"v":1,"status":"accepted"}`))
	f.Add("img/x", []byte(`{"v":1,"status":"queued","visibility":"shared","tags":["b","a","a"],"size":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		s := newState()
		e := Event{Key: key, Value: value, Revision: 7}
		d := decodeEvent(e)
		s.apply(d)
		if d.err != nil {
			if s.broken[key] == nil {
				t.Error("a record that cannot be read is not noted")
			}
			return
		}
		img, ok := d.record.(Image)
		if ok {
			text, err := encode(key, img.record())
			if errors.Is(err, ErrTooBig) {
				return // escapes may make it longer
			}
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodeImage(Pair{Key: key, Value: text, Revision: 7})
			if err != nil || fmt.Sprint(plain(again)) != fmt.Sprint(plain(img)) {
				t.Fatalf("%s written again: %v\n%+v\n%+v", key, err, again, img)
			}
			if got := s.images.image(s.images.byID[img.ID]); fmt.Sprint(plain(got)) != fmt.Sprint(plain(img)) && img.Size == nil {
				t.Fatalf("image\n%+v\ncame out as\n%+v", img, got)
			}
		}
		s.apply(decoded{key: key, rev: 8, deleted: true})
		if s.images.len() != 0 || len(s.images.syms.byText) != 0 || len(s.images.members) != 0 {
			t.Errorf("%s left something behind", key)
		}
	})
}
