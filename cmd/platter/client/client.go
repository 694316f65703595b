// Package client speaks to a gateway over HTTP: the Image API under /v2, and
// what Platter adds to it under /platter/v1.
//
// Records are kept as the gateway sent them, so that a field this package has
// never heard of is shown all the same.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
)

// A Config says where the gateway is. URL is required.
type Config struct {
	URL   string
	Token string       // is sent, where there is one
	HTTP  *http.Client // nil is a client that waits as long as it takes

	// Login returns a token that is not bad, which is one that the gateway has
	// refused, or "". It is asked when the gateway wants a token, and before
	// what cannot be sent twice. Nil: there is only Token.
	Login func(ctx context.Context, bad string) (string, error)
}

// A Client speaks to one gateway. Any number of goroutines may use it.
type Client struct {
	base  string
	http  *http.Client
	login func(ctx context.Context, bad string) (string, error)

	mu    sync.Mutex
	token string
}

// New returns a Client. It does not speak to the gateway yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(cfg.URL, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the gateway's URL %q is not of the form http://HOST:PORT", cfg.URL)
	}
	u.Path = strings.TrimSuffix(u.Path, "/v2") // as in a service catalog
	c := &Client{base: u.String(), token: cfg.Token, http: cfg.HTTP, login: cfg.Login}
	if c.http == nil {
		c.http = &http.Client{CheckRedirect: sameHost}
	}
	return c, nil
}

// sameHost refuses to follow to another host, since a token would go along.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Host != via[0].URL.Host || len(via) > 5 {
		return fmt.Errorf("it leads elsewhere, to %s://%s, which is not followed", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// URL returns where the gateway is.
func (c *Client) URL() string { return c.base }

// A Record is what the gateway knows of one thing. Numbers are json.Number.
type Record map[string]any

// Text returns a field as text; what is missing or null is "".
func (r Record) Text(key string) string {
	switch v := r[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

// Int returns a number, or -1 if there is none.
func (r Record) Int(key string) int64 {
	n, ok := r[key].(json.Number)
	if !ok {
		return -1
	}
	v, err := n.Int64()
	if err != nil {
		return -1
	}
	return v
}

// Strings returns a list of strings.
func (r Record) Strings(key string) []string {
	list, _ := r[key].([]any)
	out := make([]string, 0, len(list))
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// ID returns the record's id.
func (r Record) ID() string { return r.Text("id") }

// jsonPatch is the media type of changes to an image.
const jsonPatch = "application/openstack-images-v2.1-json-patch"

// call sends body, if it is not nil, as JSON and decodes the answer into out,
// if that is not nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	var r io.Reader
	contentType := ""
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		r, contentType = bytes.NewReader(text), "application/json"
		if method == http.MethodPatch && strings.HasPrefix(path, "/v2/") {
			contentType = jsonPatch
		}
	}
	resp, err := c.send(ctx, request{method: method, path: path, query: query, body: r, size: -1, contentType: contentType})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	dec := json.NewDecoder(resp.Body)
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%s %s: the gateway's answer is not what was asked for: %w", method, path, err)
	}
	return nil
}

// record is call for an answer that is one record.
func (c *Client) record(ctx context.Context, method, path string, body any) (Record, error) {
	var out Record
	err := c.call(ctx, method, path, nil, body, &out)
	return out, err
}

type request struct {
	method, path string
	query        url.Values
	body         io.Reader
	size         int64 // of the body, -1 if nobody knows
	contentType  string
	rng          string // a Range header
	target       string // an X-Image-Cache-Clear-Target header
}

// send returns an answer of 2xx, whose body the caller closes, or an error. With
// a Login it gets a token when the gateway asks for one, and a new one when the
// old one has ended.
func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	token, err := c.tokenFor(ctx, q)
	if err != nil {
		return nil, err
	}
	again := q
	if r, ok := q.body.(*bytes.Reader); ok {
		unread := *r // the first try may still be reading when it has been answered
		again.body = &unread
	}
	resp, err := c.sendAs(ctx, q, token)
	var answer *Error
	if c.login == nil || !q.repeats() || !errors.As(err, &answer) || answer.Status != http.StatusUnauthorized {
		return resp, err
	}
	if token, err = c.renew(ctx, token); err != nil {
		return nil, err
	}
	return c.sendAs(ctx, again, token)
}

// repeats tells whether a request can be sent once more.
func (q request) repeats() bool {
	_, ok := q.body.(*bytes.Reader)
	return q.body == nil || ok
}

// tokenFor returns the token to begin with, which may be none. What cannot be
// sent twice needs a good one: Login knows whether the one at hand still is.
func (c *Client) tokenFor(ctx context.Context, q request) (string, error) {
	c.mu.Lock()
	token := c.token
	c.mu.Unlock()
	if c.login == nil || q.repeats() {
		return token, nil
	}
	if token == "" && !c.wantsToken(ctx) {
		return "", nil
	}
	return c.renew(ctx, "")
}

// wantsToken tells whether the gateway refuses who has no token.
func (c *Client) wantsToken(ctx context.Context) bool {
	resp, err := c.sendAs(ctx, request{method: http.MethodGet, path: "/v2/images", query: url.Values{"limit": {"1"}}, size: -1}, "")
	if err == nil {
		resp.Body.Close()
	}
	var answer *Error
	return errors.As(err, &answer) && answer.Status == http.StatusUnauthorized
}

func (c *Client) renew(ctx context.Context, bad string) (string, error) {
	token, err := c.login(ctx, bad)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token
	return token, nil
}

// sendAs sends a request with a token, or without one.
func (c *Client) sendAs(ctx context.Context, q request, token string) (*http.Response, error) {
	target := c.base + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, q.body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", q.method, q.path, err)
	}
	if q.size >= 0 {
		req.ContentLength = q.size
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "platter")
	for key, value := range map[string]string{"Content-Type": q.contentType, "Range": q.rng, "X-Auth-Token": token,
		"X-Image-Cache-Clear-Target": q.target} {
		if value != "" {
			req.Header.Set(key, value)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, answerError(q, resp)
}

func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	// A chain of addresses and system calls says no more than its end.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return &UnreachedError{URL: c.base, Err: err}
}

// pages yields the records of a listing, page by page.
func (c *Client) pages(ctx context.Context, path, key string, query url.Values) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			var page map[string]json.RawMessage
			if err := c.call(ctx, http.MethodGet, path, query, nil, &page); err != nil {
				yield(nil, err)
				return
			}
			list, next, err := decodePage(page, key)
			if err != nil {
				yield(nil, fmt.Errorf("GET %s: the gateway's answer is not what was asked for: %w", path, err))
				return
			}
			for _, r := range list {
				if !yield(r, nil) {
					return
				}
			}
			if next == "" || len(list) == 0 {
				return
			}
			u, err := url.Parse(next)
			if err != nil {
				yield(nil, fmt.Errorf("GET %s: the gateway's next page %q: %w", path, next, err))
				return
			}
			query = u.Query()
		}
	}
}

func decodePage(page map[string]json.RawMessage, key string) (list []Record, next string, err error) {
	dec := json.NewDecoder(bytes.NewReader(page[key]))
	dec.UseNumber()
	if err := dec.Decode(&list); err != nil {
		return nil, "", err
	}
	if raw, ok := page["next"]; ok {
		err = json.Unmarshal(raw, &next)
	}
	return list, next, err
}
