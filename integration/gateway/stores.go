package gateway

import (
	"strings"

	"github.com/seed-478a8fee/platter/integration/servers"
)

// The functions here say what a gateway needs in its environment to have one
// far store, called "cold". More is NAME=value of further keys of the store,
// such as "DURABILITY=store".

func store(kind string, keys map[string]string, more []string) []string {
	env := []string{"PLATTER_STORES_COLD_TYPE=" + kind}
	for name, value := range keys {
		env = append(env, "PLATTER_STORES_COLD_"+name+"="+value)
	}
	for _, m := range more {
		env = append(env, "PLATTER_STORES_COLD_"+strings.TrimPrefix(m, "PLATTER_STORES_COLD_"))
	}
	return env
}

// S3Store is a bucket.
func S3Store(s servers.S3, bucket string, more ...string) []string {
	return store("s3", map[string]string{
		"ENDPOINT": s.URL, "BUCKET": bucket, "ACCESS_KEY": s.AccessKey, "SECRET_KEY": s.SecretKey, "REGION": s.Region,
	}, more)
}

// SwiftStore is a container.
func SwiftStore(a servers.SwiftAccount, container string, more ...string) []string {
	keys := map[string]string{"AUTH_URL": a.AuthURL, "USER": a.User, "KEY": a.Key, "CONTAINER": container, "AUTH_VERSION": "1"}
	if a.Project != "" {
		keys["AUTH_VERSION"], keys["PROJECT"], keys["REGION"] = "3", a.Project, a.Region
		keys["USER_DOMAIN"], keys["PROJECT_DOMAIN"] = a.Domain, a.Domain
	}
	return store("swift", keys, more)
}

// RBDStore is a pool.
func RBDStore(c *servers.Ceph, pool string, more ...string) []string {
	return store("rbd", map[string]string{"CONF": c.Conf, "POOL": pool, "USER": c.User, "KEYRING": c.Keyring}, more)
}
