package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const own = "/platter/v1"

// Overlays yields the overlays that a query finds.
func (c *Client) Overlays(ctx context.Context, query url.Values) iter.Seq2[Record, error] {
	return c.pages(ctx, own+"/overlays", "overlays", query)
}

// FindOverlay returns the overlay that an id or a name means, with or without
// "overlay/" before it.
func (c *Client) FindOverlay(ctx context.Context, what string) (Record, error) {
	what = strings.TrimPrefix(what, "overlay/")
	for _, id := range ids(what) {
		out, err := c.record(ctx, http.MethodGet, own+"/overlays/"+id, nil)
		if !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	var found []Record
	var all []string
	for o, err := range c.Overlays(ctx, url.Values{"name": {what}}) {
		if err != nil {
			return nil, err
		}
		found, all = append(found, o), append(all, o.ID())
	}
	switch {
	case len(found) == 0 || what == "":
		return nil, &MissingError{"overlay", what}
	case len(found) == 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{"overlay", what, all}
}

// CreateOverlay makes an overlay.
func (c *Client) CreateOverlay(ctx context.Context, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, own+"/overlays", fields)
}

// DeleteOverlay deletes an overlay and what was written to it.
func (c *Client) DeleteOverlay(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, own+"/overlays/"+id, nil, nil, nil)
}

// Snapshot keeps the state of an overlay.
func (c *Client) Snapshot(ctx context.Context, id, name string) (Record, error) {
	return c.record(ctx, http.MethodPost, own+"/overlays/"+id+"/snapshots", map[string]string{"name": name})
}

// DeleteSnapshot forgets a snapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, id, snapshot string) error {
	return c.call(ctx, http.MethodDelete, own+"/overlays/"+id+"/snapshots/"+url.PathEscape(snapshot), nil, nil, nil)
}

// Capture begins to make an image of an overlay and returns the task.
func (c *Client) Capture(ctx context.Context, id string, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, own+"/overlays/"+id+"/capture", fields)
}

// Attach makes an attachment. Only this answer holds its secret.
func (c *Client) Attach(ctx context.Context, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, own+"/attachments", fields)
}

// Attachments yields the attachments.
func (c *Client) Attachments(ctx context.Context, query url.Values) iter.Seq2[Record, error] {
	return c.pages(ctx, own+"/attachments", "attachments", query)
}

// Detach ends an attachment.
func (c *Client) Detach(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, own+"/attachments/"+url.PathEscape(id), nil, nil, nil)
}

// Export returns the disk of an image in another format, as a stream.
func (c *Client) Export(ctx context.Context, id, format string) (io.ReadCloser, int64, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: own + "/images/" + id + "/export",
		query: url.Values{"format": {format}}, size: -1})
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// A Probe is the answer of a gateway to a simple question.
type Probe struct {
	Status int
	Body   string
	Date   time.Time // of the gateway's clock; zero if it does not say
	Took   time.Duration
}

// Probe asks for a path and takes any answer. Only silence is an error.
func (c *Client) Probe(ctx context.Context, path string) (Probe, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return Probe{}, err
	}
	req.Header.Set("Accept", "application/json")
	start := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return Probe{}, c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Probe{}, c.unreached(ctx, err)
	}
	p := Probe{Status: resp.StatusCode, Body: string(text), Took: time.Since(start)}
	p.Date, err = http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		p.Date = time.Time{}
	}
	return p, nil
}

// An Extent is a run of bytes of one kind.
type Extent struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Kind   string `json:"kind"`
}

// Map yields the extents of an image's disk.
func (c *Client) Map(ctx context.Context, id string) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for off := int64(0); ; {
			var page struct {
				Extents []Extent `json:"extents"`
				Next    *int64   `json:"next_offset"`
			}
			query := url.Values{"offset": {fmt.Sprint(off)}}
			if err := c.call(ctx, http.MethodGet, own+"/images/"+id+"/map", query, nil, &page); err != nil {
				yield(Extent{}, err)
				return
			}
			for _, e := range page.Extents {
				if !yield(e, nil) {
					return
				}
			}
			if page.Next == nil || *page.Next <= off {
				return
			}
			off = *page.Next
		}
	}
}
