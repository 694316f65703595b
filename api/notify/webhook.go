package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Headers of a POST to a webhook. SignatureHeader is "sha256=" and the
// HMAC-SHA-256, in hex, of the value of TimestampHeader, a point, and the body.
const (
	EventHeader     = "X-Platter-Event"
	DeliveryHeader  = "X-Platter-Delivery"
	TimestampHeader = "X-Platter-Timestamp" // seconds since 1970
	SignatureHeader = "X-Platter-Signature"
)

// maxTries is how often the receiver may fail at one event before that is given
// up: one that stumbles over it shall still get the next. While it does not
// answer at all, nothing is given up.
const maxTries = 8

// WebhookConfig says who gets the events by HTTP. URL is required.
type WebhookConfig struct {
	URL    string
	Secret string      // "": nothing is signed
	TLS    *tls.Config // nil: the system's authorities
	Now    func() time.Time
}

// A Webhook is a Sink that posts each event, as JSON.
type Webhook struct {
	cfg    WebhookConfig
	client *http.Client
	id     string // of the event that was tried last
	tries  int
}

// NewWebhook returns a Sink. It follows no redirects.
func NewWebhook(cfg WebhookConfig) *Webhook {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.MaxIdleConnsPerHost = cfg.TLS, 1
	return &Webhook{cfg: cfg, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Send posts a message. An answer that says the message itself is at fault
// (4xx, but for 408, 425 and 429) is Refused, and so is the eighth failure.
func (h *Webhook) Send(ctx context.Context, m Message) error {
	if h.id != m.ID {
		h.id, h.tries = m.ID, 0
	}
	err := h.post(ctx, m)
	if errors.Is(err, errAnswer) {
		if h.tries++; h.tries >= maxTries {
			return &Refused{fmt.Errorf("%w, %d times in a row", err, h.tries)}
		}
	}
	return err
}

// errAnswer is an answer that may be another one next time.
var errAnswer = errors.New("it could not take the event")

func (h *Webhook) post(ctx context.Context, m Message) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(m.Body))
	if err != nil {
		return &Refused{errors.New("webhook: the address is no URL")}
	}
	at := strconv.FormatInt(h.cfg.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "platter")
	r.Header.Set(EventHeader, m.Type)
	r.Header.Set(DeliveryHeader, m.ID)
	r.Header.Set(TimestampHeader, at)
	if h.cfg.Secret != "" {
		r.Header.Set(SignatureHeader, Sign(h.cfg.Secret, at, m.Body))
	}
	resp, err := h.client.Do(r)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // its text has the URL, which may hold a secret
		}
		return fmt.Errorf("webhook: post: %w", err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection serves again; more is not worth it
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 3:
		return &Refused{fmt.Errorf("webhook: it answered %d, and redirects are not followed; give the final address", code)}
	case code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests:
		return &Refused{fmt.Errorf("webhook: it answered %d", code)}
	default:
		return fmt.Errorf("webhook: %w: it answered %d", errAnswer, code)
	}
}

// Sign returns the value of SignatureHeader.
func Sign(secret, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(cmp.Or(timestamp, "0") + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Close closes idle connections.
func (h *Webhook) Close() error {
	h.client.CloseIdleConnections()
	return nil
}
