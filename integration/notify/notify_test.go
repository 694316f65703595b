//go:build integration

package notify

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

var keeper servers.Keeper

var broker = servers.Share(&keeper, func(t servers.TB) *servers.RabbitMQ { return servers.StartRabbitMQ(t) })

func TestMain(m *testing.M) { os.Exit(keeper.Run(m)) }

// An event is one line of listen.py.
type event struct {
	Context   map[string]any
	Publisher string
	Type      string
	Payload   any
	ID        string
	Timestamp string
	Priority  string
}

// of returns a field of the payload.
func (e event) of(key string) any {
	payload, _ := e.Payload.(map[string]any)
	return payload[key]
}

// A listener collects what oslo.messaging hears.
type listener struct {
	mu   sync.Mutex
	list []event
	log  bytes.Buffer
	over chan struct{} // closed when it has ended
}

// listen starts oslo.messaging's listener and waits until it listens.
func listen(t *testing.T, r *servers.RabbitMQ, topic string) *listener {
	t.Helper()
	l := &listener{over: make(chan struct{})}
	cmd := exec.Command("/usr/bin/python3", "testdata/listen.py", fmt.Sprintf("rabbit://%s:%s@%s/", r.User, r.Password, r.Address), "glance", topic)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = &l.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.over)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Errorf("%v in %s", err, lines.Bytes())
				return
			}
			l.mu.Lock()
			l.list = append(l.list, e)
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-l.over
		cmd.Wait()
		if t.Failed() {
			t.Logf("oslo.messaging said:\n%s", l.log.Bytes()[max(0, l.log.Len()-4<<10):])
		}
	})
	l.wait(t, func(list []event) bool { return len(list) > 0 })
	return l
}

// wait waits until what was heard is as wished, and returns it.
func (l *listener) wait(t *testing.T, done func([]event) bool) []event {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		l.mu.Lock()
		list := slices.Clone(l.list)
		l.mu.Unlock()
		if done(list) {
			return list
		}
		select {
		case <-l.over:
			t.Fatal("the listener has ended")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("only these came: %s", names(list))
		}
	}
}

func names(list []event) (out []string) {
	for _, e := range list {
		out = append(out, fmt.Sprint(e.Publisher, " ", e.Type))
	}
	return out
}

// flags are those of a gateway that tells of everything.
func flags(r *servers.RabbitMQ, topic string, more ...string) []string {
	return append([]string{"--mount", "off", "--nbd-listen", "off", "--nbd-socket", "off",
		`PLATTER_NOTIFICATIONS_BROKERS=` + r.Address, "PLATTER_NOTIFICATIONS_USERNAME=" + r.User,
		"PLATTER_NOTIFICATIONS_PASSWORD=" + r.Password, "PLATTER_NOTIFICATIONS_PUBLISHER_ID=image.gateway",
		"PLATTER_NOTIFICATIONS_TOPICS=" + topic}, more...)
}

// A side is one of the two that are compared.
type side struct{ url, token string }

func (s side) call(t *testing.T, method, path, contentType, body string, status int) []byte {
	t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("X-Auth-Token", s.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s%s: %d, want %d, %v\n%s", method, s.url, path, resp.StatusCode, status, err, got)
	}
	return got
}

// talk does everything that is told of, and returns the image's id.
func (s side) talk(t *testing.T) string {
	t.Helper()
	const js, bin, patch = "application/json", "application/octet-stream", "application/openstack-images-v2.1-json-patch"
	var img struct{ ID string }
	made := s.call(t, "POST", "/v2/images", js, `{"name":"n","disk_format":"raw","container_format":"bare","tags":["a"],"os_distro":"debian"}`, 201)
	if err := json.Unmarshal(made, &img); err != nil {
		t.Fatal(err)
	}
	path := "/v2/images/" + img.ID
	s.call(t, "PATCH", path, patch, `[{"op":"add","path":"/k","value":"v"},{"op":"replace","path":"/name","value":"m"}]`, 200)
	s.call(t, "PUT", path+"/tags/b", "", "", 204)
	s.call(t, "DELETE", path+"/tags/b", "", "", 204)
	s.call(t, "POST", path+"/members", js, `{"member":"somebody"}`, 200)
	s.call(t, "PUT", path+"/members/somebody", js, `{"status":"accepted"}`, 200)
	s.call(t, "DELETE", path+"/members/somebody", "", "", 204)
	s.call(t, "PUT", path+"/file", bin, strings.Repeat("data", 1000), 204)
	s.call(t, "GET", path+"/file", "", "", 200)
	s.call(t, "POST", path+"/actions/deactivate", "", "", 204)
	s.call(t, "POST", path+"/actions/reactivate", "", "", 204)
	s.call(t, "DELETE", path, "", "", 204)
	return img.ID
}

