package main

import (
	"encoding/json"
	"net/http"
	"sort"
	"sync"
)

// health answers /healthz (the process lives) and /readyz (every part can do
// its work), with the reason when one cannot.
type health struct {
	mu    sync.Mutex
	parts map[string]func() error
}

// add makes a part count for readiness.
func (h *health) add(name string, check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts == nil {
		h.parts = map[string]func() error{}
	}
	h.parts[name] = check
}

// alive answers /healthz.
func (h *health) alive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{\"status\":\"alive\"}\n"))
}

// ready answers /readyz: 200 when every part is well, else 503.
func (h *health) ready(w http.ResponseWriter, _ *http.Request) {
	type part struct {
		Name   string `json:"name"`
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitempty"`
	}
	h.mu.Lock()
	parts := make([]part, 0, len(h.parts))
	status := http.StatusOK
	for name, check := range h.parts {
		p := part{Name: name, Ready: true}
		if err := check(); err != nil {
			p.Ready, p.Reason, status = false, err.Error(), http.StatusServiceUnavailable
		}
		parts = append(parts, p)
	}
	h.mu.Unlock()
	sort.Slice(parts, func(i, j int) bool { return parts[i].Name < parts[j].Name })
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"ready": status == http.StatusOK, "parts": parts})
}
