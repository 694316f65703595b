package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
)

const namespaces = "/v2/metadefs/namespaces"

// Namespaces yields the namespaces of metadata definitions that a query finds.
func (c *Client) Namespaces(ctx context.Context, query url.Values) iter.Seq2[Record, error] {
	return c.pages(ctx, namespaces, "namespaces", query)
}

// Namespace returns a namespace with all that is in it.
func (c *Client) Namespace(ctx context.Context, name string) (Record, error) {
	return c.record(ctx, http.MethodGet, namespaces+"/"+url.PathEscape(name), nil)
}

// CreateNamespace makes a namespace, with all that its JSON says.
func (c *Client) CreateNamespace(ctx context.Context, definition json.RawMessage) (Record, error) {
	return c.record(ctx, http.MethodPost, namespaces, definition)
}

// UpdateNamespace replaces the fields of a namespace, not what is in it.
func (c *Client) UpdateNamespace(ctx context.Context, name string, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPut, namespaces+"/"+url.PathEscape(name), fields)
}

// DeleteNamespace deletes a namespace with all that is in it.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, namespaces+"/"+url.PathEscape(name), nil, nil, nil)
}

// ResourceTypes returns the types of resources that definitions are for.
func (c *Client) ResourceTypes(ctx context.Context) ([]Record, error) {
	var out struct {
		Types []Record `json:"resource_types"`
	}
	err := c.call(ctx, http.MethodGet, "/v2/metadefs/resource_types", nil, nil, &out)
	return out.Types, err
}
