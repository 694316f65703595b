package client

import (
	"context"
	"net/http"
	"net/url"
)

// Records returns a list of records.
func (r Record) Records(key string) []Record {
	list, _ := r[key].([]any)
	out := make([]Record, 0, len(list))
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Stores returns the stores of the gateway.
func (c *Client) Stores(ctx context.Context) ([]Record, error) {
	r, err := c.record(ctx, http.MethodGet, own+"/stores", nil)
	return r.Records("stores"), err
}

// Cache returns the state of the gateway's cache.
func (c *Client) Cache(ctx context.Context) (Record, error) {
	return c.record(ctx, http.MethodGet, own+"/cache", nil)
}

// DropCached takes an image out of the cache.
func (c *Client) DropCached(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, own+"/cache/images/"+url.PathEscape(id), nil, nil, nil)
}

// Trace returns what is fetched ahead when an image is attached.
func (c *Client) Trace(ctx context.Context, id string) (Record, error) {
	return c.record(ctx, http.MethodGet, own+"/images/"+id+"/trace", nil)
}

// ForgetTrace lets the next attachment record anew.
func (c *Client) ForgetTrace(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, own+"/images/"+id+"/trace", nil, nil, nil)
}

// ChangeOverlay changes fields of an overlay.
func (c *Client) ChangeOverlay(ctx context.Context, id string, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPatch, own+"/overlays/"+id, fields)
}

// Flatten begins to make an overlay stand alone and returns the task.
func (c *Client) Flatten(ctx context.Context, id string) (Record, error) {
	return c.record(ctx, http.MethodPost, own+"/overlays/"+id+"/flatten", nil)
}
