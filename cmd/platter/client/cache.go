package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

const wholeCache = "/v2/cache"

// CachedImages returns what the gateway has whole in its cache, and the ids of
// the images that wait to be fetched.
func (c *Client) CachedImages(ctx context.Context) (cached []Record, queued []string, err error) {
	r, err := c.record(ctx, http.MethodGet, wholeCache, nil)
	if err != nil {
		return nil, nil, err
	}
	ids, _ := r["queued_images"].([]any)
	for _, id := range ids {
		text, ok := id.(string)
		if !ok {
			return nil, nil, errors.New("the gateway's list of queued images has something in it that is no id")
		}
		queued = append(queued, text)
	}
	return r.Records("cached_images"), queued, nil
}

// QueueCached has an image fetched into the cache.
func (c *Client) QueueCached(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPut, wholeCache+"/"+url.PathEscape(id), nil, nil, nil)
}

// DeleteCached takes an image out of the cache and its queue.
func (c *Client) DeleteCached(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, wholeCache+"/"+url.PathEscape(id), nil, nil, nil)
}

// ClearCache empties the cache, its queue, or both for "".
func (c *Client) ClearCache(ctx context.Context, target string) error {
	resp, err := c.send(ctx, request{method: http.MethodDelete, path: wholeCache, target: target})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// CleanCache removes what is left in the cache of images that are gone.
func (c *Client) CleanCache(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, wholeCache+"/clean", nil, nil, nil)
}

// PruneCache makes the cache as small as it is to be, and returns what that
// took.
func (c *Client) PruneCache(ctx context.Context) (Record, error) {
	return c.record(ctx, http.MethodPost, wholeCache+"/prune", nil)
}
