package servers

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/seed-478a8fee/platter/integration/port"
)

// SecureGlanceConfig says how a Glance works that people with tokens use. Its
// rules are those of secure RBAC.
type SecureGlanceConfig struct {
	Keystone *Keystone

	// Stores are the names of stores in local files, the first of them the
	// default one. Web adds a store "web" of type http, which can only be read.
	Stores []string
	Web    bool

	// More is further configuration: lines of the section DEFAULT, and then
	// perhaps further sections.
	More string
}

// StartSecureGlance starts a Glance that asks a Keystone who somebody is.
func StartSecureGlance(t TB, cfg SecureGlanceConfig) *Glance {
	t.Helper()
	need(t, "glance-api", "glance-manage")
	dir, port := tempDir(t, "glance"), port.Free(t)
	g := &Glance{URL: fmt.Sprintf("http://127.0.0.1:%d", port)}
	for _, folder := range append([]string{"staging", "tasks", "locks"}, cfg.Stores...) {
		mkdir(t, filepath.Join(dir, folder))
	}
	conf := filepath.Join(dir, "glance.conf")
	write(t, filepath.Join(dir, "paste.ini"), secureGlancePaste)
	write(t, conf, secureGlanceConf(cfg, dir, port))
	run(t, nil, "", "glance-manage", "--config-file", conf, "db_sync")
	g.Process = launch(t, &Process{Name: "glance-api", ready: answersHTTP(g.URL + "/versions"), line: []string{"glance-api", "--config-file", conf}}, dir)
	return g
}

const secureGlancePaste = `[pipeline:glance-api]
pipeline = healthcheck versionnegotiation authtoken context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:healthcheck]
paste.filter_factory = oslo_middleware:Healthcheck.factory
backends = disable_by_file
disable_by_file_path = /nonexistent
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
`

func secureGlanceConf(cfg SecureGlanceConfig, dir string, port int) string {
	var enabled []string
	var stores strings.Builder
	for _, name := range cfg.Stores {
		enabled = append(enabled, name+":file")
		fmt.Fprintf(&stores, "[%s]\nfilesystem_store_datadir = %s\n", name, filepath.Join(dir, name))
	}
	if cfg.Web {
		enabled = append(enabled, "web:http")
	}
	return fmt.Sprintf(`[DEFAULT]
bind_host = 127.0.0.1
bind_port = %[2]d
workers = 0
use_stderr = true
enabled_backends = %[3]s
node_staging_uri = file://%[1]s/staging
enforce_secure_rbac = true
%[6]s
[database]
connection = sqlite:///%[1]s/glance.db
[glance_store]
default_backend = %[4]s
[oslo_policy]
enforce_new_defaults = true
enforce_scope = true
[paste_deploy]
config_file = %[1]s/paste.ini
[keystone_authtoken]
auth_type = password
auth_url = %[7]s
www_authenticate_uri = %[7]s
username = admin
password = %[8]s
project_name = admin
user_domain_id = default
project_domain_id = default
[oslo_concurrency]
lock_path = %[1]s/locks
[os_glance_staging_store]
filesystem_store_datadir = %[1]s/staging
[os_glance_tasks_store]
filesystem_store_datadir = %[1]s/tasks
%[5]s`, dir, port, strings.Join(enabled, ", "), cfg.Stores[0], stores.String(), cfg.More, cfg.Keystone.URL, cfg.Keystone.AdminPassword)
}
