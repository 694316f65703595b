package catalog

import (
	"net/url"
	"strings"
	"time"
)

// A state is everything that the catalog keeps in memory, as of one revision
// of the KV, or a little ahead of it: see store.
type state struct {
	rev         int64  // every change up to here is in
	schema      string // the catalog's identity
	schemaRev   int64  // of the record that says so
	images      *columns
	overlays    map[string]Overlay
	attachments map[string]Attachment
	byToken     map[string]string // token hash → attachment
	tasks       map[string]Task
	uploads     map[string]Upload // by name
	gateways    map[string]Gateway
	parents     map[string]Parent // by image and store

	namespaces    map[string]Namespace // by escaped name
	resourceTypes map[string]ResourceType

	dirty    map[string]struct{} // overlays whose head says so
	restored int64               // when a backup was restored last, in seconds; 0: never
	broken   map[string]error    // key → why its record cannot be read
}

func newState() *state {
	return &state{
		images:      newColumns(),
		overlays:    map[string]Overlay{},
		attachments: map[string]Attachment{},
		byToken:     map[string]string{},
		tasks:       map[string]Task{},
		uploads:     map[string]Upload{},
		gateways:    map[string]Gateway{},
		parents:     map[string]Parent{},

		namespaces:    map[string]Namespace{},
		resourceTypes: map[string]ResourceType{},

		dirty:  map[string]struct{}{},
		broken: map[string]error{},
	}
}

// A decoded is a record read before the index's lock is taken.
type decoded struct {
	key     string
	rev     int64
	deleted bool
	record  any // Image, Member, ...; nil if deleted or of no interest
	err     error
}

// decodeEvent reads a changed record.
func decodeEvent(e Event) decoded {
	d := decoded{key: e.Key, rev: e.Revision, deleted: e.Deleted}
	if d.deleted {
		return d
	}
	p := Pair{Key: e.Key, Value: e.Value, Revision: e.Revision}
	switch kindOf(e.Key) {
	case preImage:
		d.record, d.err = decodeImage(p)
	case preMember:
		d.record, d.err = decodeMember(p)
	case preOverlay:
		d.record, d.err = decodeOverlay(p)
	case preAttach:
		d.record, d.err = decodeAttachment(p)
	case preTask:
		d.record, d.err = decodeTask(p)
	case preUpload:
		d.record, d.err = decodeUpload(p)
	case preGateway:
		d.record, d.err = decodeGateway(p)
	case preParent:
		d.record, d.err = decodeParent(p)
	case preNamespace:
		d.record, d.err = decodeNamespace(p)
	case preResourceType:
		d.record, d.err = decodeResourceType(p)
	case preDirty:
		d.record = dirtyMark(strings.TrimPrefix(e.Key, preDirty))
	case "meta/":
		d.record, d.err = decodeMeta(p)
	}
	if d.err != nil {
		d.record = nil
	}
	return d
}

// A dirtyMark is the id of an overlay whose head says that it is dirty.
type dirtyMark string

// A restoredMark says when a backup was restored.
type restoredMark time.Time

// decodeMeta reads what a KV says of itself; nil is of no interest.
func decodeMeta(p Pair) (any, error) {
	switch p.Key {
	case keySchema:
		return decodeSchema(p)
	case keyRestored:
		var r markRecord
		err := decode(p, &r, &r.V)
		return restoredMark(r.At), err
	}
	return nil, nil
}

// kindOf returns the prefix that says what a key is, slash included.
func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return key[:min(len(kind)+1, len(key))]
}

// apply brings one change in. A record that cannot be read takes the place of
// the one it replaced: it is in no listing, and asking for it is an error.
func (s *state) apply(d decoded) {
	delete(s.broken, d.key)
	if d.err != nil {
		s.broken[d.key] = d.err
	}
	if d.record == nil {
		s.drop(d.key)
		return
	}
	switch r := d.record.(type) {
	case Image:
		s.images.put(r)
	case Member:
		s.images.putMember(r)
	case Overlay:
		s.overlays[r.ID] = r
	case Attachment:
		s.dropAttachment(r.ID)
		s.attachments[r.ID] = r
		if r.TokenHash != "" {
			s.byToken[r.TokenHash] = r.ID
		}
	case Task:
		s.tasks[r.ID] = r
	case Upload:
		s.uploads[r.name()] = r
	case Gateway:
		s.gateways[r.ID] = r
	case Parent:
		s.parents[parentID(r.Image, r.Store)] = r
	case Namespace:
		s.namespaces[escapeName(r.Name)] = r
	case ResourceType:
		s.resourceTypes[r.Name] = r
	case dirtyMark:
		s.dirty[string(r)] = struct{}{}
	case restoredMark:
		s.restored = time.Time(r).Unix()
	case schemaRecord:
		s.schema, s.schemaRev = r.Catalog, d.rev
	}
}

// drop takes the record at key out, if there is one.
func (s *state) drop(key string) {
	kind := kindOf(key)
	id := key[len(kind):]
	switch kind {
	case preImage:
		s.images.remove(id)
	case preMember:
		s.images.removeMember(cutMember(key))
	case preOverlay:
		delete(s.overlays, id)
	case preAttach:
		s.dropAttachment(id)
	case preTask:
		delete(s.tasks, id)
	case preUpload:
		delete(s.uploads, id)
	case preGateway:
		delete(s.gateways, id)
	case preParent:
		delete(s.parents, id)
	case preNamespace:
		delete(s.namespaces, id)
	case preResourceType:
		name, _ := url.PathUnescape(id) // what was put in was escaped
		delete(s.resourceTypes, name)
	case preDirty:
		delete(s.dirty, id)
	}
}

func (s *state) dropAttachment(id string) {
	if a, ok := s.attachments[id]; ok {
		delete(s.byToken, a.TokenHash)
		delete(s.attachments, id)
	}
}
