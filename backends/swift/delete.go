package swift

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Delete removes an object with its segments, and what an unfinished upload to
// its key left.
func (s *Store) Delete(ctx context.Context, key string) error {
	err := check(ctx, key)
	if err == nil {
		err = s.delete(ctx, s.name(key))
	}
	if err != nil {
		return fmt.Errorf("swift: delete %s: %w", key, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, name string) error {
	st, err := s.head(ctx, s.writing(), s.cfg.Container, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.removeLeft(ctx, name)
	case err != nil:
		return s.explain(err)
	case st.segment > 0:
		// The manifest first: nobody shall see it without its segments. What
		// a crash leaves here the next Delete finds by its marks.
		if err := s.remove(ctx, s.cfg.Container, name); err != nil {
			return err
		}
		return each(st.count(), func(i int) error { return s.remove(ctx, s.cfg.Container, segmentName(name, i+1)) })
	case st.dynamic != "":
		if err := s.removeDynamic(ctx, name, st.dynamic); err != nil {
			return err
		}
	case st.static:
		return s.removeStatic(ctx, name)
	}
	return s.remove(ctx, s.cfg.Container, name)
}

// removeLeft removes the segments of an upload of ours that has no manifest.
// Another object may be called like a segment, so each is looked at.
func (s *Store) removeLeft(ctx context.Context, name string) error {
	if s.sending.held(name) {
		return nil // its Writer will end it
	}
	entries, err := s.list(ctx, s.writing(), s.cfg.Container, name+"-")
	if statusOf(err) == http.StatusNotFound {
		return nil // no container, no segments
	}
	if err != nil {
		return s.explain(err)
	}
	return each(len(entries), func(i int) error {
		number, err := strconv.Atoi(strings.TrimPrefix(entries[i].Name, name+"-"))
		if err != nil || entries[i].Name != segmentName(name, number) {
			return nil
		}
		h, err := s.ask(ctx, s.writing(), request{method: http.MethodHead, container: s.cfg.Container, name: entries[i].Name})
		switch {
		case statusOf(err) == http.StatusNotFound:
			return nil // listings lag behind
		case err != nil:
			return s.explain(err)
		case h.Get(numberHeader) != strconv.Itoa(number):
			return nil
		}
		return s.remove(ctx, s.cfg.Container, entries[i].Name)
	})
}

// removeDynamic removes the segments of somebody's dynamic manifest, as far as
// they are certainly its own: a manifest may name any part of any container.
func (s *Store) removeDynamic(ctx context.Context, name, manifest string) error {
	container, prefix, _ := strings.Cut(manifest, "/")
	if !strings.HasPrefix(prefix, name+"-") && !strings.HasPrefix(prefix, name+"/") {
		s.cfg.Logger.WarnContext(ctx, "swift: a manifest is deleted without its segments, whose names do not begin with its own",
			"container", s.cfg.Container, "name", name, "segments", manifest)
		return nil
	}
	entries, err := s.list(ctx, s.writing(), container, prefix)
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return s.explain(err)
	}
	return each(len(entries), func(i int) error { return s.remove(ctx, container, entries[i].Name) })
}

// removeStatic removes somebody's static manifest with its segments, as Glance
// does. A server that cannot is asked to remove the manifest.
func (s *Store) removeStatic(ctx context.Context, name string) error {
	if !s.can.manifests {
		s.cfg.Logger.WarnContext(ctx, "swift: a static manifest is deleted without its segments, which this server does not tell",
			"container", s.cfg.Container, "name", name)
		return s.remove(ctx, s.cfg.Container, name)
	}
	_, body, err := s.fetch(ctx, s.writing(), request{method: http.MethodDelete, container: s.cfg.Container, name: name,
		query: url.Values{"multipart-manifest": {"delete"}}, header: map[string]string{"Accept": "text/plain"}})
	if err != nil {
		return s.explain(err)
	}
	// The status is in the body; what is gone already is no error.
	for line := range strings.Lines(string(body)) {
		if status, ok := strings.CutPrefix(line, "Response Status:"); ok && !strings.HasPrefix(strings.TrimSpace(status), "2") {
			return fmt.Errorf("the segments of %s: %s", name, strings.TrimSpace(status))
		}
	}
	return nil
}

// remove deletes a Swift object. To remove nothing is no error.
func (s *Store) remove(ctx context.Context, container, name string) error {
	_, err := s.ask(ctx, s.writing(), request{method: http.MethodDelete, container: container, name: name})
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	return s.explain(err)
}

// removeOf deletes a Swift object if it is of that upload.
func (s *Store) removeOf(ctx context.Context, name, id string) error {
	st, err := s.head(ctx, s.reading(), s.cfg.Container, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return s.explain(err)
	case st.upload != id:
		return nil
	}
	return s.remove(ctx, s.cfg.Container, name)
}

// abreast is how many small requests of one call are under way at once.
const abreast = 4

// each calls f for 0 to n-1, some at once, and returns the first error.
func each(n int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(abreast)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}
