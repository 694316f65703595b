package notify

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWebhook(t *testing.T) {
	var got *http.Request
	var body []byte
	status := http.StatusNoContent
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer s.Close()
	h := NewWebhook(WebhookConfig{URL: s.URL + "/events", Secret: "key"})
	defer h.Close()
	m := Message{ID: "1", Type: "image.create", Body: []byte(`{"a":1}`)}
	if err := h.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	head := got.Header
	if got.Method != "POST" || got.URL.Path != "/events" || string(body) != `{"a":1}` || head.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s, %s, %q", got.Method, got.URL, head.Get("Content-Type"), body)
	}
	if head.Get(EventHeader) != "image.create" || head.Get(DeliveryHeader) != "1" ||
		head.Get(SignatureHeader) != Sign("key", head.Get(TimestampHeader), body) {
		t.Errorf("headers %v", head)
	}
	for _, c := range []struct {
		status  int
		refused bool
	}{{302, true}, {400, true}, {404, true}, {408, false}, {429, false}, {500, false}, {503, false}} {
		status = c.status
		m.ID = http.StatusText(c.status)
		err := h.Send(t.Context(), m)
		if _, refused := errors.AsType[*Refused](err); err == nil || refused != c.refused {
			t.Errorf("status %d: %v, refused %t, want %t", c.status, err, refused, c.refused)
		}
	}
	for n := 2; ; n++ { // the first was above
		_, refused := errors.AsType[*Refused](h.Send(t.Context(), m))
		if refused != (n == maxTries) {
			t.Fatalf("attempt %d: refused %t", n, refused)
		}
		if refused {
			break
		}
	}
}

// TestSignature freezes how events are signed: receivers compute it, too.
func TestSignature(t *testing.T) {
	// printf '1700000000.{}' | openssl dgst -sha256 -hmac key
	want := "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
	if got := Sign("key", "1700000000", []byte("{}")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestWebhookAway: what is said of a receiver that is away has no part of its
// address, which may be a secret.
func TestWebhookAway(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	address := s.URL + "/hooks/s3cret"
	s.Close()
	h := NewWebhook(WebhookConfig{URL: address})
	for range maxTries + 1 {
		err := h.Send(t.Context(), Message{ID: "1"})
		if _, refused := errors.AsType[*Refused](err); err == nil || refused || strings.Contains(err.Error(), "s3cret") {
			t.Fatalf("%v, refused %t", err, refused)
		}
	}
}
