package swift

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/seed-478a8fee/platter/backends"
)

// CopyFrom makes an object from one of another container of the same account,
// or of this one, inside the server. Anything else is errors.ErrUnsupported.
func (s *Store) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	src, ok := from.(*Store)
	if !ok || !s.can.copy {
		return fmt.Errorf("swift: copy %s: %w", fromKey, errors.ErrUnsupported)
	}
	if err := s.copy(ctx, key, src, fromKey); err != nil {
		return fmt.Errorf("swift: copy %s to %s: %w", fromKey, key, err)
	}
	return nil
}

func (s *Store) copy(ctx context.Context, key string, src *Store, fromKey string) error {
	if same, err := s.sameAccount(ctx, src); err != nil || !same {
		return errors.Join(err, errors.ErrUnsupported)
	}
	o, err := src.open(ctx, fromKey)
	if err != nil {
		return err
	}
	if o.state.segment == 0 && (o.state.dynamic != "" || o.state.static) {
		return fmt.Errorf("it is a manifest of somebody else's: %w", errors.ErrUnsupported)
	}
	w, err := s.create(ctx, key, o.Size())
	if err != nil {
		return err
	}
	defer w.Abort()
	w.off = o.Size()
	if o.state.segment == 0 {
		err = w.copyWhole(segment{container: src.cfg.Container, name: o.name, total: o.state.size, etag: o.state.etag})
	} else {
		err = w.copySegments(o)
	}
	if err == nil {
		w.end()
	}
	return err
}

func (w *writer) copyWhole(seg segment) error {
	if err := w.store.making.take(w.ctx, w.name); err != nil {
		return err
	}
	defer w.store.making.give(w.name)
	if err := w.store.vacant(w.ctx, w.name); err != nil {
		return err
	}
	w.doubt = true
	_, err := w.store.copyOne(w.ctx, w.name, w.id, seg, nil)
	return err
}

func (w *writer) copySegments(o *object) error {
	w.segment = o.state.segment
	if err := w.claim(); err != nil {
		return err
	}
	for _, name := range []string{w.name, segmentName(w.name, 1)} {
		if err := w.store.vacant(w.ctx, name); err != nil {
			return err
		}
	}
	for i := range o.state.count() {
		w.number = i + 1
		seg := o.find(int64(i) * w.segment)
		digest, err := w.store.copyOne(w.ctx, segmentName(w.name, w.number), w.id, seg, map[string]string{numberHeader: fmt.Sprint(w.number)})
		if err != nil {
			return fmt.Errorf("segment %d: %w", w.number, err)
		}
		w.has(w.number, digest)
	}
	return w.putManifest(w.ctx)
}

func (s *Store) sameAccount(ctx context.Context, src *Store) (bool, error) {
	_, ours, err := s.session.get(ctx)
	if err != nil {
		return false, s.explain(err)
	}
	_, theirs, err := src.session.get(ctx)
	if err != nil {
		return false, src.explain(err)
	}
	return ours.String() == theirs.String(), nil
}

// copyOne copies a Swift object with metadata of its own, and returns its MD5.
func (s *Store) copyOne(ctx context.Context, name, id string, seg segment, header map[string]string) (string, error) {
	st, err := s.head(ctx, s.writing(), seg.container, seg.name)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && (st.size != seg.total || seg.etag != "" && st.etag != seg.etag || st.upload != seg.upload && seg.upload != ""):
		return "", replaced(seg)
	case err != nil:
		return "", s.explain(err)
	}
	h := map[string]string{copyHeader: escape(seg.container + "/" + seg.name), "X-Fresh-Metadata": "true"}
	for k, v := range header {
		h[k] = v
	}
	if err := s.put(ctx, upload{name: name, id: id, header: h}); err != nil {
		if statusOf(err) == http.StatusNotFound {
			return "", replaced(seg)
		}
		return "", err
	}
	// The answer to a copy tells too little on some servers.
	made, err := s.head(ctx, s.writing(), s.cfg.Container, name)
	switch {
	case err != nil:
		return "", s.explain(err)
	case made.size != st.size || made.etag != st.etag || made.upload != id:
		return "", fmt.Errorf("the server made another object than %s of it: %w", seg.name, errDigest)
	}
	return made.etag, nil
}
