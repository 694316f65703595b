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

	"github.com/google/uuid"
)

// Images yields the images that a query finds, in its order.
func (c *Client) Images(ctx context.Context, query url.Values) iter.Seq2[Record, error] {
	return c.pages(ctx, "/v2/images", "images", query)
}

// Image returns the image with this id.
func (c *Client) Image(ctx context.Context, id string) (Record, error) {
	return c.record(ctx, http.MethodGet, "/v2/images/"+url.PathEscape(id), nil)
}

// FindImage returns the image that an id or a name means. A name that several
// images have is an AmbiguousError.
func (c *Client) FindImage(ctx context.Context, what string) (Record, error) {
	for _, id := range ids(what) {
		img, err := c.Image(ctx, id)
		if !errors.Is(err, fs.ErrNotExist) {
			return img, err
		}
	}
	found, err := c.named(ctx, what)
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, &MissingError{"image", what}
	case 1:
		return found[0], nil
	}
	var all []string
	for _, img := range found {
		all = append(all, img.ID())
	}
	return nil, &AmbiguousError{"image", what, all}
}

// ids returns the ids that a text may mean: itself and, as ids are usually
// made, in lower case.
func ids(what string) []string {
	if uuid.Validate(what) != nil || len(what) != 36 {
		return nil
	}
	if lower := strings.ToLower(what); lower != what {
		return []string{what, lower}
	}
	return []string{what}
}

// named finds images by name; hidden and community ones too, since who asks
// by name knows of them.
func (c *Client) named(ctx context.Context, name string) ([]Record, error) {
	seen := map[string]bool{}
	var found []Record
	for _, hidden := range []string{"false", "true"} {
		query := url.Values{"name": {exactly(name)}, "visibility": {"all"}, "os_hidden": {hidden}}
		for img, err := range c.Images(ctx, query) {
			if err != nil {
				return nil, err
			}
			if !seen[img.ID()] {
				seen[img.ID()] = true
				found = append(found, img)
			}
		}
	}
	return found, nil
}

// exactly writes a name as a filter. A name that looks like an operator, or
// has a comma, is quoted in a list of one.
func exactly(name string) string {
	if !strings.ContainsAny(name, `:,"`) {
		return name
	}
	return `in:"` + strings.ReplaceAll(strings.ReplaceAll(name, `\`, `\\`), `"`, `\"`) + `"`
}

// CreateImage makes the record of an image.
func (c *Client) CreateImage(ctx context.Context, fields map[string]any) (Record, error) {
	return c.record(ctx, http.MethodPost, "/v2/images", fields)
}

// A Change is one operation of a JSON patch.
type Change struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Pointer returns the path of a top-level field.
func Pointer(key string) string {
	return "/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// UpdateImage changes an image: all of the changes or none.
func (c *Client) UpdateImage(ctx context.Context, id string, changes []Change) (Record, error) {
	return c.record(ctx, http.MethodPatch, "/v2/images/"+id, changes)
}

// DeleteImage deletes an image.
func (c *Client) DeleteImage(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v2/images/"+id, nil, nil, nil)
}

// Act deactivates or reactivates an image.
func (c *Client) Act(ctx context.Context, id, action string) error {
	return c.call(ctx, http.MethodPost, "/v2/images/"+id+"/actions/"+action, nil, nil, nil)
}

// Upload sends the bytes of an image, size of them or, if nobody knows, -1.
func (c *Client) Upload(ctx context.Context, id string, body io.Reader, size int64) error {
	return c.put(ctx, id, "/file", body, size)
}

// Stage sends the bytes of an image for a later import, as Upload does.
func (c *Client) Stage(ctx context.Context, id string, body io.Reader, size int64) error {
	return c.put(ctx, id, "/stage", body, size)
}

// Import begins an import, which goes on when this has returned.
func (c *Client) Import(ctx context.Context, id string, request map[string]any) error {
	return c.call(ctx, http.MethodPost, "/v2/images/"+id+"/import", nil, request, nil)
}

func (c *Client) put(ctx context.Context, id, what string, body io.Reader, size int64) error {
	if size == 0 {
		body = http.NoBody
	}
	resp, err := c.send(ctx, request{method: http.MethodPut, path: "/v2/images/" + id + what,
		body: body, size: size, contentType: "application/octet-stream"})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Download returns the bytes of an image from an offset on, and how many they
// are. An image without data is fs.ErrNotExist.
func (c *Client) Download(ctx context.Context, id string, off int64) (io.ReadCloser, int64, error) {
	return c.read(ctx, id, off, -1)
}

// ReadAt fills p with the bytes of an image at an offset.
func (c *Client) ReadAt(ctx context.Context, id string, p []byte, off int64) error {
	body, _, err := c.read(ctx, id, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.ReadFull(body, p); err != nil {
		return fmt.Errorf("image %s at %d: %w", id, off, err)
	}
	return nil
}

func (c *Client) read(ctx context.Context, id string, off, n int64) (io.ReadCloser, int64, error) {
	q := request{method: http.MethodGet, path: "/v2/images/" + id + "/file", size: -1}
	switch {
	case n >= 0:
		q.rng = fmt.Sprintf("bytes=%d-%d", off, off+n-1)
	case off > 0:
		q.rng = fmt.Sprintf("bytes=%d-", off)
	}
	resp, err := c.send(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode == http.StatusNoContent {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("image %s has no data yet: %w", id, fs.ErrNotExist)
	}
	if q.rng != "" && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("image %s: the gateway cannot read from the middle: %w", id, errors.ErrUnsupported)
	}
	return resp.Body, resp.ContentLength, nil
}

// Members returns the projects that an image is shared with.
func (c *Client) Members(ctx context.Context, id string) ([]Record, error) {
	var out struct {
		Members []Record `json:"members"`
	}
	err := c.call(ctx, http.MethodGet, "/v2/images/"+id+"/members", nil, nil, &out)
	return out.Members, err
}

// Member returns one of them.
func (c *Client) Member(ctx context.Context, id, project string) (Record, error) {
	return c.record(ctx, http.MethodGet, "/v2/images/"+id+"/members/"+url.PathEscape(project), nil)
}

// AddMember shares an image with a project.
func (c *Client) AddMember(ctx context.Context, id, project string) (Record, error) {
	return c.record(ctx, http.MethodPost, "/v2/images/"+id+"/members", map[string]string{"member": project})
}

// SetMember answers an offer of an image: accepted, rejected or pending.
func (c *Client) SetMember(ctx context.Context, id, project, status string) (Record, error) {
	return c.record(ctx, http.MethodPut, "/v2/images/"+id+"/members/"+url.PathEscape(project),
		map[string]string{"status": status})
}

// DeleteMember ends the sharing with a project.
func (c *Client) DeleteMember(ctx context.Context, id, project string) error {
	return c.call(ctx, http.MethodDelete, "/v2/images/"+id+"/members/"+url.PathEscape(project), nil, nil, nil)
}

// Tasks yields the tasks that a query finds.
func (c *Client) Tasks(ctx context.Context, query url.Values) iter.Seq2[Record, error] {
	return c.pages(ctx, "/v2/tasks", "tasks", query)
}

// ImageTasks yields the tasks of an image.
func (c *Client) ImageTasks(ctx context.Context, id string) iter.Seq2[Record, error] {
	return c.pages(ctx, "/v2/images/"+id+"/tasks", "tasks", nil)
}

// Task returns one task.
func (c *Client) Task(ctx context.Context, id string) (Record, error) {
	return c.record(ctx, http.MethodGet, "/v2/tasks/"+url.PathEscape(id), nil)
}
