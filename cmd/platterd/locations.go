package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/http"
	"github.com/seed-478a8fee/platter/catalog"
)

// URI returns the URL of a location, as Glance's driver has it.
func (ps *places) URI(l catalog.Location) string {
	for _, p := range ps.stores {
		if p.name == l.Store {
			return backends.URI(p.store, l.Key)
		}
	}
	return ""
}

// Find returns the location that a URL means, if a store of this gateway has
// it. Files of this machine are named by nobody.
func (ps *places) Find(ctx context.Context, uri string) (catalog.Location, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	known := false
	for _, p := range ps.stores {
		key, ok := p.keyOf(uri)
		if !ok {
			continue
		}
		known = true
		r, err := p.store.Open(ctx, key)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				ps.log.WarnContext(ctx, "a location could not be looked at", "store", p.name, "err", err)
			}
			continue // another store may have it
		}
		size := r.Size()
		if err := r.Close(); err != nil {
			return catalog.Location{}, err
		}
		return catalog.Location{Store: p.name, Key: key, Size: size}, nil
	}
	if !known {
		return catalog.Location{}, fmt.Errorf("no store here has objects at such a URL: %w", fs.ErrInvalid)
	}
	return catalog.Location{}, fmt.Errorf("it is not there, or may not be read: %w", fs.ErrNotExist)
}

// keyOf returns the key of the object that a URL means in a store.
func (p *place) keyOf(uri string) (string, bool) {
	switch p.cfg.Type {
	case "file":
		return "", false
	case "http":
		key, err := http.URLKey(uri)
		return key, err == nil
	}
	// The URL of an object is the same for all but for the key in it.
	const mark = "0mark0"
	before, after, ok := strings.Cut(backends.URI(p.store, mark), mark)
	if !ok || !strings.HasPrefix(uri, before) || !strings.HasSuffix(uri, after) || len(uri) <= len(before)+len(after) {
		return "", false
	}
	key := uri[len(before) : len(uri)-len(after)]
	return key, backends.CheckKey(key) == nil && backends.URI(p.store, key) == uri
}
