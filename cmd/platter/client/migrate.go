package client

import (
	"context"
	"net/http"
)

// MigrateImage takes over the record of an image of another service.
func (c *Client) MigrateImage(ctx context.Context, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, "/platter/v1/images", fields)
}

// SettleImage gives an image that was taken over, and has its data, the rest of
// what it was.
func (c *Client) SettleImage(ctx context.Context, id string, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, "/platter/v1/images/"+id+"/settle", fields)
}

// AdoptImage makes an object that a store has already the data of an image that
// was taken over.
func (c *Client) AdoptImage(ctx context.Context, id string, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, "/platter/v1/images/"+id+"/adopt", fields)
}
