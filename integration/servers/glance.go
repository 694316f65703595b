package servers

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/seed-478a8fee/platter/integration/port"
)

// GlanceConfig says which stores a Glance has. Each that is set becomes one of
// Glance's stores, under the name "rbd", "s3", "swift" or "file"; the first of
// them in this order is the default one.
type GlanceConfig struct {
	// Ceph is a cluster, whose pool for images Glance shares.
	Ceph *Ceph

	// S3 is a server with a bucket.
	S3     *S3
	Bucket string

	// Swift is an account with a container.
	Swift     *SwiftAccount
	Container string

	// File adds a store in a folder of Glance's own, "file".
	File bool

	// LargeObject is the size in MiB from which on Glance cuts objects, in S3
	// into parts (5 at least), in Swift into segments of that size; Glance's
	// own sizes if 0.
	LargeObject int
}

// Glance is OpenStack's image service, without authentication: everybody is
// its administrator. Locations can be read and set.
type Glance struct {
	URL      string
	Database string // the file of SQLite
	Process  *Process
}

// SwiftReference is how a Glance calls its Swift account in locations:
// swift+config://REFERENCE/CONTAINER/OBJECT.
const SwiftReference = "account"

// StartGlance starts a Glance.
func StartGlance(t TB, cfg GlanceConfig) *Glance {
	t.Helper()
	need(t, "glance-api", "glance-manage")
	dir, port := tempDir(t, "glance"), port.Free(t)
	g := &Glance{URL: fmt.Sprintf("http://127.0.0.1:%d", port), Database: filepath.Join(dir, "glance.db")}
	for _, folder := range []string{"staging", "tasks", "locks", "images"} {
		mkdir(t, filepath.Join(dir, folder))
	}
	write(t, filepath.Join(dir, "paste.ini"), glancePaste)
	conf := filepath.Join(dir, "glance.conf")
	write(t, conf, glanceConf(t, cfg, dir, port))
	run(t, nil, "", "glance-manage", "--config-file", conf, "db_sync")
	g.Process = launch(t, &Process{Name: "glance-api", ready: answersHTTP(g.URL + "/versions"), line: []string{"glance-api", "--config-file", conf}}, dir)
	return g
}

const glancePaste = `[pipeline:glance-api]
pipeline = versionnegotiation unauthenticated-context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:unauthenticated-context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
`

func glanceConf(t TB, cfg GlanceConfig, dir string, port int) string {
	t.Helper()
	var names, stores []string
	add := func(name, format string, args ...any) {
		names = append(names, name)
		stores = append(stores, "["+name+"]\n"+fmt.Sprintf(format, args...))
	}
	if c := cfg.Ceph; c != nil {
		add("rbd", "rbd_store_ceph_conf = %s\nrbd_store_user = %s\nrbd_store_pool = %s\n", c.Conf, c.User, c.Pool)
	}
	if s := cfg.S3; s != nil {
		add("s3", "s3_store_host = %s\ns3_store_access_key = %s\ns3_store_secret_key = %s\ns3_store_bucket = %s\ns3_store_bucket_url_format = path\n",
			s.URL, s.AccessKey, s.SecretKey, cfg.Bucket)
		if cfg.LargeObject > 0 {
			stores[len(stores)-1] += fmt.Sprintf("s3_store_large_object_size = %d\ns3_store_large_object_chunk_size = %[1]d\n", cfg.LargeObject)
		}
	}
	if a := cfg.Swift; a != nil {
		accounts := filepath.Join(dir, "swift.conf")
		user, version := a.User, "1"
		if a.Project != "" {
			user, version = a.Project+":"+a.User, "3"
		}
		write(t, accounts, fmt.Sprintf("[%s]\nuser = %s\nkey = %s\nauth_version = %s\nauth_address = %s\nuser_domain_id = default\nproject_domain_id = default\n",
			SwiftReference, user, a.Key, version, a.AuthURL))
		add("swift", "swift_store_config_file = %s\ndefault_swift_reference = %s\nswift_store_container = %s\nswift_store_region = %s\n",
			accounts, SwiftReference, cfg.Container, a.Region)
		if cfg.LargeObject > 0 {
			stores[len(stores)-1] += fmt.Sprintf("swift_store_large_object_size = %d\nswift_store_large_object_chunk_size = %[1]d\n", cfg.LargeObject)
		}
	}
	if cfg.File {
		add("file", "filesystem_store_datadir = %s\n", filepath.Join(dir, "images"))
	}
	if len(names) == 0 {
		t.Fatalf("a Glance without a store")
	}
	var enabled []string
	for _, name := range names {
		enabled = append(enabled, name+":"+name)
	}
	return fmt.Sprintf(`[DEFAULT]
bind_host = 127.0.0.1
bind_port = %[2]d
workers = 0
use_stderr = true
enabled_backends = %[3]s
show_image_direct_url = true
show_multiple_locations = true
node_staging_uri = file://%[1]s/staging
[database]
connection = sqlite:///%[1]s/glance.db
[glance_store]
default_backend = %[4]s
[paste_deploy]
config_file = %[1]s/paste.ini
[oslo_concurrency]
lock_path = %[1]s/locks
[os_glance_staging_store]
filesystem_store_datadir = %[1]s/staging
[os_glance_tasks_store]
filesystem_store_datadir = %[1]s/tasks
%[5]s`, dir, port, strings.Join(enabled, ", "), names[0], strings.Join(stores, ""))
}
