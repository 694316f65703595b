package platter

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/wire"
)

// wires are two connections.
type wires struct{ kicked []uint64 }

func (w *wires) Conns() []ConnInfo {
	return []ConnInfo{
		{ID: 1, Client: "qemu (process 7)", Transport: "unix", Export: "overlay/x", Writable: true, Since: time.Now().Add(-time.Minute), Requests: 5, Read: 4096},
		{ID: 4, Client: "192.0.2.1:5", Transport: "tls", Peer: "hv-1", Since: time.Now()},
	}
}

func (w *wires) Kick(id uint64) bool {
	w.kicked = append(w.kicked, id)
	return id == 4
}

func TestConnections(t *testing.T) {
	d := newDesk(t)
	if got, _ := d.do("GET", "/nbd/connections", "", 200); len(got["connections"].([]any)) != 0 {
		t.Errorf("connections of nobody: %v", got)
	}
	d.do("DELETE", "/nbd/connections/4", "", 404)
	w := &wires{}
	d.s.cfg.Conns = w
	got, _ := d.do("GET", "/nbd/connections", "", 200)
	one, two := got["connections"].([]any)[0].(map[string]any), got["connections"].([]any)[1].(map[string]any)
	if one["id"] != 1.0 || one["peer"] != nil || one["export"] != "overlay/x" || one["age_seconds"].(float64) < 60 || one["read_bytes"] != 4096.0 ||
		two["peer"] != "hv-1" || two["export"] != nil {
		t.Errorf("connections: %v", got)
	}
	d.do("GET", "/nbd/connections?id=1", "", 400)
	d.do("DELETE", "/nbd/connections/4", "", 204)
	d.do("DELETE", "/nbd/connections/9", "", 404)
	d.do("DELETE", "/nbd/connections/all", "", 404)
	if !slices.Equal(w.kicked, []uint64{4, 9}) {
		t.Errorf("kicked %v", w.kicked)
	}
}

func TestTLSDir(t *testing.T) {
	d := newDesk(t)
	body := func(rest string) string { return `{"image_id":"` + d.img.ID + `",` + rest + `}` }
	d.do("POST", "/attachments", body(`"tls_dir":"/etc"`), http.StatusBadRequest)
	for _, dir := range []string{"etc", "/a\u0000b", "/a\nb"} {
		r := wire.StatusOf(checkTLSDir(AttachRequest{Transport: "tls", TLSDir: dir}))
		if r != http.StatusBadRequest {
			t.Errorf("tls_dir %q: %d", dir, r)
		}
	}
	d.do("POST", "/attachments", body(`"transport":"tls","tls_dir":"/etc/pki/me"`), 201)
}