// define makes, changes and deletes metadata definitions.
func (s side) define(t *testing.T) {
	t.Helper()
	const js, path = "application/json", "/v2/metadefs/namespaces"
	s.call(t, "POST", path, js, `{"namespace":"N","display_name":"d","visibility":"public","resource_type_associations":[{"name":"OS::Glance::Image","prefix":"p_"}],
		"properties":{"p1":{"title":"t","type":"integer","minimum":1}},"objects":[{"name":"o1","required":["q"],"properties":{"q":{"title":"t","type":"string"}}}],"tags":[{"name":"t1"}]}`, 201)
	s.call(t, "PUT", path+"/N", js, `{"namespace":"M","description":"later"}`, 200)
	s.call(t, "POST", path+"/M/properties", js, `{"name":"p2","title":"t","type":"string","enum":["a"]}`, 201)
	s.call(t, "PUT", path+"/M/properties/p2", js, `{"name":"p3","title":"u","type":"string"}`, 200)
	s.call(t, "DELETE", path+"/M/properties/p3", "", "", 204)
	s.call(t, "POST", path+"/M/objects", js, `{"name":"o2","description":"d"}`, 201)
	s.call(t, "PUT", path+"/M/objects/o2", js, `{"name":"o3"}`, 200)
	s.call(t, "DELETE", path+"/M/objects/o3", "", "", 204)
	s.call(t, "POST", path+"/M/tags/t2", "", "", 201)
	s.call(t, "PUT", path+"/M/tags/t2", js, `{"name":"t3"}`, 200)
	s.call(t, "DELETE", path+"/M/tags/t3", "", "", 204)
	s.call(t, "POST", path+"/M/tags", js, `{"tags":[{"name":"t4"},{"name":"t5"}]}`, 201)
	s.call(t, "POST", path+"/M/resource_types", js, `{"name":"OS::Nova::Flavor"}`, 201)
	s.call(t, "DELETE", path+"/M/resource_types/OS::Nova::Flavor", "", "", 204)
	for _, part := range []string{"objects", "properties", "tags"} {
		s.call(t, "DELETE", path+"/M/"+part, "", "", 204)
	}
	s.call(t, "DELETE", path+"/M", "", "", 204)
}

// defined returns what one publisher has told of definitions, once they are
// gone.
func defined(t *testing.T, l *listener, publisher string) []string {
	t.Helper()
	list := l.wait(t, func(list []event) bool {
		return slices.ContainsFunc(list, func(e event) bool { return e.Publisher == publisher && e.Type == "metadef_namespace.delete" })
	})
	var out []string
	for _, e := range list {
		if e.Publisher == publisher && strings.HasPrefix(e.Type, "metadef_") {
			out = append(out, shape(e))
		}
	}
	slices.Sort(out)
	return out
}

// told returns what one publisher has told of an image, once that is gone.
func told(t *testing.T, l *listener, publisher, id string) []event {
	t.Helper()
	of := func(list []event) []event {
		return slices.DeleteFunc(slices.Clone(list), func(e event) bool {
			return e.Publisher != publisher || e.of("id") != id && e.of("image_id") != id
		})
	}
	return of(l.wait(t, func(list []event) bool {
		mine := of(list)
		return slices.ContainsFunc(mine, func(e event) bool { return e.Type == "image.delete" }) &&
			slices.ContainsFunc(mine, func(e event) bool { return e.Type == "image.send" })
	}))
}

