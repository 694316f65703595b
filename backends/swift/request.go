package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	agent = "platter"

	// expectFrom is the size of a body from which on the server is asked
	// whether it wants it.
	expectFrom = 1 << 20

	// maxAnswer bounds what is read of an answer that is no object.
	maxAnswer = 64 << 20

	// maxWords bounds what is read of a refusal.
	maxWords = 1 << 10
)

// A request is one request to the account, which may be sent several times.
type request struct {
	method    string
	container string
	name      string // of an object, or "" for the container itself
	query     url.Values
	header    map[string]string
	body      *spool // or nil
	alone     bool   // on a connection of its own, closed afterwards
}

// what names the request in errors and logs.
func (r request) what() string {
	return strings.ToLower(r.method) + " " + strings.TrimRight(r.container+"/"+r.name, "/")
}

// escape writes a name so that it can stand in a path.
func escape(name string) string { return strings.ReplaceAll(url.PathEscape(name), "%2F", "/") }

// build makes the HTTP request.
func (r request) build(ctx context.Context, token string, target *url.URL) (*http.Request, error) {
	address := target.String() + "/" + escape(r.container)
	if r.name != "" {
		address += "/" + escape(r.name)
	}
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("User-Agent", agent)
	req.Close = r.alone
	if r.body == nil || r.body.size == 0 {
		return req, nil // a PUT of nothing gets its Content-Length: 0 by itself
	}
	req.ContentLength = r.body.size
	req.GetBody = func() (io.ReadCloser, error) { return r.body.open(), nil }
	req.Body = r.body.open()
	if r.body.size >= expectFrom {
		req.Header.Set("Expect", "100-continue")
	}
	return req, nil
}

// send sends a request once, or twice if its token was too old. The caller
// closes the body.
func (s *Store) send(ctx context.Context, r request) (*http.Response, error) {
	for second := false; ; second = true {
		token, target, err := s.session.get(ctx)
		if err != nil {
			return nil, err
		}
		req, err := r.build(ctx, token, target)
		if err != nil {
			return nil, err
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized {
			s.session.expired(ctx, token)
			if !second {
				resp.Body.Close()
				continue
			}
		}
		if resp.StatusCode >= 300 {
			defer resp.Body.Close()
			return nil, refusal(r, resp)
		}
		return resp, nil
	}
}

// A statusError is an answer that says no.
type statusError struct {
	what   string
	status int
	words  string // of the server, or ""
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s: answered %d %s", e.what, e.status, http.StatusText(e.status))
	if e.words != "" {
		text += " (" + e.words + ")"
	}
	return text
}

func refusal(r request, resp *http.Response) error {
	e := &statusError{what: r.what(), status: resp.StatusCode}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		words, _ := io.ReadAll(io.LimitReader(resp.Body, maxWords)) // as much as there is
		e.words = strings.Join(strings.Fields(string(words)), " ")
	} else {
		_, _ = io.CopyN(io.Discard, resp.Body, maxWords) // so that the connection can be used again
	}
	return e
}

// statusOf returns the status of an answer that says no, 0 for other errors.
func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
}

// ask sends a request with patience and returns the header of the answer.
func (s *Store) ask(ctx context.Context, p patience, r request) (http.Header, error) {
	header, _, err := s.fetch(ctx, p, r)
	return header, err
}

// fetch is ask that returns the body of the answer as well.
func (s *Store) fetch(ctx context.Context, p patience, r request) (header http.Header, body []byte, err error) {
	err = s.again(ctx, p, r.what(), func(ctx context.Context) error {
		resp, err := s.send(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		header = resp.Header
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		if len(body) > maxAnswer {
			return fmt.Errorf("%s: an answer of more than %d bytes", r.what(), maxAnswer)
		}
		return err
	})
	return header, body, err
}

// number returns a number in a header, -1 if there is none.
func number(h http.Header, name string) int64 {
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// etag returns the ETag in a header without its quotes.
func etag(h http.Header) string { return strings.Trim(h.Get("Etag"), `"`) }

// patience is how often and how long a request is tried.
type patience struct {
	tries  int           // at most; 0 is without limit
	within time.Duration // no new try after this; 0 is without limit
}

// reading is the patience of reads, which somebody waits for.
func (s *Store) reading() patience { return patience{tries: 4} }

// writing is the patience of writes, which ride out the restart of a server.
func (s *Store) writing() patience { return patience{within: s.cfg.Retry} }

const (
	firstDelay = 50 * time.Millisecond
	lastDelay  = 2 * time.Second
	slowDelay  = 500 * time.Millisecond // at least, for a server that asked us to slow down
)

// delay returns how long to wait before the next try, half of it by chance so
// that many clients do not come back at once.
func delay(try int, err error) time.Duration {
	d := min(firstDelay<<min(try, 10), lastDelay)
	switch statusOf(err) {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, statusRateLimit:
		d = max(d, slowDelay)
	}
	return d/2 + rand.N(d/2+1)
}

// again calls f until it succeeds, fails for good, or patience or ctx end. The
// error is f's last one; where ctx ended, ctx's.
func (s *Store) again(ctx context.Context, p patience, what string, f func(ctx context.Context) error) error {
	began := time.Now()
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d := delay(try, err)
		over := p.tries > 0 && try+1 >= p.tries || p.within > 0 && time.Since(began)+d > p.within
		if over || !passing(err) {
			return err
		}
		s.cfg.Logger.WarnContext(ctx, "swift: trying again", "what", what, "after", d, "error", err)
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
