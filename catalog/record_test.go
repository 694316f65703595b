package catalog

import (
	"bytes"
	"encoding/json"
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

// A sample is a record with every field set.
type sample struct {
	key    string
	value  any // what decoding must give, for Revision 7
	record any
}

// samples has one record of each kind and version, by the name of its file.
func samples() map[string]sample {
	at := func(s int) time.Time { return time.Date(2026, 1, 2, 3, 4, s, 123456000, time.UTC) }
	name, size, virtual := "Debian 12", int64(1<<31), int64(1<<35)
	image := Image{"b7c1ee5c-11a1-4b1f-9a5c-2f9a2f0c0001", &name, StatusActive, VisibilityShared, true, true, "p1", "qcow2", "bare",
		10, 512, &size, &virtual, "d41d8cd98f00b204e9800998ecf8427e", "sha512", strings.Repeat("ab", 64), []string{"a", "ü"},
		map[string]string{"os": "linux", "empty": ""}, []Location{{"fast", "k/u", "u", size, map[string]string{"x": "y"}}}, "parent", 3,
		at(1), at(2), 7}
	member := Member{image.ID, "p/2", MemberAccepted, at(1), at(2), 7}
	upload := Upload{"u1", image.ID, false, "gw", "fast", "k/u1", at(3), 1 << 40}
	another := upload
	another.Copy = true
	overlay := Overlay{"o1", "disk", image.ID, "p1", "gw", "file", "local", 1 << 30, 3, 2, "store", "base/o1", false,
		[]Quarantine{{"gone", 1, at(9)}}, []OverlaySnapshot{{"s1", "first", at(4)}}, OverlayAvailable, "fine", at(5), at(6), 7}
	head := OverlayHead{3, 5, true, []byte{0, 255}, 7}
	attach := Attachment{"a1", "", "o1", AttachRW, "unix", "hash", "p1", "gw", at(7), at(8), at(9), 7}
	task := Task{"t1", "capture", TaskSuccess, "p1", image.ID, "req-1", "user", "gw", "done", map[string]any{"a": "b"},
		map[string]any{"image_id": "x"}, Progress{5, 10}, at(1), at(2), at(3), 7}
	garbage := Garbage{"00000001767323044123456/g1", "fast", "k/old", at(4), at(9)}
	second := garbage
	second.Key = "k/older"
	packed := garbage.record()
	packed.Key, packed.Keys = "", []string{garbage.Key, second.Key}
	gateway := Gateway{"gw", "https://gw:9292", at(1), 7}
	parent := Parent{image.ID, "rbd", "base", "snap", ParentReady, "gw", 5, 10, at(1), at(2), 7}
	text := "words"
	namespace := Namespace{"OS::A/b", &text, &text, VisibilityPublic, true, "p1",
		[]Association{{"OS::Glance::Image", &text, &text, at(1), at(2)}},
		[]MetaProperty{{"p", json.RawMessage(`{"type":"string"}`)}},
		[]MetaObject{{"o", &text, []string{"p"}, json.RawMessage(`{"p":{}}`), at(3), at(4)}},
		[]MetaTag{{"t", at(5), at(6)}}, at(1), at(2), 7}
	resourceType := ResourceType{"OS::Nova::Server", at(3)}
	trace := dataRecord{1, []byte{0, 255}, at(1)}

	image1, upload1, overlay1, garbage1 := image.Clone(), upload, overlay.Clone(), garbage
	image1.Attempts, upload1.Lease, garbage1.NotBefore = 0, 0, time.Time{}
	overlay1.HeldSince, overlay1.Durability, overlay1.Parent, overlay1.Quarantined = 0, "", "", nil
	return map[string]sample{
		"image.v1":      {preImage + image.ID, image1, image1.record()},
		"image.v2":      {preImage + image.ID, image, image.record()},
		"member.v1":     {memberKey(image.ID, "p/2"), member, member.record()},
		"upload.v1":     {preUpload + image.ID, upload1, upload1.record()},
		"upload.v2":     {preUpload + image.ID, upload, upload.record()},
		"copy.v2":       {preUpload + image.ID + "/fast", another, another.record()},
		"overlay.v1":    {preOverlay + "o1", overlay1, overlay1.record()},
		"overlay.v2":    {preOverlay + "o1", overlay, overlay.record()},
		"head.v1":       {preHead + "o1", head, head.record()},
		"attachment.v1": {preAttach + "a1", attach, attach.record()},
		"task.v1":       {preTask + "t1", task, task.record()},
		"garbage.v1":    {preGarbage + garbage.ID, garbage1, garbage1.record()},
		"garbage.v2":    {preGarbage + garbage.ID, []Garbage{garbage, second}, packed},
		"gateway.v1":    {preGateway + "gw", gateway, gateway.record()},
		"parent.v1":     {parentKey(image.ID, "rbd"), parent, parent.record()},
		"namespace.v1":  {namespaceKey(namespace.Name), namespace, namespace.record()},
		"type.v1":       {resourceTypeKey(resourceType.Name), resourceType, markRecord{1, "", at(3)}},
		"trace.v1":      {preTrace + image.ID, trace, trace},
		"mark.v1":       {preHold + "o1", markRecord{1, "a1", at(5)}, markRecord{1, "a1", at(5)}},
		"schema.v1":     {keySchema, schemaRecord{1, "id", at(6)}, schemaRecord{1, "id", at(6)}},
	}
}

func decodeAny(p Pair) (any, error) {
	switch kindOf(p.Key) {
	case preGarbage:
		list, err := decodeGarbage(p)
		if len(list) == 1 {
			return list[0], err
		}
		return list, err
	case preHead:
		return decodeHead(p)
	case preTrace:
		return decodeData(p)
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
		file := filepath.Join("testdata", "records", name+".json")
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
	all := samples()
	for name, s := range all {
		v := reflect.ValueOf(s.value)
		kind, ofFirst := strings.CutSuffix(name, ".v1")
		if _, newer := all[kind+".v2"]; ofFirst && newer || v.Kind() == reflect.Slice {
			continue
		}
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if v.Field(i).IsZero() && !(kind == "attachment" && field == "ImageID") && field != "Dirty" && !(name == "upload.v2" && field == "Copy") {
				t.Errorf("the sample of %s says nothing of %s", name, field)
			}
		}
	}
}

func TestRefusedRecords(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"newer":        {`{"v":3,"status":{"now":"an object"}}`, "newer platterd"},
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
	f.Add("img/x", []byte(`{"v":3}`))
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