// shape is all of an event that must be equal on both sides.
func shape(e event) string {
	payload, _ := e.Payload.(map[string]any)
	var values []string
	for _, key := range slices.Sorted(maps.Keys(payload)) {
		switch value := payload[key]; key {
		case "id", "image_id", "owner", "owner_id", "created_at", "updated_at", "deleted_at", "receiver_tenant_id", "receiver_user_id", "backend":
			values = append(values, key)
		case "tags": // Glance keeps no order
			tags, _ := value.([]any)
			slices.SortFunc(tags, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			values = append(values, fmt.Sprintf("%s=%v", key, tags))
		default:
			values = append(values, fmt.Sprintf("%s=%v", key, value))
		}
	}
	return fmt.Sprintf("%s %s %s", e.Type, e.Priority, strings.Join(values, " "))
}

// TestGlance: for the same calls a gateway tells what a Glance tells.
func TestGlance(t *testing.T) {
	r := broker(t)
	k := servers.StartKeystone(t)
	g := servers.StartSecureGlance(t, servers.SecureGlanceConfig{Keystone: k, Stores: []string{"fast"}, More: fmt.Sprintf(
		"transport_url = rabbit://%s:%s@%s/\ndefault_publisher_id = image.glance\n[oslo_messaging_notifications]\ndriver = messagingv2\n", r.User, r.Password, r.Address)})
	l := listen(t, r, "notifications")
	p := gateway.Start(t, flags(r, "notifications")...)

	theirs := told(t, l, "image.glance", side{g.URL, k.Token(t, "admin", k.AdminPassword, "admin")}.talk(t))
	ours := told(t, l, "image.gateway", side{p.URL, ""}.talk(t))
	var want, got []string
	for _, e := range theirs {
		want = append(want, shape(e))
	}
	for _, e := range ours {
		got = append(got, shape(e))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Glance tells\n%s\nand the gateway\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	t.Logf("%d events in this order: %s", len(ours), names(ours))
	order := func(list []event) []string {
		var out []string
		for _, e := range list {
			if e.Type != "image.send" { // Glance's comes when the client has left
				out = append(out, e.Type)
			}
		}
		return out
	}
	if !slices.Equal(order(ours), order(theirs)) {
		t.Errorf("the order is %v, and Glance's is %v", order(ours), order(theirs))
	}
	for _, publisher := range []string{"image.glance", "image.gateway"} {
		if publisher == "image.glance" {
			side{g.URL, k.Token(t, "admin", k.AdminPassword, "admin")}.define(t)
		} else {
			side{p.URL, ""}.define(t)
		}
	}
	want, got = defined(t, l, "image.glance"), defined(t, l, "image.gateway")
	if !slices.Equal(got, want) {
		t.Errorf("Glance tells\n%s\nand the gateway\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	t.Logf("%d events of definitions", len(got))
	for _, e := range ours {
		if e.Context["request_id"] == nil || len(e.Timestamp) != len("2006-01-02 15:04:05.000000") {
			t.Errorf("%s: context %v, timestamp %q", e.Type, e.Context, e.Timestamp)
		}
	}
}

// TestBrokerAway: a broker that dies takes nothing along: what happens
// meanwhile is told when it is back, in its order.
func TestBrokerAway(t *testing.T) {
	r := broker(t)
	p := gateway.Start(t, flags(r, "away")...)
	l := listen(t, r, "away")
	create := func(name string) {
		p.Call(t, "POST", "/v2/images", fmt.Sprintf(`{"name":%q}`, name), http.StatusCreated)
	}
	heard := func(list []event) (out []string) {
		for _, e := range list {
			if name, ok := e.of("name").(string); ok && !slices.Contains(out, name) { // at least once is promised
				out = append(out, name)
			}
		}
		return out
	}
	create("0")
	l.wait(t, func(list []event) bool { return len(heard(list)) == 1 })
	r.Process.Kill(t)
	want := []string{"0"}
	for n := 1; n <= 20; n++ {
		create(fmt.Sprint(n))
		want = append(want, fmt.Sprint(n))
	}
	metric(t, p, `platter_notifications_ok{sink="amqp"} 0`)
	r.Process.Start(t)
	list := l.wait(t, func(list []event) bool { return len(heard(list)) == len(want) })
	if got := heard(list); !slices.Equal(got, want) {
		t.Errorf("heard %v, want %v", got, want)
	}
	metric(t, p, `platter_notifications_ok{sink="amqp"} 1`)
}

// TestBrokerHangs: a broker that takes connections and never answers costs
// events beyond the queue, which are counted, and no request; and the gateway
// stops.
func TestBrokerHangs(t *testing.T) {
	r := broker(t)
	p := gateway.Start(t, flags(r, "hangs", "PLATTER_NOTIFICATIONS_QUEUE_EVENTS=3", "PLATTER_NOTIFICATIONS_DRAIN_WITHIN=200ms")...)
	r.Process.Pause(t)
	defer r.Process.Resume(t)
	for n := range 10 {
		p.Call(t, "POST", "/v2/images", fmt.Sprintf(`{"name":"%d"}`, n), http.StatusCreated)
	}
	metric(t, p, `platter_notifications_total{result="dropped",sink="amqp"} 7`)
	metric(t, p, `platter_notifications_waiting{sink="amqp"} 3`)
	p.Stop(t)
	if got := strings.Count(p.Log(), "events are dropped"); got != 1 {
		t.Errorf("the log says %d times that events are dropped", got)
	}
}

// metric waits until the gateway's metrics have a line.
func metric(t *testing.T, p *gateway.Gateway, line string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(p.Debug + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if last = string(body); strings.Contains(last, "\n"+line+"\n") {
			return
		}
	}
	_, have, _ := strings.Cut(last, "platter_notifications_")
	t.Fatalf("the metrics have no %s, but\n%.2000s", line, have)
}
