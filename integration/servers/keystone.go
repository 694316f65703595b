package servers

import (
	"bytes"
	"crypto/rand"
	_ "embed" // run-keystone.py
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/seed-478a8fee/platter/integration/port"
)

// Keystone is OpenStack's identity service.
type Keystone struct {
	URL    string // ends in /v3
	Region string

	// An ordinary user: role member in its project. The domain is "Default"
	// (id "default").
	User, Password, Project string

	AdminPassword string // of the user admin in the project admin
	Process       *Process
}

//go:embed run-keystone.py
var runKeystone []byte

// StartKeystone starts Keystone, which takes many seconds.
func StartKeystone(t TB) *Keystone {
	t.Helper()
	need(t, "python3", "keystone-manage")
	dir, port := tempDir(t, "keystone"), port.Free(t)
	k := &Keystone{URL: fmt.Sprintf("http://127.0.0.1:%d/v3", port), Region: "RegionOne",
		User: "platter", Password: "user-password", Project: "images", AdminPassword: "admin-password"}
	for _, keys := range []string{"fernet", "credential"} {
		mkdir(t, filepath.Join(dir, keys))
		for _, name := range []string{"0", "1"} { // the next and the present one
			var key [32]byte
			rand.Read(key[:])
			write(t, filepath.Join(dir, keys, name), base64.URLEncoding.EncodeToString(key[:]))
		}
	}
	conf := filepath.Join(dir, "keystone.conf")
	write(t, conf, fmt.Sprintf(keystoneConf, dir))
	write(t, filepath.Join(dir, "run-keystone.py"), string(runKeystone))
	k.Process = launch(t, &Process{Name: "keystone", ready: answersHTTP(k.URL),
		line: []string{"/usr/bin/python3", filepath.Join(dir, "run-keystone.py"), conf, fmt.Sprint(port), k.AdminPassword, k.Region}}, dir)
	k.Grant(t, k.User, k.Password, k.Project, "member")
	return k
}

const keystoneConf = `[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///%[1]s/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = %[1]s/fernet
[fernet_receipts]
key_repository = %[1]s/fernet
[credential]
key_repository = %[1]s/credential
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
`

// AddService enters a service into the catalog, with one address for all its
// interfaces.
func (k *Keystone) AddService(t TB, kind, name, url string) {
	t.Helper()
	token := k.token(t)
	service := k.post(t, token, "services", "service", map[string]any{"type": kind, "name": name})
	for _, i := range []string{"public", "internal", "admin"} {
		k.post(t, token, "endpoints", "endpoint", map[string]any{"interface": i, "region_id": k.Region, "service_id": service, "url": url})
	}
}

// token returns a token of the administrator.
func (k *Keystone) token(t TB) string {
	t.Helper()
	return k.Token(t, "admin", k.AdminPassword, "admin")
}

// post makes a thing and returns its id.
func (k *Keystone) post(t TB, token, things, thing string, fields map[string]any) string {
	t.Helper()
	_, body := k.call(t, token, http.MethodPost, "/"+things, map[string]any{thing: fields})
	var made map[string]struct{ ID string }
	if err := json.Unmarshal(body, &made); err != nil || made[thing].ID == "" {
		t.Fatalf("keystone: %s: %v\n%s", things, err, body)
	}
	return made[thing].ID
}

func (k *Keystone) call(t TB, token, method, path string, body any) (http.Header, []byte) {
	t.Helper()
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatalf("%v", err)
		}
		sent = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, k.URL+path, sent)
	if err != nil {
		t.Fatalf("%v", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Auth-Token", token)
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatalf("keystone: %v\n%s", err, k.Process.Log(4<<10))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("keystone: %s %s: %s, %v\n%s\n%s", method, path, resp.Status, err, answer, k.Process.Log(4<<10))
	}
	return resp.Header, answer
}
