package servers

import (
	"context"
	_ "embed" // run-swift.py
	"fmt"
	"net/url"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/ncw/swift/v2"

	"github.com/seed-478a8fee/platter/integration/port"
)

// SwiftAccount is how an account of an object store with Swift's API is
// reached. Project and Domain are set with Keystone only.
type SwiftAccount struct {
	AuthURL string // ends in /v1.0, or in /v3 with Keystone
	User    string
	Key     string
	Project string
	Domain  string // of the user and of the project, by name
	Region  string
}

// At returns the same account at another address, that of a proxy before the
// server. With Keystone only the catalog can say so.
func (a SwiftAccount) At(proxy string) SwiftAccount {
	if u, err := url.Parse(a.AuthURL); err == nil {
		a.AuthURL = proxy + u.Path
	}
	return a
}

// Connection returns a client of the account.
func (a SwiftAccount) Connection() *swift.Connection {
	c := &swift.Connection{AuthUrl: a.AuthURL, UserName: a.User, ApiKey: a.Key, Tenant: a.Project, Region: a.Region, AuthVersion: 1,
		ConnectTimeout: time.Minute, Timeout: time.Minute}
	if a.Project != "" {
		c.AuthVersion, c.Domain, c.TenantDomain = 3, a.Domain, a.Domain
	}
	return c
}

// MakeContainer makes a container.
func (a SwiftAccount) MakeContainer(t TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := a.Connection().ContainerCreate(ctx, name, nil); err != nil {
		t.Fatalf("make container %s: %v", name, err)
	}
}

// SwiftConfig says how StartSwift starts.
type SwiftConfig struct {
	// Keystone says who is who; Swift's own tempauth if nil. The service is
	// entered into its catalog.
	Keystone *Keystone

	// Endpoint makes of the server's URL the one that Keystone's catalog gets,
	// such as that of a proxy; its own if nil.
	Endpoint func(url string) string

	// MaxObject is the largest object in bytes; 5 GiB + 2, as by default, if 0.
	MaxObject int64
}

// Swift is OpenStack's Swift: one proxy, one account, container and object
// server, one replica.
type Swift struct {
	Account SwiftAccount
	URL     string // of the proxy
	Proxy   *Process
	Object  *Process
	Devices string // folder below which the servers keep everything
}

//go:embed run-swift.py
var runSwift []byte

// StartSwift starts Swift.
func StartSwift(t TB, cfg SwiftConfig) *Swift {
	t.Helper()
	need(t, "python3", "memcached", "swift-proxy-server", "swift-account-server", "swift-container-server", "swift-object-server")
	dir := tempDir(t, "swift")
	s := &Swift{Devices: filepath.Join(dir, "srv")}
	mkdir(t, filepath.Join(s.Devices, "d1"), filepath.Join(dir, "cache"))
	if !keepsAttributes(s.Devices) {
		t.Fatalf("%s keeps no extended attributes, which Swift needs: set TMPDIR to a folder that does", s.Devices)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatalf("%v", err)
	}
	ports := map[string]int{}
	for _, name := range []string{"account", "container", "object", "proxy", "memcached"} {
		ports[name] = port.Free(t)
	}
	s.URL = fmt.Sprintf("http://127.0.0.1:%d", ports["proxy"])
	if cfg.MaxObject == 0 {
		cfg.MaxObject = 5<<30 + 2
	}
	write(t, filepath.Join(dir, "run-swift.py"), string(runSwift))
	write(t, filepath.Join(dir, "swift.conf"), fmt.Sprintf(swiftConf, cfg.MaxObject))
	for _, name := range []string{"account", "container", "object"} {
		write(t, filepath.Join(dir, name+".conf"), fmt.Sprintf(swiftServerConf, name, ports[name], me.Username, dir, s.Devices))
	}
	write(t, filepath.Join(dir, "proxy.conf"), swiftProxyConf(cfg.Keystone, ports["proxy"], ports["memcached"], me.Username, dir))

	memcached := &Process{Name: "memcached", ready: answersTCP(ports["memcached"]),
		line: []string{"memcached", "-u", me.Username, "-l", "127.0.0.1", "-p", fmt.Sprint(ports["memcached"]), "-U", "0", "-m", "32", "-t", "1"}}
	launch(t, memcached, dir)
	script := []string{"/usr/bin/python3", filepath.Join(dir, "run-swift.py"), dir}
	run(t, nil, "", script[0], append(script[1:], "rings", fmt.Sprint(ports["account"]), fmt.Sprint(ports["container"]), fmt.Sprint(ports["object"]))...)
	servers := map[string]*Process{}
	for _, name := range []string{"account", "container", "object", "proxy"} {
		p := &Process{Name: "swift-" + name, line: append(script[:3:3], "swift-"+name+"-server", filepath.Join(dir, name+".conf")), ready: answersTCP(ports[name])}
		if name == "proxy" {
			p.ready = answersHTTP(s.URL + "/healthcheck")
		}
		servers[name] = p
	}
	launchAll(t, dir, servers["account"], servers["container"], servers["object"], servers["proxy"])
	s.Proxy, s.Object = servers["proxy"], servers["object"]
	if k := cfg.Keystone; k != nil {
		endpoint := s.URL
		if cfg.Endpoint != nil {
			endpoint = cfg.Endpoint(endpoint)
		}
		k.AddService(t, "object-store", "swift", endpoint+"/v1/AUTH_%(tenant_id)s")
		s.Account = SwiftAccount{AuthURL: k.URL, User: k.User, Key: k.Password, Project: k.Project, Domain: "Default", Region: k.Region}
	} else {
		s.Account = SwiftAccount{AuthURL: s.URL + "/auth/v1.0", User: "test:tester", Key: "testing"}
	}
	return s
}

const swiftConf = `[swift-hash]
swift_hash_path_prefix = platter
swift_hash_path_suffix = platter
[storage-policy:0]
name = Policy-0
default = yes
[swift-constraints]
max_file_size = %d
`

const swiftServerConf = `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %[2]d
workers = 0
user = %[3]s
swift_dir = %[4]s
devices = %[5]s
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = WARNING
log_address = /nonexistent
recon_cache_path = %[4]s/cache
[pipeline:main]
pipeline = %[1]s-server
[app:%[1]s-server]
use = egg:swift#%[1]s
`

// swiftProxyConf is the proxy's configuration, with tempauth if k is nil.
func swiftProxyConf(k *Keystone, port, memcached int, user, dir string) string {
	auth, filters := "tempauth", `[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test2_tester2 = testing2 .admin
`
	if k != nil {
		auth, filters = "authtoken keystoneauth", fmt.Sprintf(`[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = %[1]s
auth_url = %[1]s
auth_type = password
username = admin
password = %[2]s
project_name = admin
user_domain_id = default
project_domain_id = default
delay_auth_decision = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
`, k.URL, k.AdminPassword)
	}
	return strings.NewReplacer("AUTH", auth, "PORT", fmt.Sprint(port), "MEMCACHED", fmt.Sprint(memcached), "USER", user, "DIR", dir).Replace(`[DEFAULT]
bind_ip = 127.0.0.1
bind_port = PORT
workers = 0
user = USER
swift_dir = DIR
log_level = WARNING
log_address = /nonexistent
[pipeline:main]
pipeline = catch_errors healthcheck proxy-logging cache bulk tempurl AUTH copy slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:MEMCACHED
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
`) + filters
}
