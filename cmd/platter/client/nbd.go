package client

import (
	"context"
	"net/http"
	"net/url"
)

// Connections returns the live NBD connections, oldest first.
func (c *Client) Connections(ctx context.Context) ([]Record, error) {
	r, err := c.record(ctx, http.MethodGet, own+"/nbd/connections", nil)
	return r.Records("connections"), err
}

// Kick cuts an NBD connection.
func (c *Client) Kick(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, own+"/nbd/connections/"+url.PathEscape(id), nil, nil, nil)
}
